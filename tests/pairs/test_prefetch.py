"""Prefetched captures: shared between tasks, limited in number and memory, and opened anew after an error."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from splatfix.captures import Capture, PhotoOptions, open_capture, reading
from splatfix.errors import MachineError
from splatfix.pairs.prefetch import CapturePrefetcher, fingerprint_capture
from splatfix.pairs.sources import Source
from splatfix.sample import sample_path

SAMPLE = Source(str(sample_path()), "mug", "mug")


def test_the_most_recent_captures_stay_open(tmp_path: Path) -> None:
    prefetcher = CapturePrefetcher()
    first = prefetcher.open(SAMPLE, 32, PhotoOptions())
    assert first.wait().name == "mug"
    assert prefetcher.open(SAMPLE, 32, PhotoOptions()) is first
    prefetcher.open(SAMPLE, 48, PhotoOptions())
    prefetcher.open(Source(str(tmp_path), "empty", "empty"), 32, PhotoOptions())
    assert prefetcher.open(SAMPLE, 32, PhotoOptions()) is not first


def test_photos_are_kept_in_limited_memory(monkeypatch) -> None:
    full = CapturePrefetcher().open(SAMPLE, 32, PhotoOptions()).wait()
    camera = full.views[0].camera
    monkeypatch.setattr(reading, "MAX_KEPT_BYTES", 3 * camera.width_px * camera.height_px * 16)
    limited = CapturePrefetcher().open(SAMPLE, 32, PhotoOptions()).wait()
    in_memory = [
        [isinstance(view.load, reading.PhotoInMemory) for view in capture.views] for capture in (full, limited)
    ]
    assert all(in_memory[0]) and in_memory[1] == [True] * 3 + [False] * (len(full.views) - 3)


def _num_in_memory(capture: Capture) -> int:
    return sum(isinstance(view.load, reading.PhotoInMemory) for view in capture.views)


def test_a_capture_is_opened_anew_after_an_error(tmp_path: Path) -> None:
    prefetcher, source = CapturePrefetcher(), Source(str(tmp_path / "capture"), "mug", "mug")
    missing = prefetcher.open(source, 32, PhotoOptions())
    with pytest.raises(ValueError, match="capture"):
        missing.wait()
    prefetcher.close(missing)
    shutil.copytree(sample_path(), tmp_path / "capture")
    assert prefetcher.open(source, 32, PhotoOptions()).wait().name == "mug"


def test_photos_that_are_not_read_in_time_are_an_error_of_the_machine(monkeypatch, caplog) -> None:
    """As on a network disk that does not answer."""
    caplog.set_level("INFO")
    monkeypatch.setattr("splatfix.pairs.prefetch.MESSAGE_SECONDS", 0.01)
    monkeypatch.setattr("splatfix.pairs.prefetch.OPEN_SECONDS", 0.03)
    answer = threading.Event()
    monkeypatch.setattr(Source, "open", lambda *_: answer.wait(60))
    stuck = CapturePrefetcher().open(SAMPLE, 32, PhotoOptions())
    with pytest.raises(MachineError, match=rf"^{SAMPLE.url}: its photos could not be read in 0\.03 s; check that"):
        stuck.wait()
    assert f"waiting for the photos of {SAMPLE.url} for 0.01 s (at most 0.03 s)" in caplog.text
    answer.set()


def test_copies_of_a_capture_have_the_same_fingerprint(tmp_path: Path) -> None:
    shutil.copytree(sample_path(), tmp_path / "copy")
    sample, copy = open_capture(sample_path()), open_capture(tmp_path / "copy")
    assert fingerprint_capture(sample) == fingerprint_capture(copy) != ""
    for file in (tmp_path / "copy" / "images").iterdir():
        file.write_bytes(file.read_bytes() + b"x")
    assert fingerprint_capture(copy) != fingerprint_capture(sample)
