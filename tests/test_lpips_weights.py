"""Fetching the weights of LPIPS: from a server of this machine, with a small stand-in for the file."""

import functools
import hashlib
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from splatfix import lpips_weights
from splatfix.cli import main
from splatfix.doctor.machine import findings
from splatfix.lpips_weights import VGG16, WeightsFile, fetch_weights, weights_path

CONTENT = bytes(range(256)) * 9000  # 2.2 MB


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path):
    """The address of a server, and the folder whose files it has."""
    folder = tmp_path / "served"
    folder.mkdir()
    served = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(QuietHandler, directory=str(folder)))
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{served.server_address[1]}", folder
    served.shutdown()
    served.server_close()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder where LPIPS looks."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints"


def stand_in(url: str, content: bytes = CONTENT) -> WeightsFile:
    return WeightsFile("weights.pth", url, len(content), hashlib.sha256(content).hexdigest())


def test_weights_are_fetched_once(server, cache, capsys):
    address, folder = server
    (folder / "weights.pth").write_bytes(CONTENT)
    file = stand_in(f"{address}/weights.pth")
    assert fetch_weights(file=file) == (cache / "weights.pth", True)
    assert (cache / "weights.pth").read_bytes() == CONTENT
    assert "weights.pth, MB: 100%" in capsys.readouterr().err
    (folder / "weights.pth").unlink()
    assert fetch_weights(file=file) == (cache / "weights.pth", False)
    (folder / "weights.pth").write_bytes(CONTENT)
    (cache / "weights.pth").write_bytes(CONTENT[:-1] + b"!")  # a damaged file is replaced
    assert fetch_weights(file=file) == (cache / "weights.pth", True)
    assert (cache / "weights.pth").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("content", "message"),
    [(CONTENT[:-1] + b"!", "SHA-256 is .*; wanted "), (CONTENT[:100], "100 bytes; wanted weights.pth with 2,304,000")],
)
def test_another_file_is_not_put_in_place(server, cache, content, message):
    address, folder = server
    (folder / "weights.pth").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        fetch_weights(file=stand_in(f"{address}/weights.pth"))
    assert not cache.exists() or not list(cache.iterdir())


def test_a_file_that_was_downloaded_by_hand_is_checked_and_placed(cache, tmp_path):
    (tmp_path / "mine.pth").write_bytes(CONTENT)
    file = stand_in("http://127.0.0.1:9/weights.pth")
    assert fetch_weights(str(tmp_path / "mine.pth"), file=file) == (cache / "weights.pth", True)
    assert (cache / "weights.pth").read_bytes() == CONTENT


def test_without_a_network_the_command_says_what_to_do(cache, server, tmp_path, capsys, monkeypatch):
    address, _ = server
    for url in (f"{address}/weights.pth", str(tmp_path / "missing.pth")):  # the server answers 404
        monkeypatch.setattr(lpips_weights, "VGG16", stand_in(url))
        assert main(["fetch", "lpips"]) == 1
        said = capsys.readouterr().err
        assert f"{url}: no such file; by hand: download {url}" in said
        assert "splatfix fetch lpips --source weights.pth" in said
    assert not cache.exists()


def test_an_unreachable_server_is_named(cache):
    with pytest.raises(OSError, match=r"127\.0\.0\.1:9.*; by hand: download http://127\.0\.0\.1:9/weights\.pth"):
        fetch_weights(file=stand_in("http://127.0.0.1:9/weights.pth"))
    assert not cache.exists() or not list(cache.iterdir())


def test_doctor_says_whether_lpips_can_be_measured(cache):
    def lpips():
        return next(finding for finding in findings() if finding.what == "LPIPS")

    assert not lpips().works and "splatfix fetch lpips" in lpips().remedy
    cache.mkdir(parents=True)
    weights_path().write_bytes(CONTENT)
    assert lpips().works and str(weights_path()) in lpips().seen


def test_the_name_of_the_file_begins_its_digest():
    assert VGG16.sha256.startswith(VGG16.name.split("-")[1].removesuffix(".pth"))
    assert len(VGG16.sha256) == 64 and VGG16.url.endswith(f"/{VGG16.name}")
