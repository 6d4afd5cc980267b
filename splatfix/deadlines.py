"""Calls that may not return: made in another thread, so that a stop signal and a limit end the wait for them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Answer = TypeVar("Answer")


class DeadlineError(TimeoutError):
    """Raised where a call has taken longer than it may."""


def call_within(
    seconds: float | None, call: Callable[[], Answer], *, has_moved: threading.Event | None = None
) -> Answer:
    """Call a function in a daemon thread and return its answer, or raise its error.

    A signal's handler runs while this waits: calls of compiled libraries hold it back. A call that is no longer waited
    for goes on by itself, and ends with the process at the latest.

    Args:
        seconds: the limit; None for none.
        call: what is called.
        has_moved: set where the call has made progress, from which the limit counts anew.

    Raises:
        DeadlineError: the limit is over.
    """
    ends: queue.SimpleQueue[Future[Answer]] = queue.SimpleQueue()

    def run() -> None:
        end: Future[Answer] = Future()
        try:
            end.set_result(call())
        except BaseException as error:  # also KeyboardInterrupt, as the caller would see it
            end.set_exception(error)
        ends.put(end)

    thread = threading.Thread(target=run, name="splatfix-call", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # at the end of the interpreter no thread starts
        return call()
    while True:
        if has_moved is not None:
            has_moved.clear()
        try:
            return ends.get(timeout=seconds).result()
        except queue.Empty:
            if has_moved is None or not has_moved.is_set():
                raise DeadlineError(f"no end after {seconds:g} s") from None
