"""Fits in a folder: done by their manifests alone, found broken when they are, made once however many try."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from splatfix import storage
from splatfix.pairs import read_manifest, read_pairs
from splatfix.pairs.index import Index, commit_fit, committed_stems, open_index, read_fit, repair, verify
from tests.restoration.scenery import pair


def pairs(num: int, scene: str = "plane"):
    return [pair(i, scene) for i in range(num)]


def two_fits(url: str | Path) -> Index:
    commit_fit(url, "plane-f000", pairs(3), {"scene": "plane"})
    commit_fit(url, "other-f000", pairs(5, "other"), {"scene": "other"}, samples_per_shard=2)
    index = open_index(url)
    index.write()
    return index


def test_the_index_gathers_what_the_manifests_say(tmp_path: Path) -> None:
    index = two_fits(tmp_path)
    assert sorted(index) == ["other-f000", "plane-f000"] == sorted(committed_stems(tmp_path))
    assert index["plane-f000"].record == {
        "scene": "plane",
        "pairs": 3,
        "bytes": index.shards()[-1].bytes,
        "files": [],
    }
    assert [shard.samples for shard in read_manifest(tmp_path)] == [2, 2, 1, 3]
    found = verify(tmp_path)
    assert (found.num_shards, found.num_samples, found.problems) == (4, 8, ())
    assert len(list(read_pairs(tmp_path))) == 8


def test_an_index_that_is_old_broken_or_gone_is_made_again(tmp_path: Path) -> None:
    two_fits(tmp_path)
    commit_fit(tmp_path, "late-f000", pairs(1, "late"), {})
    (tmp_path / "plane-f000.manifest.json").unlink()
    assert sorted(open_index(tmp_path)) == ["late-f000", "other-f000"]
    for content in ("{", "[]", '{"fits": 3}'):
        (tmp_path / "fits.json").write_text(content)
        assert sorted(open_index(tmp_path)) == ["late-f000", "other-f000"]


def test_a_fit_without_pairs_is_done_too(tmp_path: Path) -> None:
    fit, made = commit_fit(tmp_path, "dull-f000", [], {"filtered": 9})
    assert made and fit.shards == ()
    assert open_index(tmp_path)["dull-f000"].record["filtered"] == 9
    open_index(tmp_path).write()
    assert verify(tmp_path).problems == ()


@pytest.mark.parametrize("place", ["folder", "s3"])
def test_of_two_drivers_that_make_the_same_fit_one_counts(tmp_path: Path, place: str, request) -> None:
    """Their fits differ (another number of threads): the first manifest stands, and nothing of the other stays."""
    url = str(tmp_path) if place == "folder" else request.getfixturevalue("bucket")
    start, made = threading.Barrier(4), {}

    def drive(number: int) -> None:
        start.wait()
        made[number] = commit_fit(url, "plane-f000", pairs(number + 1), {"driver": number})

    drivers = [threading.Thread(target=drive, args=(number,)) for number in range(4)]
    for driver in drivers:
        driver.start()
    for driver in drivers:
        driver.join()
    winners = [number for number, (_, first) in made.items() if first]
    assert len(winners) == 1
    stands = read_fit(url, "plane-f000")
    assert stands.record["driver"] == winners[0]
    assert all(fit == stands for fit, _ in made.values())
    open_index(url).write()
    found = verify(url)
    assert (found.num_shards, found.num_samples, found.problems) == (1, winners[0] + 1, ())


def test_verify_names_what_is_broken_and_repair_drops_it(tmp_path: Path) -> None:
    two_fits(tmp_path)
    commit_fit(tmp_path, "whole-f000", pairs(2, "whole"), {})
    commit_fit(tmp_path, "gone-f000", pairs(2, "gone"), {})
    open_index(tmp_path).write()
    (truncated,) = tmp_path.glob("plane-f000-*.tar")
    truncated.write_bytes(truncated.read_bytes()[:1024])
    next(iter(tmp_path.glob("gone-f000-*.tar"))).unlink()
    (tmp_path / "stray-00000-0123456789ab.tar").write_bytes(b"x")
    (tmp_path / "someone-elses.tar").write_bytes(b"x")
    (tmp_path / "other-f000.manifest.json").write_text("{")
    found = verify(tmp_path)
    assert found.broken == ("gone-f000", "other-f000", "plane-f000")
    assert "stray-00000-0123456789ab.tar" in found.strays and found.num_samples == 2
    text = "\n".join(found.problems)
    assert truncated.name in text and "other-f000.manifest.json: not a manifest" in text
    assert repair(tmp_path, found) == ["gone-f000", "other-f000", "plane-f000"]
    after = verify(tmp_path)
    assert (after.problems, after.num_samples) == ((), 2)
    ours = sorted(path.name for path in tmp_path.glob("*.tar") if path.name != "someone-elses.tar")
    assert ours == [shard.name for shard in read_manifest(tmp_path)] and (tmp_path / "someone-elses.tar").exists()


def test_a_shard_without_its_manifest_does_not_count(tmp_path: Path) -> None:
    """As a kill between the two leaves it."""
    two_fits(tmp_path)
    (tmp_path / "plane-f000.manifest.json").unlink()
    assert sorted(open_index(tmp_path)) == ["other-f000"]
    found = verify(tmp_path)
    assert found.outdated and any(name.startswith("plane-f000") for name in found.strays)
    commit_fit(tmp_path, "plane-f000", pairs(3), {"scene": "plane"})  # the same fit makes the same shard
    assert verify(tmp_path).problems == ()


def test_verify_works_without_fits_and_says_where_there_is_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file"):
        verify(tmp_path)
    two_fits(tmp_path)
    for file in tmp_path.glob("*.manifest.json"):
        file.unlink()
    assert verify(tmp_path).num_samples == 8
    next(tmp_path.glob("plane-f000-*.tar")).unlink()
    with pytest.raises(ValueError, match="shards without them cannot be repaired"):
        repair(tmp_path, verify(tmp_path))
    assert len(list(tmp_path.glob("*.tar"))) == 3
    tree = json.loads(storage.read_bytes(f"{tmp_path}/manifest.json"))
    assert tree["samples"] == 8


def test_other_files_of_a_fit_are_checked_and_dropped_with_it(tmp_path: Path) -> None:
    fit, _ = commit_fit(tmp_path, "plane-dense", [], {"kind": "dense"}, files={".ply": b"points"})
    (name,) = fit.file_names
    assert name.startswith("plane-dense-") and name.endswith(".ply")
    late, first = commit_fit(tmp_path, "plane-dense", [], {"kind": "dense"}, files={".ply": b"other points"})
    assert not first and late == fit and [path.name for path in tmp_path.glob("*.ply")] == [name]
    open_index(tmp_path).write()
    assert verify(tmp_path).problems == ()
    (tmp_path / name).write_bytes(b"less")
    found = verify(tmp_path)
    assert found.broken == ("plane-dense",)
    repair(tmp_path, found)
    assert list(tmp_path.glob("*.ply")) == [] and committed_stems(tmp_path) == set()


def test_nothing_stays_of_a_fit_that_could_not_be_written(tmp_path: Path, monkeypatch) -> None:
    def full(_url: str, _content: bytes) -> bool:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage, "create", full)
    with pytest.raises(OSError, match="No space"):
        commit_fit(tmp_path, "plane-f000", pairs(3), {}, files={".ply": b"x"}, samples_per_shard=1)
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_does_not_answer_is_not_taken_for_a_broken_shard(tmp_path: Path, monkeypatch) -> None:
    two_fits(tmp_path)
    real = storage.read_bytes

    def away(url: str) -> bytes:
        if url.endswith(".tar"):
            raise storage.StorageError(f"{url}: 503")
        return real(url)

    monkeypatch.setattr(storage, "read_bytes", away)
    with pytest.raises(OSError, match="503"):
        verify(tmp_path)


def test_a_driver_that_knows_less_forgets_nothing_of_the_other(tmp_path: Path) -> None:
    mine = open_index(tmp_path)
    two_fits(tmp_path)  # another driver's
    fit, _ = commit_fit(tmp_path, "mine-f000", pairs(1, "mine"), {})
    mine.add(fit)
    mine.write()
    assert {shard.scene for shard in read_manifest(tmp_path)} == {"plane", "other", "mine"}


def test_names_in_the_index_cannot_lead_elsewhere(tmp_path: Path) -> None:
    two_fits(tmp_path)
    text = (tmp_path / "fits.json").read_text()
    shard = open_index(tmp_path)["plane-f000"].shards[0].name
    (tmp_path / "fits.json").write_text(text.replace(shard, "../../x.tar"))
    assert open_index(tmp_path)["plane-f000"].shards[0].name == shard  # made again from the manifests
    manifest = tmp_path / "plane-f000.manifest.json"
    manifest.write_text(manifest.read_text().replace('"files": []', '"files": [{"name": "/etc/passwd"}]'))
    with pytest.raises(ValueError, match="wanted a plain file name"):
        read_fit(tmp_path, "plane-f000")
