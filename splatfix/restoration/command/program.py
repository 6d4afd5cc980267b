"""Run another program: in a process group that ends with the call, for a bounded time, with its last lines kept."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from splatfix.programs import describe_exit, wait_for_killed

log = logging.getLogger(__name__)

LAST_LINES = 20  # of the program's output, shown where it fails
MAX_LINE = 300  # characters
GRACE_SECONDS = 5.0  # between asking a program to end and killing it


class ProgramError(OSError):
    """Raised where another program fails or takes too long. It may be worth another attempt, unlike a `ValueError`."""


def run_program(argv: Sequence[str], *, env: Mapping[str, str], timeout_seconds: float, log_path: Path) -> None:
    """Run a program to its end, without a shell; its output goes to a file.

    It leads a separate process group, which is killed where the call ends early: at the timeout, and at anything that
    is raised here (Ctrl-C). Its standard input is empty.

    Raises:
        ValueError: the program cannot be started.
        ProgramError: another exit code than 0, or the timeout; the last lines of its output are logged before.
    """
    with log_path.open("wb") as output:
        try:
            process = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={"PYTHONUNBUFFERED": "1", **os.environ, **env},  # so that a Python program's output comes in order
                start_new_session=True,
            )
        except (OSError, ValueError) as error:  # not executable, an argument that is too long or has a null byte, ...
            raise ValueError(f"restorer 'command': {argv[0]} cannot be started: {error}") from None
    try:
        code = process.wait(timeout_seconds)
    except subprocess.TimeoutExpired:
        _end_group(process, argv[0])
        last = _show_last_lines(argv[0], log_path)
        raise ProgramError(
            f"restorer 'command': {argv[0]} was stopped after {timeout_seconds:g} seconds{last}; "
            "raise timeout_seconds, or give it fewer views at a time with views_per_call"
        ) from None
    except BaseException:
        _end_group(process, argv[0])
        raise
    if code != 0:
        _end_group(process, argv[0])
        last = _show_last_lines(argv[0], log_path)
        raise ProgramError(f"restorer 'command': {argv[0]} failed with {describe_exit(code)}{last}")


def _end_group(process: subprocess.Popen, name: str) -> None:
    """End the program and everything that it started: by request, then by force."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)  # the program leads its group, so the two have the same number
        except (ProcessLookupError, PermissionError):  # the group has ended (macOS says the latter of zombies)
            break
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            continue
    wait_for_killed(process, name)


def _show_last_lines(program: str, log_path: Path) -> str:
    """Log the last lines of the output; the very last one comes back, for the error's own line."""
    with log_path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - LAST_LINES * MAX_LINE * 4))
        text = file.read().decode("utf-8", errors="replace")
    lines = [line.split("\r")[-1].rstrip()[:MAX_LINE] for line in text.splitlines() if line.strip()][-LAST_LINES:]
    if not lines:
        return " and no output"
    log.error("%s wrote last:", program)
    for line in lines:
        log.error("  %s", line)
    return f": {lines[-1].strip()}"
