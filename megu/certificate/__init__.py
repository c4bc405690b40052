"""The certificate: one page in plain words for a regulator or a data subject, made from a dossier alone.

`megu.certificate.words` says it, `megu.certificate.figure` draws it, ``certificate.html`` sets it, on the screen and on A4.
"""

from __future__ import annotations

from megu.certificate.page import render
from megu.certificate.words import Certificate, certificate

__all__ = ["Certificate", "certificate", "render"]
