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
    """Raised when there is no space for results."""


def is_disk_full(error: BaseException) -> bool:
    """Whether an error says that nothing more can be written."""
    return isinstance(error, DiskFull) or (isinstance(error, OSError) and error.errno in NO_SPACE)
