"""Files that appear whole, and only once where that is asked for: on a disk, in memory and on an object store."""

from __future__ import annotations

import errno
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from splatfix import storage


@pytest.fixture(params=["folder", "memory", "s3"])
def url(request, tmp_path: Path) -> Iterator[str]:
    """A place of each kind."""
    if request.param == "s3":
        yield f"{request.getfixturevalue('bucket')}/{tmp_path.name}"
    else:
        yield str(tmp_path / "deep" / "er") if request.param == "folder" else f"memory://{tmp_path.name}/x"


def test_files_come_and_go(url: str) -> None:
    file = storage.join(url, "a.txt")
    assert not storage.exists(file) and storage.list_names(url) == []
    with pytest.raises(ValueError, match=r"a\.txt: cannot be opened"):
        storage.read_bytes(file)
    storage.commit(file, b"one")
    storage.commit(file, b"two")
    assert storage.exists(file) and storage.read_bytes(file) == b"two"
    with storage.open_binary(file) as stream:
        assert stream.read() == b"two"
    storage.commit(storage.join(url, "sub/b.txt"), b"")
    assert storage.list_names(url) == ["a.txt"]
    assert storage.list_folder(url) == (["a.txt"], ["sub"])
    assert storage.list_tree(url) == ["a.txt", "sub/b.txt"]
    storage.delete(file)
    storage.delete(file)
    assert storage.list_tree(url) == ["sub/b.txt"]


def test_of_several_creators_one_wins(url: str) -> None:
    file, won = storage.join(url, "once"), []
    start = threading.Barrier(8)

    def race(number: int) -> None:
        start.wait()
        if storage.create(file, str(number).encode()):
            won.append(number)

    threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert storage.read_bytes(file) == str(won[0]).encode()
    assert storage.list_names(url) == ["once"]


def test_nothing_half_written_stays_when_the_disk_is_full(tmp_path: Path, monkeypatch) -> None:
    def full(_number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("splatfix.storage.os.fsync", full)
    for write in (storage.commit, storage.create):
        with pytest.raises(OSError, match="No space left"):
            write(str(tmp_path / "a"), b"x")
    assert list(tmp_path.iterdir()) == []


def test_without_hard_links(tmp_path: Path, monkeypatch) -> None:
    def no_links(_a: object, _b: object) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr("splatfix.storage.os.link", no_links)
    assert storage.create(str(tmp_path / "a"), b"1")
    assert not storage.create(str(tmp_path / "a"), b"2")
    assert (tmp_path / "a").read_bytes() == b"1"


def test_an_unreachable_store_is_an_error_and_not_an_empty_one(monkeypatch) -> None:
    for name, value in {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ALLOW_HTTP": "true"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setattr(storage, "RETRIES", {"max_retries": 0})
    storage._store.cache_clear()
    for ask in (storage.exists, storage.read_bytes, storage.list_names):
        with pytest.raises(OSError, match="s3://nowhere/a: "):
            ask("s3://nowhere/a")
    with pytest.raises(OSError, match="s3://nowhere/a: "):
        storage.create("s3://nowhere/a", b"")
    storage._store.cache_clear()


@pytest.mark.parametrize("name", ["a b", "a#1.png", "a?x=1", "ü"])
def test_any_name_goes(url: str, name: str) -> None:
    storage.commit(storage.join(url, name), b"x")
    assert storage.list_names(url) == [name]
    assert storage.read_bytes(storage.join(url, name)) == b"x"


def test_what_a_killed_writer_left_is_dropped_and_what_is_being_written_stays(tmp_path):
    """A writer that is killed in the middle, one that is still at it, and one of another machine."""
    program = """
import os, signal, sys
from pathlib import Path
from splatfix import storage
with storage._aside(Path(sys.argv[1]) / "a-00000-0123456789ab.tar", b"half"):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    (left,) = tmp_path.iterdir()
    other = tmp_path / left.name.replace(storage._this_machine(), "00000000")
    other.touch()
    (tmp_path / "fits.json").touch()
    with storage._aside(tmp_path / "b-00000-0123456789ab.tar", b"being written") as aside:
        storage.drop_leftovers(str(tmp_path))
        assert set(tmp_path.iterdir()) == {aside, other, tmp_path / "fits.json"}
    storage.drop_leftovers("memory://nothing")
    storage.drop_leftovers(str(tmp_path / "nowhere"))
