"""The HTML templates of the package's pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from megu.core.escaping import visible

if TYPE_CHECKING:
    from jinja2 import Template


def template(package: str, name: str) -> Template:
    """Return the template ``name`` beside the code of ``package``. Everything put into it is escaped; an undefined variable is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(package, "."),
        autoescape=True,
        finalize=lambda value: visible(value) if type(value) is str else value,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)
