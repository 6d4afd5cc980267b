"""Logging and signals of the process."""

import logging
import os
import pty
import subprocess
import sys
import threading

import pytest

from splatfix.process import quiet

STOPPED = """
import signal
from splatfix.process import stop_on_signals

class HalfMade:
    def __del__(self):
        raise AttributeError("in the finalizer")

half_made = HalfMade()
{before}
stop_on_signals()
try:
    signal.raise_signal(signal.SIGTERM)
except KeyboardInterrupt as stop:
    print(stop)
half_made = HalfMade()
"""


def test_quiet_loggers_drop_what_is_below_the_level(caplog):
    with caplog.at_level(logging.INFO):
        with quiet("noisy.library", "noisy.other"):
            logging.getLogger("noisy.library.part").info("detail")
            logging.getLogger("noisy.library").warning("trouble")
        logging.getLogger("noisy.library").info("after")
    assert [record.message for record in caplog.records] == ["trouble", "after"]


def test_quiet_may_be_nested_and_overlap_in_threads():
    logger = logging.getLogger("noisy.nested")
    logger.setLevel(logging.DEBUG)
    inside, leave = threading.Event(), threading.Event()

    def work() -> None:
        with quiet("noisy.nested", level=logging.CRITICAL):
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=work)
    with quiet("noisy.nested"):
        assert logger.level == logging.WARNING
        thread.start()
        assert inside.wait(10)
        assert logger.level == logging.CRITICAL
    assert logger.level == logging.CRITICAL
    leave.set()
    thread.join(10)
    assert logger.level == logging.DEBUG


ABORTED = """
import threading, time
from splatfix import command_line
from splatfix.process import abort_command

@command_line.command()
def wait() -> None:
    \"\"\"Wait.\"\"\"
    threading.Timer(0.2, abort_command, args=["no node is left"]).start()
    time.sleep(60)

raise SystemExit(command_line.main(["wait"]))
"""


def test_another_thread_ends_a_command_with_its_reason():
    done = subprocess.run([sys.executable, "-c", ABORTED], capture_output=True, text=True, check=False, timeout=50)
    assert (done.returncode, done.stderr) == (1, "splatfix wait: no node is left\n")


BLOCKED = """
import signal, threading, time
from splatfix import command_line, process

process.ABORT_SECONDS = 0.3

@command_line.command()
def wait() -> None:
    \"\"\"Wait.\"\"\"
    signal.signal(signal.SIGTERM, lambda *_: None)  # as calls of Ray, which do not look at signals
    process.abort_command("no node is left")
    time.sleep(60)

raise SystemExit(command_line.main(["wait"]))
"""


def test_a_command_that_cannot_be_interrupted_ends_nevertheless():
    done = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True, check=False, timeout=50)
    assert (done.returncode, done.stderr) == (1, "\nsplatfix wait: no node is left\n")


def test_finalizers_print_nothing_after_a_stop():
    for before, count in (("", 0), ("half_made = None", 1)):
        code = STOPPED.format(before=before)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
        assert done.stdout == "terminated\n"
        assert done.stderr.count("in the finalizer") == count


IMPORTING = """
import builtins, os, signal, sys
real = builtins.__import__

def import_and_stop(name, *more):
    if name == "numpy":
        signal.raise_signal(signal.SIGINT)
    return real(name, *more)

builtins.__import__ = import_and_stop
sys.argv = ["splatfix", "doctor"]
from splatfix.__main__ import main
main()
"""


def test_an_interruption_while_the_command_is_imported_shows_no_traceback():
    done = subprocess.run([sys.executable, "-c", IMPORTING], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


STEPPING = """
import os, signal
from splatfix.process import progress, stop_on_signals, stopping_at_progress

stop_on_signals()
with progress(total=9, description="train") as bar, stopping_at_progress():
    bar.update()
    signal.raise_signal(signal.{name})
    os.write(2, b"the step ends\\n")
    try:
        bar.update()
    except KeyboardInterrupt:
        os.write(2, b"stopped\\n")
"""


@pytest.mark.parametrize(("name", "again"), [("SIGINT", "Ctrl-C again"), ("SIGTERM", "a second signal")])
def test_a_stop_that_waits_for_the_end_of_a_step_is_announced(name, again):
    code = STEPPING.format(name=name)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100)
    line = f"\nstopping after this step; {again} stops at once\nthe step ends\nstopped\n"
    assert line in done.stderr, done.stderr


def test_on_a_terminal_the_announcement_replaces_the_bar():
    main, terminal = pty.openpty()
    code = STEPPING.format(name="SIGINT")
    done = subprocess.run([sys.executable, "-c", code], stderr=terminal, check=True, timeout=100)
    os.close(terminal)
    assert b"\r\x1b[Kstopping after this step; Ctrl-C again" in os.read(main, 100_000)
    os.close(main)
    assert done.returncode == 0
