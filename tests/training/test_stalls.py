"""Training that makes no progress."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from splatfix.training import stalls
from splatfix.training.stalls import watching_progress
from tests.waiting import wait_for


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    monkeypatch.setattr(stalls, "POLL_SECONDS", 1 / 64)
    monkeypatch.setattr(stalls, "MESSAGE_SECONDS", 1 / 8)
    monkeypatch.setattr(stalls, "STALL_SECONDS", 0.5)


def test_training_that_makes_no_progress_is_told_of_and_given_up(caplog):
    reasons: list[str] = []
    with watching_progress(reasons.append):
        wait_for(lambda: bool(reasons), seconds=30)
    assert [record.message.split(":")[0] for record in caplog.records[:2]] == [
        "no progress for 0.00208 minutes",
        "no progress for 0.00417 minutes",
    ]
    assert len(reasons) == 1 and reasons[0].startswith("training has made no progress for 0.00833 minutes: check the")


def test_training_that_makes_progress_is_not_given_up(monkeypatch):
    monkeypatch.setattr(stalls, "STALL_SECONDS", 10.0)
    monkeypatch.setattr(stalls, "MESSAGE_SECONDS", 5.0)
    reasons: list[str] = []
    with watching_progress(reasons.append) as note:
        for _ in range(30):
            note()
            time.sleep(0.02)
    assert not reasons
    assert "splatfix-stalls" not in [thread.name for thread in threading.enumerate()]


HANGING = """
import sys, time
from splatfix.process import abort_reason, stop_on_signals
from splatfix.training import stalls

stalls.POLL_SECONDS, stalls.STALL_SECONDS = 0.05, 0.5
stop_on_signals("splatfix train")
try:
    with stalls.watching_progress():
        time.sleep(600)  # as a read from a disk that does not answer
except KeyboardInterrupt:
    print(abort_reason())
"""


def test_a_step_that_hangs_ends_the_command():
    done = subprocess.run([sys.executable, "-c", HANGING], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0 and done.stdout.startswith("training has made no progress for 0.00833 minutes")


@pytest.mark.slow
def test_a_process_that_was_stopped_does_not_end_when_it_goes_on():
    code = HANGING.replace("time.sleep(600)", "print('ready', flush=True); time.sleep(3); print('went on')")
    code = code.replace("0.05, 0.5", "0.05, 8.0")
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(9)
        os.kill(process.pid, signal.SIGCONT)
        assert process.communicate(timeout=60)[0] == "went on\n"
