"""Calls that may not return."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from splatfix.deadlines import DeadlineError, call_within


def test_answers_and_errors_come_back():
    assert call_within(60, lambda: 7) == call_within(None, lambda: 7) == 7

    def fail() -> None:
        raise KeyError("name")

    with pytest.raises(KeyError, match="name"):
        call_within(60, fail)


def test_a_call_that_takes_too_long_is_not_waited_for():
    is_over = threading.Event()
    with pytest.raises(DeadlineError, match=r"^no end after 0\.1 s$"):
        call_within(0.1, lambda: is_over.wait(60))
    is_over.set()


def test_the_limit_counts_anew_from_each_sign_of_progress():
    has_moved = threading.Event()

    def work(num: int) -> str:
        for _ in range(num):
            time.sleep(0.2)
            has_moved.set()
        time.sleep(60 if num < 5 else 0)
        return "done"

    assert call_within(1.0, lambda: work(8), has_moved=has_moved) == "done"
    with pytest.raises(DeadlineError):
        call_within(0.5, lambda: work(2), has_moved=has_moved)


BLOCKED = """
import ctypes, sys
from splatfix.deadlines import call_within
from splatfix.process import stop_on_signals

stop_on_signals("splatfix fit")
try:
    print("ready", flush=True)
    call_within(None, lambda: ctypes.CDLL(None).sleep(60))  # as a library that does not return to Python
except KeyboardInterrupt as stop:
    print(stop, flush=True)
"""


def test_one_signal_ends_the_wait_for_a_library_and_the_process():
    with subprocess.Popen([sys.executable, "-c", BLOCKED], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        time.sleep(0.5)
        os.kill(process.pid, signal.SIGTERM)
        start = time.monotonic()
        assert process.communicate(timeout=40)[0] == "terminated\n"
        assert time.monotonic() - start < 30  # of 60
