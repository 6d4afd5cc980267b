"""Errors that say who is at fault: a machine, the whole run, or the disk. A `ValueError` blames what the user gave."""

from __future__ import annotations

import errno

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk, the user's share of it, or the limit of a file's size


class MachineError(Exception):
    """Raised when this machine cannot do its work, so that another machine may succeed."""


class RunAborted(Exception):  # noqa: N818 - the end of a run, rather than the error of a task
    """Raised when no other task can succeed either, so that the run ends."""


class LeaseLost(BaseException):
    """Raised in the thread that holds a lease when another driver has taken it over: it must write nothing more."""


class DiskFull(RunAborted):
    """Raised when there is no space for results; see `disk_full` for its message."""


def disk_full(error: OSError) -> DiskFull:
    """The error for users when writing raised one that `is_disk_full`."""
    limit = " or files may not grow" if error.errno == errno.EFBIG else ""
    return DiskFull(f"the disk is full{limit} ({error.filename or error}); finished work is kept: free some space")


def is_disk_full(error: BaseException) -> bool:
    """Whether an error says that nothing more can be written."""
    return isinstance(error, DiskFull) or (isinstance(error, OSError) and error.errno in NO_SPACE)
