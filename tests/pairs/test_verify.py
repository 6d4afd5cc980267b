"""Verifying and repairing a folder of pairs."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

import splatfix.pairs.verify as verifying
from splatfix import storage
from splatfix.pairs import read_manifest
from splatfix.pairs.index import commit_fit, list_committed_stems, open_index
from splatfix.pairs.shards import Shard
from splatfix.pairs.verify import repair, verify
from tests.pairs.folders import commit_two_fits, make_pairs


def test_verify_reports_broken_fits_and_repair_deletes_them(tmp_path: Path) -> None:
    commit_two_fits(tmp_path)
    commit_fit(tmp_path, "whole-f000", make_pairs(2, "whole"), {})
    commit_fit(tmp_path, "gone-f000", make_pairs(2, "gone"), {})
    open_index(tmp_path).write()
    (truncated,) = tmp_path.glob("plane-f000-*.tar")
    truncated.write_bytes(truncated.read_bytes()[:1024])
    next(iter(tmp_path.glob("gone-f000-*.tar"))).unlink()
    (tmp_path / "stray-00000-0123456789ab.tar").write_bytes(b"x")
    (tmp_path / "someone-elses.tar").write_bytes(b"x")
    (tmp_path / "other-f000.manifest.json").write_text("{")
    verification = verify(tmp_path)
    assert verification.broken == ("gone-f000", "other-f000", "plane-f000")
    assert "stray-00000-0123456789ab.tar" in verification.unlisted and verification.num_samples == 2
    text = "\n".join(verification.problems)
    assert truncated.name in text and "other-f000.manifest.json: not valid JSON" in text
    assert repair(tmp_path, verification) == ["gone-f000", "other-f000", "plane-f000"]
    after = verify(tmp_path)
    assert (after.problems, after.num_samples) == ((), 2)
    ours = sorted(path.name for path in tmp_path.glob("*.tar") if path.name != "someone-elses.tar")
    assert ours == [shard.name for shard in read_manifest(tmp_path)] and (tmp_path / "someone-elses.tar").exists()


def test_shards_without_fits_are_verified_but_not_repaired(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file"):
        verify(tmp_path)
    commit_two_fits(tmp_path)
    for file in tmp_path.glob("*.manifest.json"):
        file.unlink()
    assert verify(tmp_path).num_samples == 8
    next(tmp_path.glob("plane-f000-*.tar")).unlink()
    with pytest.raises(ValueError, match="shards without them cannot be repaired"):
        repair(tmp_path, verify(tmp_path))
    assert len(list(tmp_path.glob("*.tar"))) == 3
    tree = json.loads(storage.read_bytes(f"{tmp_path}/manifest.json"))
    assert tree["samples"] == 8


def test_the_splat_of_a_fit_is_checked_and_deleted_with_it(tmp_path: Path) -> None:
    fit, _ = commit_fit(tmp_path, "plane-dense", [], {"kind": "dense"}, files={".ply": b"points"})
    (name,) = fit.file_names
    assert name.startswith("plane-dense-") and name.endswith(".ply")
    late, is_first = commit_fit(tmp_path, "plane-dense", [], {"kind": "dense"}, files={".ply": b"other points"})
    assert not is_first and late == fit and [path.name for path in tmp_path.glob("*.ply")] == [name]
    open_index(tmp_path).write()
    assert verify(tmp_path).problems == ()
    (tmp_path / name).write_bytes(b"less")
    verification = verify(tmp_path)
    assert verification.broken == ("plane-dense",)
    repair(tmp_path, verification)
    assert list(tmp_path.glob("*.ply")) == [] and list_committed_stems(tmp_path) == set()


def test_an_unreachable_store_is_not_taken_for_a_broken_shard(tmp_path: Path, monkeypatch) -> None:
    commit_two_fits(tmp_path)
    real = storage.read_bytes

    def read_unless_shard(url: str) -> bytes:
        if url.endswith(".tar"):
            raise storage.StorageError(f"{url}: 503")
        return real(url)

    monkeypatch.setattr(storage, "read_bytes", read_unless_shard)
    with pytest.raises(OSError, match="503"):
        verify(tmp_path)


def test_an_empty_manifest_is_one_more_broken_fit(tmp_path: Path) -> None:
    commit_two_fits(tmp_path)
    open_index(tmp_path).write()
    stems = set(list_committed_stems(tmp_path))
    (tmp_path / "x.manifest.json").touch()
    verification = verify(tmp_path)
    assert verification.broken == ("x",)
    assert repair(tmp_path, verification) == ["x"]
    assert verify(tmp_path).problems == () and set(list_committed_stems(tmp_path)) == stems


def test_a_stop_signal_checks_no_more_files(tmp_path: Path, monkeypatch) -> None:
    for number in range(20):
        commit_fit(tmp_path, f"plane-f{number:03}", make_pairs(1, f"plane{number}"), {})
    open_index(tmp_path).write()
    checked: list[str] = []

    def check(_url: object, file: Shard, _decoding: bool) -> None:
        checked.append(file.name)
        time.sleep(0.05)

    def stop() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(storage, "NUM_REQUESTS", 2)
    monkeypatch.setattr(verifying, "_check_file", check)
    with pytest.raises(KeyboardInterrupt):
        verify(tmp_path, on_file=stop)
    assert len(checked) <= 6
