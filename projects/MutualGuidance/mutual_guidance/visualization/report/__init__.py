"""One HTML page on one run or several."""

from .page import render_report
from .runs import Run, read_run, run_labels

__all__ = ["Run", "read_run", "render_report", "run_labels"]
