"""Classify the failures of tasks: by the content of a task, by the machine that ran it, or fatal for the whole run."""

from __future__ import annotations

import re
import traceback
from dataclasses import dataclass
from typing import Literal

from splatfix.errors import MachineError, RunAborted, disk_full, is_disk_full

MAX_REASON = 600  # characters
MAX_REASON_LINES = 6
_DETAILS = re.compile(r"\t(class_name|actor_id|pid|name|namespace|ip): ")  # of Ray's errors of dead actors
MAX_TRACEBACK = 8000  # characters, of its end

FailureKind = Literal["content", "machine"]


@dataclass(frozen=True)
class Failure:
    """Why an attempt at a task failed.

    Attributes:
        reason: one line.
        kind: ``content`` if the task itself is at fault, so that another attempt here is useless; ``machine``
            if another attempt, best on another node, may succeed.
        traceback: the end of the traceback, with that of the worker's process.
    """

    reason: str
    kind: FailureKind
    traceback: str


class NodeDiskFullError(MachineError):
    """Raised in a worker when a folder is full that only its node uses, such as that for temporary files."""


class BrokenProcessError(MachineError):
    """Raised in a worker when no task can succeed any more in its process, so that another has to take its place."""


class GpuMemoryError(MachineError):
    """Raised in a worker when the memory of its GPU is full, even after it has freed what it could."""


class SlowTaskError(MachineError):
    """The failure of a task whose worker did not answer in time."""


def describe_slow_task(minutes: float) -> str:
    """Why an attempt was ended that took longer than `WorkersConfig.task_minutes`."""
    return f"no answer for {minutes:g} minutes (workers.task_minutes): it hangs, or needs longer"


def classify_failure(error: BaseException, trace: str | None = None) -> Failure:
    """Tell why an attempt at a task failed; ``trace`` is the traceback of an error that another process raised.

    A ``ValueError`` is a failure of content. That includes files that are missing, which another node may have: a pool
    with workers on several nodes asks a second node before it believes it. Any other exception (`MachineError`,
    permissions, an unreachable store, CUDA, imports) is a failure of the machine.

    Raises:
        RunAborted: no other task can succeed either (DiskFull: no space is left).
    """
    if isinstance(error, RunAborted):
        raise error
    if isinstance(error, OSError) and is_disk_full(error):
        raise disk_full(error) from None
    trace = ("".join(traceback.format_exception(error)) if trace is None else trace)[-MAX_TRACEBACK:]
    if isinstance(error, ValueError):
        return Failure(str(error), "content", trace)
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and not _DETAILS.match(line)]
    lines = lines or ["no message"]
    reason = "; ".join(lines[:MAX_REASON_LINES])
    if not isinstance(error, MachineError):
        reason = f"{type(error).__name__}: {reason}"
    return Failure(reason[:MAX_REASON], "machine", trace)
