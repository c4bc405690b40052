"""The report: figures (`megu.report.figures`, the only part that imports matplotlib) and one self-contained page. The certificate is a
separate page.
"""

from __future__ import annotations

from megu.evaluation.text import headline, retrain_title, summary_markdown, summary_rows
from megu.report.data import ReportData
from megu.report.page import render

__all__ = ["ReportData", "headline", "render", "retrain_title", "summary_markdown", "summary_rows"]
