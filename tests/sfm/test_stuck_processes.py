"""Processes that do not end: global mapping and ffmpeg, replaced by a script."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from splatfix import programs
from splatfix.sfm import global_mapping
from splatfix.sfm.decoding import read_gray_frames, write_frames
from splatfix.sfm.global_mapping import run_global_mapping
from splatfix.sfm.video import count_frames
from tests.fake_programs import write_program

LONG_REQUEST = {"names": ["photo" * 20] * 4000}  # more than a pipe holds


@pytest.fixture
def stuck(tmp_path, monkeypatch) -> Iterator[Path]:
    """A program that ends at nothing, as one that waits in the kernel: nothing here can kill it until the test ends."""
    pid = tmp_path / "pid"
    read_start = "[ -p /dev/stdin ] && head -c 3 > /dev/null\nexec 0<&-"  # as long as the shortest request
    program = write_program(
        tmp_path / "stuck", f"{read_start}\necho $$ > {pid}.partial && mv {pid}.partial {pid}\nexec sleep 600"
    )
    monkeypatch.setattr(programs, "KILLED_SECONDS", 0.2)
    with monkeypatch.context() as patched:
        patched.setattr(os, "killpg", lambda *_: None)
        yield program
    os.kill(int(pid.read_text()), signal.SIGKILL)


def test_global_mapping_that_cannot_be_killed_is_left_behind(stuck, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(sys, "executable", str(stuck))

    def stop() -> None:
        if (tmp_path / "pid").exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_global_mapping({}, tmp_path / "log", stop)
    assert "global mapping (process " in caplog.text and "has not ended 0.2 s after it was killed" in caplog.text


def test_global_mapping_that_reads_no_more_is_given_up(stuck, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(sys, "executable", str(stuck))
    monkeypatch.setattr(global_mapping, "END_SECONDS", 0.2)
    assert run_global_mapping(LONG_REQUEST, tmp_path / "log", lambda: None) == "it did not end: no output"
    assert "global mapping (process " in caplog.text


def test_ffmpeg_that_cannot_be_killed_is_left_behind(stuck, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("imageio_ffmpeg.get_ffmpeg_exe", lambda: str(stuck))

    sleep = time.sleep

    def stop(seconds: float) -> None:
        sleep(seconds)
        if (tmp_path / "pid").exists():
            monkeypatch.setattr(time, "sleep", sleep)
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", stop)
    with pytest.raises(KeyboardInterrupt):
        write_frames(tmp_path / "a.mp4", [0], [tmp_path / "images/a.jpg"], tmp_path / "work")
    assert "ffmpeg (process " in caplog.text and "has not ended 0.2 s after it was killed" in caplog.text


def test_frames_that_do_not_come_are_not_waited_for_without_end(tmp_path, monkeypatch):
    program = write_program(tmp_path / "ffmpeg", "exec sleep 600")
    monkeypatch.setattr("imageio_ffmpeg.get_ffmpeg_exe", lambda: str(program))
    monkeypatch.setattr(programs, "STALL_SECONDS", 0.3)
    with pytest.raises(OSError, match=r"a\.mp4: ffmpeg was stopped: it has done nothing for 0\.3 s; can its disk"):
        write_frames(tmp_path / "a.mp4", [0], [tmp_path / "images/a.jpg"], tmp_path / "work")
    with pytest.raises(OSError, match=r"a\.mp4: ffmpeg was stopped: it has given nothing for 0\.3 s; can its disk"):
        list(read_gray_frames(tmp_path / "a.mp4", 1, 320))


def test_a_killed_ffmpeg_is_not_called_a_bad_video(tmp_path, monkeypatch):
    program = write_program(tmp_path / "ffmpeg", "kill -9 $$")
    monkeypatch.setattr("imageio_ffmpeg.get_ffmpeg_exe", lambda: str(program))
    video = tmp_path / "a.mp4"
    for decode in (
        lambda: count_frames(video),
        lambda: list(read_gray_frames(video, 1, 320)),
        lambda: write_frames(video, [0], [tmp_path / "images/a.jpg"], tmp_path / "work"),
    ):
        with pytest.raises(OSError, match=r"a\.mp4: ffmpeg was ended by SIGKILL \(out of memory\?\); run the"):
            decode()
