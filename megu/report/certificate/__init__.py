"""The certificate: one page in plain words for a regulator or a data subject, made from a dossier alone.

`megu.report.certificate.text` says it, `megu.report.certificate.figure` draws it, ``certificate.html`` sets it, on the screen and on A4.
"""

from __future__ import annotations

from megu.report.certificate.page import render
from megu.report.certificate.text import Certificate, certificate

__all__ = ["Certificate", "certificate", "render"]
