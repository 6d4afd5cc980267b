"""Shards and streams: broken shards are errors, nothing in a shard is executed, and streams are reproducible."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import re
import tarfile
from collections.abc import Iterable
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from splatfix import storage
from splatfix.pairs import Pair, read_manifest, read_pairs, sample_pairs, write_shards
from splatfix.pairs.pair import decode, encode
from splatfix.pairs.stream import Balance
from splatfix.pairs.verify import verify
from tests.pairs.folders import make_pairs
from tests.restoration.scenery import pair


def keys(pairs: Iterable[Pair]) -> list[str]:
    return [pair.key for pair in pairs]


@pytest.mark.parametrize("place", ["folder", "memory"])
def test_shards_are_read_as_they_were_written(tmp_path, place):
    url = str(tmp_path / "deep" / "shards") if place == "folder" else f"memory://{tmp_path.name}"
    shards = write_shards([*make_pairs(5), *make_pairs(3, "other")], url, samples_per_shard=3)
    assert [(shard.scene, shard.samples) for shard in shards] == [("plane", 3), ("plane", 2), ("other", 3)]
    assert read_manifest(url) == shards
    read = list(read_pairs(url))
    assert keys(read) == keys([*make_pairs(5), *make_pairs(3, "other")])
    np.testing.assert_array_equal(read[4].artifact, pair(4).artifact)
    verification = verify(url)
    assert (verification.num_shards, verification.num_samples, verification.problems) == (3, 8, ())


def test_the_same_pairs_give_the_same_bytes(tmp_path):
    a, b = write_shards(make_pairs(7), tmp_path / "a"), write_shards(make_pairs(7), tmp_path / "b")
    assert a == b
    assert (tmp_path / "a" / a[0].name).read_bytes() == (tmp_path / "b" / b[0].name).read_bytes()
    assert sorted(os.listdir(tmp_path / "a")) == sorted([*(shard.name for shard in a), "manifest.json"])


def test_a_truncated_shard_is_reported_when_verified_and_when_read(tmp_path):
    (shard,) = write_shards(make_pairs(6), tmp_path)
    file = tmp_path / shard.name
    file.write_bytes(file.read_bytes()[: shard.bytes // 2 // 512 * 512])
    (problem,) = verify(tmp_path).problems
    assert shard.name in problem
    assert "bytes" in problem
    with pytest.raises(ValueError, match=r"is the file whole\?|cannot be read as a shard"):
        list(read_pairs(tmp_path))
    with pytest.raises(ValueError, match=r"is the file whole\?|cannot be read as a shard"):
        list(islice(sample_pairs(tmp_path, [shard], seed=0, segment=0), 9))


def test_a_changed_digit_is_reported_when_a_shard_is_read(tmp_path):
    (shard,) = write_shards(make_pairs(6), tmp_path)
    file = tmp_path / shard.name
    content = bytearray(file.read_bytes())
    content[re.search(rb'"artifact_psnr": \d+\.(?=\d)', content).end()] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{shard.name}: its sha256 differs from the manifest; run splatfix verify"):
        list(read_pairs(tmp_path))


def test_changed_missing_and_unlisted_shards_are_reported(tmp_path):
    first, second, third = write_shards(make_pairs(6), tmp_path, samples_per_shard=2)
    content = bytearray((tmp_path / first.name).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / first.name).write_bytes(content)
    (tmp_path / second.name).unlink()
    (tmp_path / "stray-00000-0123456789ab.tar").write_bytes(b"")
    problems = verify(tmp_path).problems
    assert len(problems) == 3
    for name, problem in zip((first.name, second.name, "stray-00000-0123456789ab.tar"), problems, strict=True):
        assert name in problem
    assert third.name not in " ".join(problems)


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_members_of_other_types_are_never_decoded(tmp_path):
    (shard,) = write_shards(make_pairs(1), tmp_path)
    trap, file = tmp_path / "sprung", tmp_path / shard.name
    with tarfile.open(file, "a") as tar:
        for name in (f"{pair(0).key}.pyd", f"{pair(0).key}.pth", "../outside.artifact.png", f"{pair(0).key}.pickle"):
            content = pickle.dumps(Trap(trap))
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    honest = replace(shard, sha256=hashlib.sha256(file.read_bytes()).hexdigest())  # as its author would list it
    assert keys(read_pairs(tmp_path, [honest])) == keys(make_pairs(1))
    assert not trap.exists()


@pytest.mark.parametrize(
    "url",
    ["pipe:touch {trap}", "pipe:touch {trap} #/x.tar", "simplecache::memory://x", "local-shell:ls", "ftp://host/x"],
)
def test_urls_with_shells_or_chains_are_refused(tmp_path, url):
    trap = tmp_path / "sprung"
    with pytest.raises(ValueError, match="wanted a local path or a URL of"):
        read_manifest(url.format(trap=trap))
    assert not trap.exists()


@pytest.mark.parametrize("name", ["../x.tar", "pipe:true.tar", "a/b.tar", "/etc/x.tar", "x.tgz"])
def test_names_in_a_manifest_cannot_leave_the_folder(tmp_path, name):
    write_shards(make_pairs(1), tmp_path)
    tree = json.loads((tmp_path / "manifest.json").read_text())
    tree["shards"][0]["name"] = name
    (tmp_path / "manifest.json").write_text(json.dumps(tree))
    with pytest.raises(ValueError, match="wanted a plain file name"):
        read_manifest(tmp_path)


def test_views_whose_names_differ_outside_ascii_have_distinct_keys(tmp_path):
    names = ["\u53a8.jpg", "\u623f.jpg", "a b.jpg", "a_b.jpg", "a.jpg"]
    pairs = [replace(pair(0), view=name) for name in names]
    [shard] = write_shards(pairs, tmp_path)
    assert {read.view for read in read_pairs(tmp_path)} == set(names)
    with tarfile.open(tmp_path / shard.name) as file:
        stored = [member.name.removesuffix(".clean.png") for member in file if member.name.endswith(".clean.png")]
    assert len(set(stored)) == 5
    assert stored[0] == pairs[0].key and stored[4] == pairs[4].key  # as without a collision
    with pytest.raises(ValueError, match="duplicate key"):
        write_shards([*pairs, pairs[1]], tmp_path)


def test_invalid_pairs_and_manifests_are_errors(tmp_path):
    with pytest.raises(ValueError, match="no pairs"):
        write_shards([], tmp_path)
    with pytest.raises(ValueError, match="duplicate key"):
        write_shards([pair(0), pair(0)], tmp_path)
    with pytest.raises(ValueError, match="stem"):
        write_shards(make_pairs(1), tmp_path, stem="a/b")
    storage.write_bytes(str(tmp_path / "manifest.json"), b"{}")
    with pytest.raises(ValueError, match="not a manifest"):
        read_manifest(tmp_path)


def test_streams_are_reproducible_and_differ_by_segment_slot_and_seed(tmp_path):
    shards = write_shards([*make_pairs(6), *make_pairs(6, "other")], tmp_path, samples_per_shard=3)

    def stream(**numbers) -> list[str]:
        numbers = {"seed": 0, "segment": 0} | numbers
        return keys(islice(sample_pairs(tmp_path, shards, samples_per_visit=2, shuffle_buffer=8, **numbers), 40))

    first = stream()
    assert stream() == first
    others = [stream(segment=1), stream(slot=1), stream(seed=1)]
    assert all(other != first for other in others)


@pytest.mark.slow
def test_streams_visit_recipes_by_their_weights(tmp_path):
    shards = write_shards(make_pairs(12), tmp_path, samples_per_shard=3)
    recipe_of = dict(zip([shard.name for shard in shards], ["a", "a", "a", "b"], strict=True))
    of_b = set(keys(read_pairs(tmp_path, shards[3:])))

    def share(weights: dict[str, float]) -> float:
        balance = Balance(recipe_of, weights)
        stream = sample_pairs(
            tmp_path, shards, seed=0, segment=0, samples_per_visit=1, shuffle_buffer=4, balance=balance
        )
        return np.mean([one.key in of_b for one in islice(stream, 300)])

    assert share({}) == pytest.approx(0.25, abs=0.08)
    assert share({"a": 1, "b": 3}) == pytest.approx(0.75, abs=0.08)
    assert share({"b": 0}) == 0
    assert share({"a": 0, "b": 0}) == pytest.approx(0.25, abs=0.08)


def test_a_difficulty_that_is_no_number_is_an_error_of_the_shard(tmp_path):
    marked = [replace(one, meta=one.meta | {"artifact_psnr": "loud"}) for one in make_pairs(2)]
    shards = write_shards(marked, tmp_path)
    with pytest.raises(ValueError, match=rf"{shards[0].name}: .*artifact_psnr = 'loud'"):
        next(sample_pairs(tmp_path, shards, seed=0, segment=0, balance=Balance(even_difficulty=True)))


@pytest.mark.slow
def test_streams_make_classes_of_difficulty_equally_likely(tmp_path):
    marked = [
        replace(one, meta=one.meta | {"artifact_psnr": 30.0 if i else 10.0}) for i, one in enumerate(make_pairs(12))
    ]
    shards = write_shards(marked, tmp_path)
    hard = marked[0].key

    def share(*, even: bool) -> float:
        balance = Balance(even_difficulty=even)
        stream = sample_pairs(
            tmp_path, shards, seed=0, segment=0, samples_per_visit=1, shuffle_buffer=4, balance=balance
        )
        return np.mean([one.key == hard for one in islice(stream, 300)])

    assert share(even=False) < 0.2
    assert share(even=True) == pytest.approx(0.5, abs=0.1)


def test_the_number_of_decoded_warps_is_limited():
    sample = encode(pair(0))
    assert [len(decode(sample, num_warps=num).warps) for num in (None, 0, 1, 9)] == [2, 0, 1, 2]


def test_streams_balance_scenes(tmp_path):
    shards = write_shards([*make_pairs(20, "large"), *make_pairs(2, "small")], tmp_path, samples_per_shard=8)
    stream = sample_pairs(tmp_path, shards, seed=0, segment=0, samples_per_visit=2, shuffle_buffer=8)
    share = np.mean([one.scene == "small" for one in islice(stream, 200)])
    assert 0.35 < share < 0.65
