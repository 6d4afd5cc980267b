"""A broken database of COLMAP, or a full disk, ends pose with one line that names the file and the remedy."""

from __future__ import annotations

import os
from collections import namedtuple
from pathlib import Path

import pytest

from splatfix.cli import main
from splatfix.sfm import colmap, database
from tests.sfm.scenery import write_photos
from tests.sfm.test_pose import unfinished_copy

SMALL = ("--threads", "1", "--size-px", "240", "--max-keypoints", "1200", "--mapping", "incremental")


def pose(photos: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit code and the message."""
    capsys.readouterr()
    code = main(["pose", str(photos), "--out", str(out), *SMALL])
    lines = capsys.readouterr().err
    assert "Traceback" not in lines
    return code, next((line for line in lines.splitlines() if line.startswith("splatfix pose: ")), "")


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["half", "no database", "one page"])
def test_a_broken_database_is_one_line_and_a_run_without_it_completes(posed, tmp_path, capsys, damage) -> None:
    out = unfinished_copy(posed, tmp_path / "capture")
    file = out / "sfm" / "colmap" / "database.db"
    size = file.stat().st_size
    if damage == "half":
        os.truncate(file, size // 2)
    elif damage == "no database":
        file.write_bytes(b"not a database" * 1000)
    else:
        with file.open("r+b") as stream:
            stream.seek(size // 8192 * 4096)  # a page in the middle
            stream.write(b"\xff" * 4096)
    code, line = pose(posed.photos, out, capsys)
    assert code == 2
    assert line.startswith(f"splatfix pose: {file}: not a whole database of COLMAP (")
    assert line.endswith("begin with its name: splatfix pose finds keypoints and matches again")
    for path in file.parent.glob(f"{file.name}*"):
        path.unlink()
    assert pose(posed.photos, out, capsys)[0] == 0


def test_a_full_disk_is_one_line_before_colmap_meets_it(tmp_path, capsys, monkeypatch) -> None:
    """At the start, before keypoints and before matches: COLMAP's threads would end the process with SIGABRT."""
    write_photos(tmp_path / "photos", 3)
    out = tmp_path / "out"
    usage = namedtuple("usage", "free")
    left = [0]

    def full_after(_folder: Path) -> usage:
        left[0] -= 1
        return usage(10**12 if left[0] >= 0 else 2**20)

    monkeypatch.setattr(database.shutil, "disk_usage", full_after)
    for num in (1, 4):  # the start is 1 check, 3 photos are 3
        left[0] = num
        code, line = pose(tmp_path / "photos", out, capsys)
        assert (code, left[0]) == (1, -1)
        assert line.startswith(f"splatfix pose: the disk is full ({out / 'sfm' / 'colmap' / 'database.db'})")
    monkeypatch.setattr(database.shutil, "disk_usage", lambda _folder: usage(10**12))
    assert pose(tmp_path / "photos", out, capsys)[0] == 0


@pytest.mark.parametrize(
    ("reason", "code", "message"),
    [
        ("Failed to step: SQLite error: database or disk is full", 1, "the disk is full ({file})"),
        ("SQLite error: disk I/O error", 1, "{file}: Input/output error"),
        ("SQLite error:\ndatabase disk image is malformed", 2, "{file}: not a whole database of COLMAP (SQLite e"),
    ],
)
def test_errors_of_sqlite_are_one_line(tmp_path, capsys, monkeypatch, reason, code, message) -> None:
    write_photos(tmp_path / "photos", 3)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(reason)

    monkeypatch.setattr(colmap.pycolmap, "match_image_pairs", fail)
    file = tmp_path / "out" / "sfm" / "colmap" / "database.db"
    found, line = pose(tmp_path / "photos", tmp_path / "out", capsys)
    assert found == code
    assert line.removeprefix("splatfix pose: ").startswith(message.format(file=file))


def test_other_errors_of_colmap_stay_as_they_are(tmp_path) -> None:
    with pytest.raises(RuntimeError, match="something else"), database.explain_database(tmp_path / "a.db"):
        raise RuntimeError("something else")
    database.check_database(tmp_path / "a.db")  # none yet
