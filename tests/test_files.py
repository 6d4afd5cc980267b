"""Files are written atomically; a failed write keeps the old file and leaves no temporary file."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from splatfix import files
from splatfix.files import (
    LEFTOVER,
    drop_leftovers,
    drop_leftovers_below,
    hold_lock,
    parse_json,
    read_json,
    write_json,
    write_text,
    write_whole,
)


def test_json_has_no_nan(tmp_path):
    write_json(tmp_path / "a.json", {"x": float("nan"), "y": [float("inf"), 1.5], "z": {"k": (1, 2)}})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": None, "y": [None, 1.5], "z": {"k": [1, 2]}}


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\ud800")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def test_invalid_json_names_the_file(tmp_path):
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(ValueError, match=r"a\.json: not valid JSON"):
        read_json(tmp_path / "a.json")
    with pytest.raises(ValueError, match=r"b\.json: no such file"):
        read_json(tmp_path / "b.json")


def test_a_file_appears_whole_with_the_mode_of_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.bin"
    before = os.umask(0o022)
    try:
        with write_whole(path) as temporary:
            temporary.write_bytes(b"whole")
            assert not path.exists() and temporary.parent == path.parent
            assert LEFTOVER.fullmatch(temporary.name)
    finally:
        os.umask(before)
    assert path.read_bytes() == b"whole"
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(path.parent.iterdir()) == [path]


def test_two_writers_of_one_file_do_not_interfere(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with write_whole(path) as first:
        first.write_text("first")
        write_text(path, "second")
        assert path.read_text() == "second"
    assert path.read_text() == "first"


def leave_partial(folder: Path) -> Path:
    """Kill a process while it writes ``a.tar``; return the temporary file."""
    program = """
import os, signal, sys
from pathlib import Path
from splatfix.files import write_whole
with write_whole(Path(sys.argv[1]) / "a.tar") as temporary:
    temporary.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", program, str(folder)], check=False)
    assert killed.returncode == -signal.SIGKILL
    (leftover,) = folder.iterdir()
    return leftover


def test_leftovers_of_killed_processes_are_dropped(tmp_path: Path) -> None:
    leftover = leave_partial(tmp_path)
    other = tmp_path / leftover.name.replace(files._machine(), "00000000")
    unknown = tmp_path / ".a.tar.0123456789ab.partial"
    for path in (other, unknown, tmp_path / "fits.json"):
        path.touch()
    with write_whole(tmp_path / "b.tar") as being_written:
        being_written.touch()
        drop_leftovers(tmp_path)
        assert set(tmp_path.iterdir()) == {being_written, other, unknown, tmp_path / "fits.json"}


def test_leftovers_are_dropped_where_a_process_writes_first_and_below_a_folder(tmp_path: Path) -> None:
    left, below = leave_partial(tmp_path), leave_partial(tmp_path / "run" / "checkpoints")
    old = tmp_path / left.name.replace(files._machine(), "00000000")
    old.touch()
    os.utime(old, (1, 1))
    write_text(tmp_path / "fits.json", "{}")
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["fits.json"]
    drop_leftovers_below(tmp_path)
    assert not below.exists()


def test_leftovers_of_one_file_are_dropped_from_every_machine(tmp_path: Path) -> None:
    leftover = leave_partial(tmp_path)
    other = tmp_path / leftover.name.replace(files._machine(), "00000000")
    another_file = tmp_path / leftover.name.replace("a.tar", "b.tar")
    for path in (other, another_file):
        path.touch()
    drop_leftovers(tmp_path, "a.tar")
    assert set(tmp_path.iterdir()) == {another_file}


def test_a_lock_is_held_by_one_at_a_time_and_waited_for_with_a_bound(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("splatfix.files.NOTICE_SECONDS", 0.05)
    caplog.set_level("INFO", "splatfix")
    path = tmp_path / "lock"
    with hold_lock(path, seconds=1, waiting="not said"):
        other = hold_lock(path, seconds=0.3, waiting="waiting for the other one")
        with pytest.raises(TimeoutError, match="lock: another process has this lock"):
            other.__enter__()
    assert "waiting for the other one" in caplog.text and "not said" not in caplog.text
    with hold_lock(path, seconds=0.3, waiting="not said"):
        pass


@pytest.mark.parametrize("text", ["[" * 200 + "]" * 200, '{"a":' * 50_000 + "1" + "}" * 50_000, "[" * 50_000])
def test_deep_json_is_refused_in_one_line(text):
    with pytest.raises(ValueError, match=r"^a: lists and mappings are nested more than 100 levels deep"):
        parse_json(text, "a")


def test_huge_numbers_in_json_become_floats():
    assert parse_json(f"[1, -{'9' * 18}, {'9' * 400}, {'9' * 5000}]", "a") == [1, -int("9" * 18), math.inf, math.inf]


def test_leftovers_of_another_container_with_the_same_host_name_are_kept(tmp_path, monkeypatch):
    def machine_of(space: str) -> str:
        monkeypatch.setattr(files, "process_space", lambda: space)
        files._machine.cache_clear()
        return files._machine()

    other, own = machine_of("boot pid:[1]"), machine_of("boot pid:[2]")
    leftovers = [tmp_path / f".a.json.{machine}-999999999-0123abcd.partial" for machine in (other, own)]
    for leftover in leftovers:
        leftover.touch()
    drop_leftovers(tmp_path)
    files._machine.cache_clear()
    assert [leftover.exists() for leftover in leftovers] == [True, False]


def test_scratch_folders_of_killed_processes_are_removed_after_a_day(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(files, "_scratch_cleaned", set())
    with files.scratch_folder("export") as folder:
        (folder / "file").touch()
        assert folder.parent == tmp_path and files.SCRATCH.fullmatch(folder.name)
    assert not folder.exists()
    killed = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    dead, machine = int(killed.stdout), files._machine()
    names = {
        f"splatfix-export-{machine}-{dead}-old_1": 2,
        f"splatfix-export-{machine}-{dead}-new": 0.5,
        f"splatfix-export-{machine}-{os.getpid()}-running": 2,
        f"splatfix-export-01234567-{dead}-elsewhere": 2,  # another machine, container or boot
        "splatfix-runs-me": 2,
        f"other-{machine}-{dead}-x": 2,
    }
    for name, days in names.items():
        (tmp_path / name / "inside").mkdir(parents=True)
        os.utime(tmp_path / name, (time.time() - days * 86400,) * 2)
    with files.scratch_folder("video"):  # once in a process
        assert (tmp_path / next(iter(names))).exists()
    files._scratch_cleaned.clear()
    with files.scratch_folder("video"):
        assert {path.name for path in tmp_path.iterdir() if "-video-" not in path.name} == set(list(names)[1:])
