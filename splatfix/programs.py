"""Other programs: run, waited for and ended, with a bound on every wait."""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple

import psutil

KILLED_SECONDS = 10.0  # that a killed process may take to end, unless it is stuck in the kernel
STALL_SECONDS = 600.0  # without a sign of work, after which a program is given up
FRUITLESS_SECONDS = 7200.0  # of work that shows nothing, after which it is given up, too
POLL_SECONDS = 0.05
log = logging.getLogger(__name__)


class StallError(OSError):
    """Raised where a program has shown no sign of work for `STALL_SECONDS`, or nothing for `FRUITLESS_SECONDS`."""


class Finished(NamedTuple):
    """How a program ended.

    Attributes:
        code: its exit code, or minus the number of the signal that ended it.
        output, errors: what it wrote to standard output and to standard error.
    """

    code: int
    output: str
    errors: str


def run_program(argv: Sequence[str | Path], *, timeout_seconds: float) -> Finished:
    """Run a program to its end, without a shell and without input.

    Its output goes to files: a pipe may stay open after its end, held by a process that it started. What it has started
    ends with it.

    Raises:
        OSError: it cannot be started.
        subprocess.TimeoutExpired: it took longer; it has been killed.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, start_new_session=True)
        with killing(process, Path(argv[0]).name):
            code = process.wait(timeout_seconds)
        return Finished(code, *(_read_text(file) for file in (output, errors)))


def describe_exit(code: int) -> str:
    """How a program ended, in words: its exit code, or the signal that killed it."""
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"{name} (out of memory?)" if name == "SIGKILL" else name


def _read_text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


@contextmanager
def killing(process: subprocess.Popen, name: str) -> Iterator[None]:
    """Kill a process, if it runs at the end of the block, and all that it has started. It leads a separate session."""
    try:
        yield
    finally:
        is_running = process.poll() is None
        with suppress(ProcessLookupError, PermissionError):  # nothing of the group is left; macOS says the latter
            os.killpg(process.pid, signal.SIGKILL)
        if is_running:
            wait_for_killed(process, name)


def wait_for_killed(process: subprocess.Popen, name: str) -> None:
    """Wait for the end of a process that was killed, for at most `KILLED_SECONDS`.

    One that waits in the kernel, for a network disk that does not answer, ends only after that wait: it is left behind
    with a warning.
    """
    try:
        process.wait(KILLED_SECONDS)
    except subprocess.TimeoutExpired:
        log.warning(
            "%s (process %d) has not ended %g s after it was killed: it waits for a disk or a device; check them with "
            "ps and dmesg. This command goes on without it",
            *(name, process.pid, KILLED_SECONDS),
        )


def wait_while_working(process: subprocess.Popen, count: Callable[[], int], on_count: Callable[[int], object]) -> None:
    """Wait for the end of a process that works, and has more and more to show.

    Args:
        process: the process.
        count: returns how much it has done so far.
        on_count: called with how much more that is than at the last call.

    Raises:
        StallError: it has taken no time of the processor for `STALL_SECONDS`, or its count has not grown for
            `FRUITLESS_SECONDS`.
    """
    num, busy, is_done = 0, 0.0, False
    worked = counted = time.monotonic()
    while not is_done:
        time.sleep(POLL_SECONDS)
        is_done = process.poll() is not None
        now, more = time.monotonic(), max(0, count() - num)
        on_count(more)
        num += more
        if more:
            counted = worked = now
        if (seconds := _processor_seconds(process)) > busy:
            busy, worked = seconds, now
        if is_done:
            return
        if now - worked > STALL_SECONDS:
            raise StallError(f"it has done nothing for {STALL_SECONDS:g} s")
        if now - counted > FRUITLESS_SECONDS:
            raise StallError(f"it has worked for {FRUITLESS_SECONDS:g} s without a result")


def _processor_seconds(process: subprocess.Popen) -> float:
    """The time of the processor that a process has taken; 0 if it has ended."""
    try:
        times = psutil.Process(process.pid).cpu_times()
    except psutil.Error:
        return 0.0
    return times.user + times.system


def write_to_pipe(pipe: int, data: bytes | memoryview) -> None:
    """Write all bytes to a pipe.

    Raises:
        StallError: its reader has taken nothing for `STALL_SECONDS`.
        BrokenPipeError: its reader has ended.
    """
    os.set_blocking(pipe, False)
    rest = memoryview(data).cast("B")
    while rest:
        if not _is_ready(pipe, select.POLLOUT):
            raise StallError(f"it has taken nothing for {STALL_SECONDS:g} s")
        rest = rest[os.write(pipe, rest) :]


def read_from_pipe(pipe: int, max_bytes: int) -> bytes:
    """Read at most so many bytes from a pipe; none at its end.

    Raises:
        StallError: nothing has come for `STALL_SECONDS`.
    """
    if not _is_ready(pipe, select.POLLIN):
        raise StallError(f"it has given nothing for {STALL_SECONDS:g} s")
    return os.read(pipe, max_bytes)


def _is_ready(pipe: int, event: int) -> bool:
    """Wait for a pipe, for at most `STALL_SECONDS`; False if nothing has happened then."""
    poller = select.poll()  # which takes any file descriptor, unlike select.select
    poller.register(pipe, event)
    return bool(poller.poll(1000 * STALL_SECONDS))
