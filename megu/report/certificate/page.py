"""One self-contained HTML page: nothing on it needs the network, and a browser prints it on A4."""

from __future__ import annotations

from megu.report.certificate.figure import bars
from megu.report.certificate.text import Certificate
from megu.report.templates import template


def render(said: Certificate) -> str:
    """Render the page; the same certificate gives the same bytes."""
    return template("megu.report.certificate", "certificate.html").render(said=said, bars=bars)
