"""Errors that say who is at fault: a machine, the whole run, or the disk. A `ValueError` blames what the user gave."""

from __future__ import annotations


class MachineError(Exception):
    """Raised when this machine cannot do its work, so that another machine may succeed."""


class RunAborted(Exception):  # noqa: N818 - the end of a run, rather than the error of a task
    """Raised when no other task can succeed either, so that the run ends."""


class LeaseLost(BaseException):
    """Raised in the thread that holds a lease when another driver has taken it over: it must write nothing more."""


class DiskFull(RunAborted):
    """Raised when there is no space for results."""
