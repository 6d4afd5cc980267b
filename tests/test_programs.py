"""Other programs: their end, their output, and those that do nothing more."""

import os
import subprocess
import sys
import time

import psutil
import pytest

from splatfix import programs
from splatfix.programs import (
    StallError,
    describe_exit,
    killing,
    read_from_pipe,
    run_program,
    wait_for_killed,
    wait_while_working,
    write_to_pipe,
)
from tests.waiting import wait_for


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def test_a_program_runs_without_input_and_its_output_is_kept():
    code = "import sys; print(sys.stdin.read() + 'out'); print('err', file=sys.stderr); sys.exit(3)"
    assert run_program([sys.executable, "-c", code], timeout_seconds=60) == (3, "out\n", "err\n")
    with pytest.raises(OSError, match="no_such_program"):
        run_program(["no_such_program"], timeout_seconds=60)


def test_a_program_that_takes_too_long_is_killed(tmp_path):
    with pytest.raises(subprocess.TimeoutExpired):
        run_program(["sh", "-c", f"echo $$ > {tmp_path}/pid; exec sleep 600"], timeout_seconds=1)
    assert not is_running(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize("end", ["echo done", "sleep 600"])
def test_what_a_program_started_is_not_waited_for_and_ends_with_it(tmp_path, end):
    script = f"sleep 600 & echo $! > {tmp_path}/pid; {end}"
    if end == "echo done":
        assert run_program(["sh", "-c", script], timeout_seconds=100) == (0, "done\n", "")
    else:
        with pytest.raises(subprocess.TimeoutExpired):
            run_program(["sh", "-c", script], timeout_seconds=1)
    wait_for(lambda: not is_running(int((tmp_path / "pid").read_text())), seconds=20)


@pytest.mark.parametrize(("code", "words"), [(3, "exit code 3"), (-9, "SIGKILL (out of memory?)"), (-15, "SIGTERM")])
def test_the_end_of_a_program_in_words(code, words):
    assert describe_exit(code) == words


def test_a_process_that_is_stuck_in_the_kernel_is_left_behind(monkeypatch, caplog):
    monkeypatch.setattr(programs, "KILLED_SECONDS", 0.1)
    with subprocess.Popen(["sleep", "600"]) as stuck:
        wait_for_killed(stuck, "ffmpeg")  # without its SIGKILL, which has no effect in the kernel
        stuck.kill()
    assert f"ffmpeg (process {stuck.pid}) has not ended 0.1 s after it was killed" in caplog.text
    wait_for_killed(stuck, "ffmpeg")
    assert len(caplog.records) == 1


def test_a_process_that_does_nothing_more_is_given_up(monkeypatch):
    monkeypatch.setattr(programs, "STALL_SECONDS", 0.5)
    counts = iter([0, 2, 2, 5])
    seen: list[int] = []
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as process:
        with pytest.raises(StallError, match=r"nothing for 0\.5 s"), killing(process, "sleep"):
            wait_while_working(process, lambda: next(counts, 5), seen.append)
        assert process.poll() == -9
    assert [more for more in seen if more] == [2, 3]


def test_a_process_that_works_may_take_long_between_results_but_not_for_ever(monkeypatch):
    monkeypatch.setattr(programs, "STALL_SECONDS", 0.5)
    monkeypatch.setattr(programs, "FRUITLESS_SECONDS", 3.0)
    start = time.monotonic()
    process = subprocess.Popen(["sh", "-c", "while :; do :; done"], start_new_session=True)
    with pytest.raises(StallError, match="it has worked for 3 s without a result"), killing(process, "sh"):
        wait_while_working(process, lambda: 0, lambda _: None)
    assert time.monotonic() - start >= 3


def test_what_a_process_did_last_is_counted():
    seen: list[int] = []
    with subprocess.Popen(["true"]) as process:
        process.wait()
        wait_while_working(process, lambda: 7, seen.append)
    assert seen == [7]


def test_a_pipe_that_nobody_reads_or_fills_is_given_up(monkeypatch):
    monkeypatch.setattr(programs, "STALL_SECONDS", 0.2)
    source, target = os.pipe()
    with os.fdopen(source, "rb") as reader, os.fdopen(target, "wb") as writer:
        with pytest.raises(StallError, match=r"it has given nothing for 0\.2 s"):
            read_from_pipe(reader.fileno(), 10)
        write_to_pipe(writer.fileno(), b"abc")
        assert read_from_pipe(reader.fileno(), 10) == b"abc"
        with pytest.raises(StallError, match=r"it has taken nothing for 0\.2 s"):
            write_to_pipe(writer.fileno(), bytes(1 << 20))  # more than a pipe holds


def test_all_of_a_large_frame_passes_a_pipe(tmp_path):
    data = os.urandom(1 << 21)
    with (tmp_path / "copy").open("wb") as file:
        process = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=file)
    assert process.stdin is not None
    with process.stdin:
        write_to_pipe(process.stdin.fileno(), memoryview(data).cast("B", (2, 1 << 20)))
    assert process.wait(60) == 0
    assert (tmp_path / "copy").read_bytes() == data
