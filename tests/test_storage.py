"""Storage behaves equally in a local folder, in memory and on an object store."""

from __future__ import annotations

import errno
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from splatfix import process, storage, stores
from tests.trickling import trickling_server


def put_folder(folder: Path, url: str) -> None:
    """Copy a local folder to a URL."""
    for file in folder.rglob("*"):
        if file.is_file():
            storage.write_bytes(f"{url}/{file.relative_to(folder).as_posix()}", file.read_bytes())


@pytest.fixture(params=["folder", "memory", "s3"])
def url(request, tmp_path: Path) -> Iterator[str]:
    """The URL of a folder that does not exist, of each kind."""
    if request.param == "s3":
        yield f"{request.getfixturevalue('bucket')}/{tmp_path.name}"
    else:
        yield str(tmp_path / "deep" / "folder") if request.param == "folder" else f"memory://{tmp_path.name}/x"


def test_files_are_written_read_listed_and_deleted(url: str) -> None:
    file = storage.join(url, "a.txt")
    assert not storage.exists(file) and storage.list_names(url) == []
    with pytest.raises(ValueError, match=r"a\.txt: cannot be opened"):
        storage.read_bytes(file)
    storage.write_bytes(file, b"one")
    storage.write_bytes(file, b"two")
    assert storage.exists(file) and storage.read_bytes(file) == b"two"
    with storage.open_binary(file) as stream:
        assert stream.read() == b"two"
    storage.write_bytes(storage.join(url, "sub/b.txt"), b"")
    assert storage.list_names(url) == ["a.txt"]
    assert storage.list_folder(url) == (["a.txt"], ["sub"])
    assert storage.list_tree(url) == ["a.txt", "sub/b.txt"]
    storage.delete(file)
    storage.delete(file)
    assert storage.list_tree(url) == ["sub/b.txt"]


def test_one_of_several_concurrent_creators_wins(url: str) -> None:
    file, winners = storage.join(url, "once"), []
    start = threading.Barrier(8)

    def race(number: int) -> None:
        start.wait()
        if storage.create(file, str(number).encode()):
            winners.append(number)

    threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(winners) == 1
    assert storage.read_bytes(file) == str(winners[0]).encode()
    assert storage.list_names(url) == ["once"]


