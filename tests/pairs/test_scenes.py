"""Scenes keep their names and groups between runs, and the same photos in two groups cause a warning."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from splatfix.pairs.index import CommittedFit, Index
from splatfix.pairs.scenes import DuplicateCheck, keep_scene_names
from splatfix.pairs.sources import Source


@pytest.fixture
def index(tmp_path: Path) -> Index:
    """An index with a fit of the capture /a/room as the scene room, in the group hall."""
    index = Index(tmp_path)
    index.add(CommittedFit("room-f000", (), {"capture": "/a/room", "scene": "room", "group": "hall"}))
    return index


def test_committed_captures_keep_scene_and_group(index: Index) -> None:
    kept, new = keep_scene_names([Source("/a/room", "a-room", "a-room"), Source("/b/room", "b-room", "b-room")], index)
    assert kept == Source("/a/room", "room", "hall")
    assert new == Source("/b/room", "b-room", "b-room")


def test_a_scene_name_of_another_capture_is_an_error(index: Index) -> None:
    with pytest.raises(ValueError, match=r"^/b/room: .* already have a scene 'room', from /a/room"):
        keep_scene_names([Source("/b/room", "room", "room")], index)


def test_another_group_than_before_is_an_error(index: Index) -> None:
    assert keep_scene_names([Source("/a/room", "room", "hall")], index)[0].group == "hall"
    with pytest.raises(ValueError, match="are in the group 'hall', now it is 'attic'"):
        keep_scene_names([Source("/a/room", "room", "attic")], index)


def test_the_same_photos_in_two_groups_cause_one_warning(caplog) -> None:
    logging.getLogger("splatfix").propagate = True
    duplicates = DuplicateCheck()
    duplicates.add({"fingerprint": "1", "scene": "a", "group": "a"})
    duplicates.add({"fingerprint": "1", "scene": "copy", "group": "a"})
    duplicates.add({"fingerprint": "2", "scene": "b", "group": "b"})
    duplicates.add({"fingerprint": "", "scene": "c", "group": "c"})
    duplicates.add({"fingerprint": "", "scene": "d", "group": "d"})
    assert not caplog.records
    for _ in range(2):
        duplicates.add({"fingerprint": "1", "scene": "other", "group": "other"})
    (record,) = caplog.records
    assert "a and other hold the same photos, but are in the groups a and other" in record.getMessage()
