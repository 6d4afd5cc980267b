"""The index of a folder of pairs: the manifests of the fits determine it."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path

import pytest

from splatfix import storage
from splatfix.pairs import read_manifest, read_pairs
from splatfix.pairs.index import commit_fit, list_committed_stems, open_index, read_fit
from splatfix.pairs.verify import verify
from tests.pairs.folders import commit_two_fits, make_pairs


def test_the_index_collects_the_manifests_of_the_fits(tmp_path: Path) -> None:
    index = commit_two_fits(tmp_path)
    assert sorted(index) == ["other-f000", "plane-f000"] == sorted(list_committed_stems(tmp_path))
    assert index["plane-f000"].record == {
        "scene": "plane",
        "pairs": 3,
        "bytes": index.shards()[-1].bytes,
        "files": [],
    }
    assert [shard.samples for shard in read_manifest(tmp_path)] == [2, 2, 1, 3]
    verification = verify(tmp_path)
    assert (verification.num_shards, verification.num_samples, verification.problems) == (4, 8, ())
    assert len(list(read_pairs(tmp_path))) == 8


def test_an_outdated_broken_or_missing_index_is_rebuilt(tmp_path: Path) -> None:
    commit_two_fits(tmp_path)
    commit_fit(tmp_path, "late-f000", make_pairs(1, "late"), {})
    (tmp_path / "plane-f000.manifest.json").unlink()
    assert sorted(open_index(tmp_path)) == ["late-f000", "other-f000"]
    for content in ("{", "[]", '{"fits": 3}'):
        (tmp_path / "fits.json").write_text(content)
        assert sorted(open_index(tmp_path)) == ["late-f000", "other-f000"]


def test_a_fit_without_pairs_can_be_committed(tmp_path: Path) -> None:
    fit, is_first = commit_fit(tmp_path, "dull-f000", [], {"filtered": 9})
    assert is_first and fit.shards == ()
    assert open_index(tmp_path)["dull-f000"].record["filtered"] == 9
    open_index(tmp_path).write()
    assert verify(tmp_path).problems == ()


@pytest.mark.parametrize("place", ["folder", "s3"])
def test_the_first_of_several_drivers_commits_a_fit(tmp_path: Path, place: str, request) -> None:
    """Their fits differ, as with other numbers of threads: the first manifest wins, the other files are deleted."""
    url = str(tmp_path) if place == "folder" else request.getfixturevalue("bucket")
    start, results = threading.Barrier(4), {}

    def drive(number: int) -> None:
        start.wait()
        results[number] = commit_fit(url, "plane-f000", make_pairs(number + 1), {"driver": number})

    drivers = [threading.Thread(target=drive, args=(number,)) for number in range(4)]
    for driver in drivers:
        driver.start()
    for driver in drivers:
        driver.join()
    winners = [number for number, (_, is_first) in results.items() if is_first]
    assert len(winners) == 1
    committed = read_fit(url, "plane-f000")
    assert committed.record["driver"] == winners[0]
    assert all(fit == committed for fit, _ in results.values())
    open_index(url).write()
    verification = verify(url)
    assert (verification.num_shards, verification.num_samples, verification.problems) == (1, winners[0] + 1, ())


def test_a_shard_without_its_manifest_is_ignored(tmp_path: Path) -> None:
    """A kill between the two writes leaves such a shard."""
    commit_two_fits(tmp_path)
    (tmp_path / "plane-f000.manifest.json").unlink()
    assert sorted(open_index(tmp_path)) == ["other-f000"]
    verification = verify(tmp_path)
    assert verification.is_outdated and any(name.startswith("plane-f000") for name in verification.unlisted)
    commit_fit(tmp_path, "plane-f000", make_pairs(3), {"scene": "plane"})  # the same fit makes the same shard
    assert verify(tmp_path).problems == ()


def test_a_failed_commit_leaves_no_files(tmp_path: Path, monkeypatch) -> None:
    def full(_url: str, _content: bytes) -> bool:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage, "create", full)
    with pytest.raises(OSError, match="No space"):
        commit_fit(tmp_path, "plane-f000", make_pairs(3), {}, files={".ply": b"x"}, samples_per_shard=1)
    assert list(tmp_path.iterdir()) == []


def test_writing_the_index_keeps_the_fits_of_other_drivers(tmp_path: Path) -> None:
    index = open_index(tmp_path)
    commit_two_fits(tmp_path)  # another driver's
    fit, _ = commit_fit(tmp_path, "late-f000", make_pairs(1, "late"), {})
    index.add(fit)
    index.write()
    assert {shard.scene for shard in read_manifest(tmp_path)} == {"plane", "other", "late"}


def test_names_in_a_manifest_cannot_leave_the_folder(tmp_path: Path) -> None:
    commit_two_fits(tmp_path)
    text = (tmp_path / "fits.json").read_text()
    shard = open_index(tmp_path)["plane-f000"].shards[0].name
    (tmp_path / "fits.json").write_text(text.replace(shard, "../../x.tar"))
    assert open_index(tmp_path)["plane-f000"].shards[0].name == shard  # rebuilt from the manifests
    manifest = tmp_path / "plane-f000.manifest.json"
    manifest.write_text(
        manifest.read_text().replace('"files": []', '"files": [{"name": "/etc/passwd", "bytes": 1, "sha256": ""}]')
    )
    with pytest.raises(ValueError, match="wanted a plain file name"):
        read_fit(tmp_path, "plane-f000")


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("shards",), {}, "shards = "),
        (("shards", 0, "samples"), "many", "shards.0.samples = 'many'"),
        (("shards", 0, "samples"), 0, "samples = 0; wanted at least 1"),
        (("shards", 0, "sha256"), None, "shards.0.sha256 = None"),
        (("fit",), [], "fit = "),
        (("fit", "pairs"), "x", "fit.pairs = 'x'"),
        (("fit", "psnr"), {"loud": 1}, "fit.psnr.loud"),
        (("fit", "seconds"), 3, "fit.seconds = 3"),
        (("fit", "files"), [{}], "fit.files.0.name is missing"),
        (("schema",), 7, "schema = 7"),
    ],
)
def test_manifests_with_other_types_are_one_line(tmp_path: Path, path: tuple, value: object, words: str) -> None:
    commit_two_fits(tmp_path)
    manifest = tmp_path / "plane-f000.manifest.json"
    tree = at = json.loads(manifest.read_text())
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    manifest.write_text(json.dumps(tree))
    with pytest.raises(ValueError, match=re.escape(words)) as refused:
        read_fit(tmp_path, "plane-f000")
    assert str(refused.value).startswith(f"{manifest}: ")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "text", ["", "[" * 50_000, '{"schema": 1, "fits": {"plane-f000": {"shards": [], "record": 3}}}']
)
def test_a_broken_collection_of_manifests_is_rebuilt(tmp_path: Path, text: str) -> None:
    index = commit_two_fits(tmp_path)
    (tmp_path / "fits.json").write_text(text)
    assert dict(open_index(tmp_path)) == dict(index)