def test_a_full_disk_leaves_no_partial_file(tmp_path: Path, monkeypatch) -> None:
    def full(_number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("splatfix.files.os.fsync", full)
    for write in (storage.write_bytes, storage.create):
        with pytest.raises(OSError, match="No space left"):
            write(str(tmp_path / "a"), b"x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("renames", [True, False])
def test_create_works_without_hard_links(tmp_path: Path, monkeypatch, renames: bool) -> None:
    def no_links(_a: object, _b: object) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr("splatfix.storage.os.link", no_links)
    if not renames:
        monkeypatch.setattr(storage, "_rename_new", lambda *_: None)
    elif sys.platform == "linux":
        monkeypatch.setattr(storage, "_create_without_links", None)  # which a kill may interrupt
    assert storage.create(str(tmp_path / "a"), b"1")
    assert not storage.create(str(tmp_path / "a"), b"2")
    assert (tmp_path / "a").read_bytes() == b"1"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_an_unreachable_store_is_not_taken_for_an_empty_one(monkeypatch) -> None:
    for name, value in {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ALLOW_HTTP": "true"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setattr(stores, "RETRIES", {"max_retries": 0})
    stores.open_store.cache_clear()
    for read in (storage.exists, storage.read_bytes, storage.list_names):
        with pytest.raises(OSError, match="s3://nowhere/a: "):
            read("s3://nowhere/a")
    with pytest.raises(OSError, match="s3://nowhere/a: "):
        storage.create("s3://nowhere/a", b"")
    stores.open_store.cache_clear()


@pytest.mark.parametrize("name", ["a b", "a#1.png", "a?x=1", "ü"])
def test_names_may_have_special_characters(url: str, name: str) -> None:
    storage.write_bytes(storage.join(url, name), b"x")
    assert storage.list_names(url) == [name]
    assert storage.read_bytes(storage.join(url, name)) == b"x"


def test_leftovers_are_dropped_from_local_folders_alone(tmp_path: Path) -> None:
    leftover = tmp_path / ".a.tar.0123456789ab.partial"
    leftover.touch()
    for url in ("memory://nothing", str(tmp_path / "missing"), str(tmp_path)):
        storage.drop_leftovers(url)
    assert leftover.exists()  # of unknown origin: its writer may still be running


def test_files_are_described_and_copied(url: str, tmp_path: Path) -> None:
    content = bytes(range(256)) * 9000
    storage.write_bytes(storage.join(url, "sub/a.bin"), content)
    storage.write_bytes(storage.join(url, "b"), b"")
    files = storage.list_files(url)
    assert [(file.name, file.size_bytes) for file in files] == [("b", 0), ("sub/a.bin", len(content))]
    with pytest.raises(ValueError, match="more than 1 files"):
        storage.list_files(url, limit=1)
    found = storage.find_file(storage.join(url, "sub/a.bin"))
    assert found is not None and (found.name, found.size_bytes) == ("a.bin", len(content))
    assert storage.find_file(storage.join(url, "sub")) is None
    assert storage.read_start(storage.join(url, "sub/a.bin"), 300) == content[:300]
    storage.download(storage.join(url, "sub/a.bin"), tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == content
    storage.upload(tmp_path / "copy", storage.join(url, "c"))
    assert storage.read_bytes(storage.join(url, "c")) == content
    with pytest.raises(ValueError, match="nothing: cannot be opened"):
        storage.download(storage.join(url, "nothing"), tmp_path / "copy")
    changed = {file.name: file.version for file in files}["b"]
    storage.write_bytes(storage.join(url, "b"), b"b")
    assert {file.name: file.version for file in storage.list_files(url)}["b"] != changed


def test_a_wrong_bucket_and_missing_credentials_are_one_line_with_the_remedy(bucket: str, monkeypatch) -> None:
    def message(call: Callable[[], object]) -> str:
        with pytest.raises(OSError, match="s3://") as caught:
            call()
        assert "\n" not in str(caught.value)
        return str(caught.value)

    for call in (storage.read_bytes, storage.list_names, storage.list_files, lambda url: storage.write_bytes(url, b"")):
        assert "there is no bucket 'elsewhere'; check its name" in message(lambda call=call: call("s3://elsewhere/a"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(stores, "RETRIES", {"max_retries": 0})
    stores.open_store.cache_clear()
    assert "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in message(
        lambda: storage.read_bytes(f"{bucket}/a")
    )


def test_parallel_requests_keep_their_order_and_stop_at_an_error() -> None:
    assert list(storage.in_parallel(lambda number: number * 2, range(50))) == list(range(0, 100, 2))
    started = []

    def fail(number: int) -> None:
        started.append(number)
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        list(storage.in_parallel(fail, range(1000)))
    assert len(started) < 1000


class FlakyStore(BaseHTTPRequestHandler):
    """As much of S3 as is needed for one file: it is busy for a number of requests, and may lose an answer."""

    busy, loses_answer = 0, False
    content: bytes | None = None

    def do_GET(self) -> None:
        if not self.is_busy():
            self.reply(404 if self.content is None else 200, self.content or b"")

    do_HEAD = do_GET  # noqa: N815 - the name of the base class

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if self.is_busy():
            return
        if self.content is not None and self.headers.get("If-None-Match") == "*":
            self.reply(412)
            return
        type(self).content = content
        if self.loses_answer:
            type(self).loses_answer = False
            self.reply(503)
        else:
            self.reply(200)

    def is_busy(self) -> bool:
        if self.busy:
            type(self).busy -= 1
            self.reply(503)
            return True
        return False

    def reply(self, status: int, content: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {"Content-Length": len(content), "ETag": '"1"'}.items():
            self.send_header(name, str(value))
        self.send_header("Last-Modified", "Fri, 27 Nov 2026 06:00:00 GMT")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def flaky(monkeypatch) -> Iterator[type[FlakyStore]]:
    """A store at ``s3://flaky``, and no retries by obstore."""
    handler = type("Flaky", (FlakyStore,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}", "AWS_ALLOW_HTTP": "true"}
    for name, value in (settings | {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(stores, "RETRIES", {"max_retries": 0})
    monkeypatch.setattr(stores, "_answered", set())
    monkeypatch.setattr(stores, "_noticed", {})
    stores.open_store.cache_clear()
    yield handler
    stores.open_store.cache_clear()
    server.shutdown()
    server.server_close()


def test_a_request_waits_for_a_store_that_has_answered_before(flaky: type[FlakyStore], monkeypatch, caplog) -> None:
    pauses = []
    monkeypatch.setattr(stores.time, "sleep", pauses.append)
    flaky.busy = 1
    with pytest.raises(OSError, match="503"):  # it may be the wrong one
        storage.read_bytes("s3://flaky/a")
    storage.write_bytes("s3://flaky/a", b"x")
    for read in (storage.read_bytes, storage.find_file, lambda url: storage.write_bytes(url, b"y")):
        pauses.clear()
        flaky.busy = 7
        read("s3://flaky/a")
        assert pauses == [0.5, 1, 2, 4, 8, 10, 10] and flaky.busy == 0
    assert [record.getMessage()[:61] for record in caplog.records] == [
        "s3://flaky does not answer; trying again for up to 300 s (s3:"
    ]


@pytest.mark.parametrize("stop", [None, "interrupted"])
def test_an_outage_that_does_not_end_is_an_error(flaky: type[FlakyStore], monkeypatch, stop: str | None) -> None:
    limit = stores.OUTAGE_SECONDS if stop is None else stores.STOPPING_SECONDS
    monkeypatch.setattr(process, "_requested", stop)
    now = [0.0]
    monkeypatch.setattr(stores.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    monkeypatch.setattr(stores.time, "monotonic", lambda: now[0])
    assert storage.find_file("s3://flaky/a") is None
    flaky.busy = 10**6
    with pytest.raises(OSError, match=r"s3://flaky/a: .*503"):
        storage.read_bytes("s3://flaky/a")
    assert limit < now[0] <= limit + stores.MAX_PAUSE_SECONDS
    with pytest.raises(OSError, match="503"):
        storage.write_bytes("s3://flaky/a", b"")
    assert now[0] <= limit + stores.MAX_PAUSE_SECONDS  # at once


def test_a_file_whose_creation_was_not_confirmed_is_the_creators(flaky: type[FlakyStore], monkeypatch) -> None:
    monkeypatch.setattr(stores.time, "sleep", lambda _seconds: None)
    assert storage.find_file("s3://flaky/a") is None
    flaky.loses_answer = True
    assert storage.create("s3://flaky/a", b"mine")
    assert not storage.create("s3://flaky/a", b"other")
    flaky.busy = 1
    assert not storage.create("s3://flaky/a", b"other")


def test_parallel_requests_under_way_are_not_waited_for() -> None:
    release, begun = threading.Event(), threading.Event()

    def wait(number: int) -> int:
        if number:
            begun.set()
            release.wait(60)
        return number

    results = storage.in_parallel(wait, range(50))
    assert next(results) == 0
    assert begun.wait(30)
    start = time.monotonic()
    results.close()
    assert time.monotonic() - start < 30  # of 60
    release.set()


def test_a_file_that_drips_is_given_up_and_not_asked_for_again(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(stores, "READ_SECONDS", 0.5)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    with trickling_server() as url:
        for read in (storage.read_bytes, lambda file: storage.download(file, tmp_path / "a")):
            start = time.monotonic()
            with pytest.raises(stores.SlowStoreError, match=rf"^{url}/a: no end after 0.5 s: the link or the store"):
                read(f"{url}/a")
            assert time.monotonic() - start < 30
