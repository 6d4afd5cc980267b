"""Reports: one self-contained HTML page per run or comparison, and a table with a verdict for the terminal.

Reads what a run wrote (`splatfix.evaluation.layout` says where) and computes no results.
"""

from splatfix.report.load import load_runs
from splatfix.report.page import update_report, write_report
from splatfix.report.terminal import describe_run, results_table

__all__ = ["describe_run", "load_runs", "results_table", "update_report", "write_report"]
