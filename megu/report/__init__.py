"""The report: figures (`megu.report.figures`, the only part that imports matplotlib) and one self-contained page."""

from __future__ import annotations

from megu.report.data import ReportData
from megu.report.page import render
from megu.report.words import headline, retrain_title, summary_markdown, summary_rows

__all__ = ["ReportData", "headline", "render", "retrain_title", "summary_markdown", "summary_rows"]
