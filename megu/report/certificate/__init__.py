"""The certificate: one page in plain words for a regulator or a data subject, made from a dossier alone.

`megu.report.certificate.text` writes the sentences, `megu.report.certificate.figure` draws the bars, and ``certificate.html`` lays them
out, on the screen and on A4.
"""

from __future__ import annotations

from megu.report.certificate.page import render
from megu.report.certificate.text import Certificate, certificate

__all__ = ["Certificate", "certificate", "render"]
