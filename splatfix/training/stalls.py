"""Training that does not go on: told of, and ended in time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from splatfix.process import abort_command, log

MESSAGE_SECONDS = 900.0  # without progress, before each message
STALL_SECONDS = 7200.0  # without progress: twice what processes wait for each other, so that they tell first
POLL_SECONDS = 5.0


@contextmanager
def watching_progress(give_up: Callable[[str], object] = abort_command) -> Iterator[Callable[[], None]]:
    """Log messages while training makes no progress, and give up after `STALL_SECONDS`.

    A step may wait for a disk or a GPU that does not answer, which nothing in this process interrupts.

    Args:
        give_up: ends the command for a reason; called from a thread.

    Yields:
        What is to be called at each sign of progress.
    """
    is_over, has_moved = threading.Event(), threading.Event()

    def watch() -> None:
        waited = told = 0.0  # counted in looks, so that a process that was stopped for hours does not end at once
        while not is_over.wait(POLL_SECONDS):
            waited += POLL_SECONDS
            if has_moved.is_set():
                has_moved.clear()
                waited = told = 0.0
            elif waited > STALL_SECONDS:
                give_up(
                    f"training has made no progress for {STALL_SECONDS / 60:.3g} minutes: check the disks, the GPU and "
                    "the memory of this machine; the last saved state is kept, and the same command resumes"
                )
                return
            elif waited >= told + MESSAGE_SECONDS:
                told = waited
                log.warning(
                    "no progress for %.3g minutes: training waits for a disk, a GPU or memory, and ends after %.3g",
                    *(waited / 60, STALL_SECONDS / 60),
                )

    thread = threading.Thread(target=watch, name="splatfix-stalls", daemon=True)
    thread.start()
    try:
        yield has_moved.set
    finally:
        is_over.set()
        thread.join(2 * POLL_SECONDS)
