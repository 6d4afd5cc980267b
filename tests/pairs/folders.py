"""Folders for the tests of pairs: empty captures, and pairs of synthetic views."""

from __future__ import annotations

from pathlib import Path

from splatfix.pairs import Pair
from splatfix.pairs.index import Index, commit_fit, open_index
from tests.restoration.scenery import pair


def make_empty_capture(folder: Path) -> Path:
    """Create a folder that is recognized as a capture, but cannot be opened."""
    folder.mkdir(parents=True)
    (folder / "transforms.json").write_text("{}")
    return folder


def make_empty_captures(root: Path, *names: str) -> list[str]:
    return [str(make_empty_capture(root / name)) for name in names]


def make_pairs(num: int, scene: str = "plane") -> list[Pair]:
    return [pair(i, scene) for i in range(num)]


def commit_two_fits(url: str | Path) -> Index:
    """Commit a fit of 3 pairs in one shard and a fit of 5 pairs in three shards, and write the index."""
    commit_fit(url, "plane-f000", make_pairs(3), {"scene": "plane"})
    commit_fit(url, "other-f000", make_pairs(5, "other"), {"scene": "other"}, samples_per_shard=2)
    index = open_index(url)
    index.write()
    return index
