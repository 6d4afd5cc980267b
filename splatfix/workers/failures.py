"""Classify the failures of tasks: some are retried, some are permanent, and some end the whole run."""

from __future__ import annotations

import errno
import logging
import traceback

from splatfix.errors import DiskFull, RunAborted

log = logging.getLogger(__name__)

MAX_REASON = 600  # characters
MAX_REASON_LINES = 6


def classify_failure(error: BaseException) -> tuple[str, bool]:
    """Return the reason for a failed attempt in one line, and whether the failure is permanent.

    A ``ValueError`` is permanent: the task cannot succeed. Any other exception may be a
    failure of the machine, so that another attempt may succeed.

    Raises:
        RunAborted: no other task can succeed either (DiskFull: no space is left).
    """
    if isinstance(error, RunAborted):
        raise error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise DiskFull(str(error.filename or error)) from None
    if isinstance(error, ValueError):
        return str(error), True
    log.debug("%s", "".join(traceback.format_exception(error)))
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no message"]
    return f"{type(error).__name__}: {'; '.join(lines[:MAX_REASON_LINES])}"[:MAX_REASON], False
