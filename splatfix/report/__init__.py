"""Reports: one self-contained HTML page per run or comparison, and a table for the terminal.

Reads what a run wrote (`splatfix.evaluation.layout` says where) and computes no results.
"""

from splatfix.report.page import write_report
from splatfix.report.terminal import results_table

__all__ = ["results_table", "write_report"]
