"""Prefect flows. Importing the package points Prefect and MLflow at the project, which must happen before either is imported."""

from contextlib import suppress

from megu.environment import prepare_environment
from megu.errors import MeguError
from megu.project import find

with suppress(MeguError):  # outside a project: a flow that is run there says so itself
    prepare_environment(find())
