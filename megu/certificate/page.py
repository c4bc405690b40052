"""One self-contained HTML page: nothing on it needs the network, and a browser prints it on A4."""

from __future__ import annotations

from megu.certificate.figure import bars
from megu.certificate.words import Certificate


def render(said: Certificate) -> str:
    """The page; the same certificate gives the same bytes."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("megu.certificate", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("certificate.html").render(said=said, bars=bars)
