"""Requests to object stores last as long as bytes flow, and end where a store accepts them and never answers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from splatfix import storage, stores

LENGTH = 12  # bytes of the file, one in each `PAUSE_SECONDS`
PAUSE_SECONDS = 0.1


class SlowStore(BaseHTTPRequestHandler):
    """An S3 server that drips, or never answers."""

    protocol_version = "HTTP/1.1"
    is_silent = False
    ended = threading.Event()

    def do_GET(self) -> None:
        if self.is_silent:
            self.close_connection = self.ended.wait(60)
            return
        self.reply(LENGTH)
        for _ in range(0 if self.command == "HEAD" else LENGTH):
            self.wfile.write(b"x")
            self.ended.wait(PAUSE_SECONDS)

    do_HEAD = do_GET  # noqa: N815 - the name of the base class

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.close_connection = self.ended.wait(60 if self.is_silent else LENGTH * PAUSE_SECONDS)
        self.reply(0)

    def reply(self, length: int) -> None:
        self.send_response(200)
        for name, value in {"Content-Length": length, "ETag": '"1"'}.items():
            self.send_header(name, str(value))
        self.send_header("Last-Modified", "Fri, 27 Nov 2026 06:00:00 GMT")
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def slow(monkeypatch) -> Iterator[type[SlowStore]]:
    """A store at ``s3://slow`` with the limits of a fast test: a second without an answer, 30 s for a transfer."""
    handler = type("Slow", (SlowStore,), {"ended": threading.Event()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # connections that the client cuts
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}", "AWS_ALLOW_HTTP": "true"}
    for name, value in (settings | {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}).items():
        monkeypatch.setenv(name, value)
    for name, value in {"SILENT_SECONDS": 1.0, "READ_SECONDS": 30.0, "PART_SECONDS": 30.0, "SMALL_BYTES": 1000}.items():
        monkeypatch.setattr(stores, name, value)
    for name in ("_answered", "_noticed", "_called_slow"):
        monkeypatch.setattr(stores, name, type(getattr(stores, name))())
    monkeypatch.setattr(stores, "RETRIES", {"max_retries": 0})
    stores.open_store.cache_clear()
    yield handler
    stores.open_store.cache_clear()
    handler.ended.set()
    server.shutdown()
    server.server_close()


@pytest.mark.slow
@pytest.mark.usefixtures("slow")
def test_a_transfer_that_makes_progress_is_not_cut(tmp_path: Path) -> None:
    assert PAUSE_SECONDS < stores.SILENT_SECONDS < LENGTH * PAUSE_SECONDS
    assert storage.read_bytes("s3://slow/a") == b"x" * LENGTH
    storage.download("s3://slow/a", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"x" * LENGTH
    (tmp_path / "b").write_bytes(bytes(stores.SMALL_BYTES + 1))
    storage.upload(tmp_path / "b", "s3://slow/b")  # the answer comes when the store has the file
    storage.write_bytes("s3://slow/b", bytes(stores.SMALL_BYTES + 1))
    assert storage.create("s3://slow/b", bytes(stores.SMALL_BYTES + 1))


@pytest.mark.parametrize("num_bytes", [10, 5000])
def test_a_store_that_never_answers_ends_a_request_with_one_line(
    slow: type[SlowStore], tmp_path: Path, monkeypatch, num_bytes: int
) -> None:
    slow.is_silent = True
    monkeypatch.setattr(stores, "SILENT_SECONDS", 0.3)
    monkeypatch.setattr(stores, "PART_SECONDS", 0.3)
    (tmp_path / "b").write_bytes(bytes(num_bytes))
    for call in (
        lambda: storage.read_bytes("s3://slow/a"),
        lambda: storage.find_file("s3://slow/a"),
        lambda: storage.download("s3://slow/a", tmp_path / "a"),
        lambda: storage.upload(tmp_path / "b", "s3://slow/a"),
        lambda: storage.write_bytes("s3://slow/a", bytes(num_bytes)),
        lambda: storage.create("s3://slow/a", bytes(num_bytes)),
    ):
        with pytest.raises(stores.StorageError, match="s3://slow/a: ") as caught:  # long before the server answers
            call()
        assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("slow")
def test_a_request_that_takes_long_is_said_once(monkeypatch, caplog) -> None:
    caplog.set_level("INFO", "splatfix.stores")
    monkeypatch.setattr(stores, "SLOW_SECONDS", 0.2)
    storage.read_bytes("s3://slow/a")
    storage.read_bytes("s3://slow/a")
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith("s3://slow: a request has taken 0 s so far: the link is slow or the store")


def test_limits_of_requests_and_settings_of_the_environment(monkeypatch) -> None:
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.delenv("AWS_TIMEOUT", raising=False)
    open_store = stores.open_store.__wrapped__
    limits = {"connect_timeout": "10000ms", "timeout": "3660000ms", "read_timeout": "60000ms"}
    assert open_store("s3://b").client_options == {**limits, "allow_http": "true"}
    sending = {"connect_timeout": "10000ms", "timeout": "600000ms"}
    assert open_store("s3://b", sends_much=True).client_options == {**sending, "allow_http": "true"}
    monkeypatch.setenv("AWS_TIMEOUT", "2h")
    assert open_store("s3://b").client_options["timeout"] == "2h"
    monkeypatch.setenv("GOOGLE_SKIP_SIGNATURE", "true")
    assert open_store("gs://b").client_options == limits
    assert open_store("http://127.0.0.1:9").client_options == {**limits, "allow_http": "true"}
