"""The cache of folders of object stores: shared between processes, bounded, and never half a file."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from splatfix import files, folder_cache, storage
from splatfix.folder_cache import CachedFolder
from tests.test_storage import put_folder


@pytest.fixture
def store(tmp_path: Path, monkeypatch) -> str:
    monkeypatch.setenv("SPLATFIX_CACHE", str(tmp_path / "cache"))
    return f"memory://{uuid.uuid4().hex}"


def make_folder(url: str, num_bytes: int = 1000) -> CachedFolder:
    storage.write_bytes(f"{url}/a/x.bin", b"x" * num_bytes)
    storage.write_bytes(f"{url}/y.bin", b"y")
    return CachedFolder(url, storage.list_files(url))


def test_names_are_there_at_once_and_contents_when_asked_for(store: str) -> None:
    folder = make_folder(f"{store}/set")
    file = folder.path / "a" / "x.bin"
    assert folder.path.name == "set" and file.stat().st_size == 0 and folder.size(file) == 1000
    folder.fetch([file, folder.path / "absent", Path("/elsewhere")])
    assert file.read_bytes() == b"x" * 1000 and (folder.path / "y.bin").stat().st_size == 0


def test_a_file_that_was_lost_or_cut_is_copied_again(store: str) -> None:
    folder = make_folder(store)
    file = folder.path / "a" / "x.bin"
    folder.fetch([file])
    file.write_bytes(b"x")
    folder.fetch([file])
    assert file.stat().st_size == 1000
    file.unlink()
    assert CachedFolder(store, storage.list_files(store)).path == folder.path and file.stat().st_size == 0


def test_the_least_recently_used_folder_that_is_closed_is_removed(store: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("SPLATFIX_CACHE_GB", "2.5e-6")
    folders = [make_folder(f"{store}/{name}") for name in "ab"]
    paths = [folder.path for folder in folders]
    for age, folder in enumerate(folders):
        folder.fetch([folder.path / "a" / "x.bin"])
        os.utime(tmp_path / "cache" / f"{folder.path.parent.name}.use", (1000 + age, 1000 + age))
    held = folders.pop(0)
    del folder, folders
    third = make_folder(f"{store}/c")
    third.fetch([third.path / "a" / "x.bin"])
    assert held.path.exists() and not paths[1].exists() and third.path.exists()
    monkeypatch.setenv("SPLATFIX_CACHE_GB", "lots")
    with pytest.raises(ValueError, match="SPLATFIX_CACHE_GB = 'lots': wanted gigabytes"):
        third.fetch([third.path / "y.bin"])


def test_another_users_cache_is_refused(store: str, monkeypatch) -> None:
    monkeypatch.setattr(folder_cache.os, "getuid", lambda: -1)
    with pytest.raises(ValueError, match="belongs to another user; wanted a folder that is yours in SPLATFIX_CACHE"):
        make_folder(store)


def test_names_out_of_the_folder_are_refused() -> None:
    with pytest.raises(ValueError, match="is a path out of the folder"):
        CachedFolder("s3://bucket/x", [storage.StoredFile("../y", 1, "")])


READ = """
import sys, time
from pathlib import Path
from splatfix import storage
from splatfix.folder_cache import CachedFolder
download, started = storage.download, Path(sys.argv[2])
def slow(url, path):
    with started.open("a") as file:
        file.write(url + chr(10))
    time.sleep(0.3)
    download(url, path)
storage.download = slow
folder = CachedFolder(sys.argv[1], storage.list_files(sys.argv[1]))
folder.fetch([folder.path / "a" / "x.bin"])
assert len((folder.path / "a" / "x.bin").read_bytes()) == 1000
"""


@pytest.mark.slow
def test_processes_of_a_node_copy_a_file_once_and_outlive_a_killed_one(bucket: str, tmp_path: Path) -> None:
    (tmp_path / "set" / "a").mkdir(parents=True)
    (tmp_path / "set" / "a" / "x.bin").write_bytes(b"x" * 1000)
    put_folder(tmp_path / "set", f"{bucket}/set")
    log = tmp_path / "copies"
    command = [sys.executable, "-c", READ, f"{bucket}/set", str(log)]
    first = subprocess.Popen(command)
    while not log.exists():
        time.sleep(0.01)
    first.kill()
    first.wait()
    others = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait(60) for process in others] == [0, 0, 0]
    assert len(log.read_text().splitlines()) == 2


def test_an_entry_that_is_being_removed_is_waited_for_with_a_message_and_not_forever(
    store: str, tmp_path: Path, monkeypatch, caplog
) -> None:
    monkeypatch.setattr(folder_cache, "LOCK_SECONDS", 0.2)
    monkeypatch.setattr(files, "NOTICE_SECONDS", 0.01)
    caplog.set_level("INFO", "splatfix.files")
    folder = make_folder(store)
    found = storage.list_files(store)
    use = tmp_path / "cache" / f"{folder.path.parent.name}.use"
    del folder
    with use.open("r+b") as file:
        assert files.try_lock(file)
        with pytest.raises(TimeoutError, match=r"\.use: another process has this lock for 0 s; is it stopped\?"):
            CachedFolder(store, found)
        assert f"{use}: waiting for another process of this node that removes this entry" in caplog.text
    assert CachedFolder(store, found).path.is_dir()
    with use.open("r+b") as file:  # closed, since no entry is left open
        assert files.try_lock(file)


def test_a_copy_beside_a_slow_one_leaves_its_files_alone(store: str, tmp_path: Path, monkeypatch, caplog) -> None:
    monkeypatch.setattr(folder_cache, "LOCK_SECONDS", 0.2)
    folder = make_folder(store)
    entry = folder.path.parent
    (entry / ".partial").mkdir()
    theirs = entry / ".partial" / "half"
    theirs.write_bytes(b"x")
    with (tmp_path / "cache" / f"{entry.name}.copy").open("r+b") as lock:
        assert files.try_lock(lock)
        folder.fetch([folder.path / "y.bin"])
    assert "another process has copied it for 0 s; copying it too" in caplog.text
    assert (folder.path / "y.bin").read_bytes() == b"y" and theirs.exists()
    folder.fetch([folder.path / "a" / "x.bin"])
    assert not theirs.exists()
