"""Prefect flows: the list of their stages, nothing else.
Importing the package points Prefect and MLflow at the project, which must happen before either is imported.
"""

from contextlib import suppress

from megu.core.errors import MeguError
from megu.core.project import find
from megu.servers.environment import prepare_environment

with suppress(MeguError):  # outside a project: a flow that runs there reports it itself
    prepare_environment(find())
