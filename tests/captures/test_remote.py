"""Captures on an object store: the same as local ones, and only the files that their format names are copied."""

from __future__ import annotations

import json
import pickle
import shutil
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from splatfix import folder_cache, storage
from splatfix.captures import fetch_photos, open_capture
from splatfix.pairs.prefetch import fingerprint_capture
from tests.captures.writers import (
    NAMES,
    WRITERS,
    edit_json,
    write_colmap,
    write_pictures,
    write_splat,
    write_transforms,
)
from tests.test_storage import put_folder


@pytest.fixture
def store(tmp_path: Path, monkeypatch) -> str:
    """The URL of a folder in memory, with an own cache."""
    monkeypatch.setenv("SPLATFIX_CACHE", str(tmp_path / "cache"))
    return f"memory://{uuid.uuid4().hex}"


@pytest.fixture
def requests(monkeypatch) -> Iterator[Counter[str]]:
    """Counts the files that are copied, by their names and how much of them."""
    counts: Counter[str] = Counter()
    download, read_start = storage.download, storage.read_start

    def count_download(url: str, path: Path) -> None:
        counts[url.split("/", 3)[-1]] += 1
        download(url, path)

    def count_start(url: str, num_bytes: int) -> bytes:
        counts["start of " + url.split("/", 3)[-1]] += 1
        return read_start(url, num_bytes)

    monkeypatch.setattr(storage, "download", count_download)
    monkeypatch.setattr(storage, "read_start", count_start)
    return counts


def load_all(capture) -> list[np.ndarray]:
    return [view.load().rgb for view in capture.views]


@pytest.mark.parametrize("kind", WRITERS)
def test_a_capture_on_a_store_is_the_local_one(store: str, requests, tmp_path: Path, kind: str) -> None:
    root = WRITERS[kind](tmp_path / "thing")
    (root / "depth").mkdir()
    for noise in ("video.mp4", "depth/a.npy", "images_9.zip"):
        (root / noise).write_bytes(b"x" * 1000)
    needed = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    needed -= {"video.mp4", "depth/a.npy", "images_9.zip"}
    put_folder(root, f"{store}/thing")
    local, remote = open_capture(root), open_capture(f"{store}/thing")
    assert remote.path == f"{store}/thing" and remote.name == local.name and remote.format == local.format
    assert remote.names == local.names and remote.notes == tuple(
        n.replace(str(root), f"{store}/thing") for n in local.notes
    )
    for a, b in zip(local.views, remote.views, strict=True):
        np.testing.assert_array_equal(a.camera.camera_from_world, b.camera.camera_from_world)
        np.testing.assert_array_equal(a.load().rgb, b.load().rgb)
    assert fingerprint_capture(local) == fingerprint_capture(remote)
    assert requests == Counter({f"thing/{name}": 1 for name in needed})


def test_masks_and_points_of_transforms_are_copied(store: str, requests, tmp_path: Path) -> None:
    root = write_transforms(tmp_path / "thing")
    write_pictures(root / "masks")
    write_splat(root)  # some .ply

    def refer(tree: dict) -> None:
        tree["ply_file_path"] = "point_cloud.ply"
        for frame in tree["frames"]:
            frame["mask_path"] = frame["file_path"].replace("images", "masks")

    edit_json(root / "transforms.json", refer)
    put_folder(root, f"{store}/thing")
    capture = open_capture(f"{store}/thing/transforms.json")
    assert capture.points is not None and capture.views[0].load().validity is not None
    assert "thing/masks/a.png" in requests and "thing/point_cloud.ply" in requests
    assert "thing/cameras.json" not in requests


def test_of_the_image_folders_the_one_that_is_read_is_copied(store: str, requests, tmp_path: Path) -> None:
    root = write_colmap(tmp_path / "thing")
    write_pictures(root / "images_2", 24, 16)
    write_pictures(root / "images_4", 12, 8)
    put_folder(root, f"{store}/thing")
    load_all(open_capture(f"{store}/thing", longest_side_px=20))
    assert {name for name in requests if "/images_2/" in name} == {f"thing/images_2/{name}" for name in NAMES}
    assert sum("/images/" in name or "/images_4/" in name for name in requests) == 2  # one of each, for their sizes


def test_of_large_photos_those_that_are_used_are_copied(store: str, requests, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(folder_cache, "SMALL_BYTES", 100)
    monkeypatch.setattr(folder_cache, "HEADER_BYTES", 60)
    root = write_transforms(tmp_path / "thing")
    put_folder(root, f"{store}/thing")
    local, remote = open_capture(root), open_capture(f"{store}/thing")
    photos = [f"thing/images/{name}" for name in NAMES]
    assert requests == Counter({"thing/transforms.json": 1} | {f"start of {name}": 1 for name in photos})
    fetch_photos(remote.views[:2])
    assert requests[photos[0]] == requests[photos[1]] == 1 and requests[photos[2]] == 0
    np.testing.assert_array_equal(remote.views[3].load().rgb, local.views[3].load().rgb)
    assert requests[photos[3]] == 1 and requests[photos[2]] == 0
    again = pickle.loads(pickle.dumps(remote.views[2]))
    np.testing.assert_array_equal(again.load().rgb, local.views[2].load().rgb)


def test_a_long_header_needs_the_whole_file(store: str, requests, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(folder_cache, "SMALL_BYTES", 100)
    monkeypatch.setattr(folder_cache, "HEADER_BYTES", 10)
    root = write_transforms(tmp_path / "thing")
    put_folder(root, f"{store}/thing")
    assert len(load_all(open_capture(f"{store}/thing"))) == 4
    assert requests["thing/images/a.png"] == 1


def test_a_splat_among_many_is_copied_alone(store: str, requests, tmp_path: Path) -> None:
    root = write_splat(tmp_path / "thing")
    for name in ("one.ply", "two.ply"):
        shutil.copy(root / "point_cloud.ply", root / name)
    put_folder(root, f"{store}/thing")
    assert open_capture(f"{store}/thing/one.ply").names == open_capture(root / "one.ply").names
    assert requests == Counter({"thing/one.ply": 1, "thing/cameras.json": 1})
    output = f"{store}/run/point_cloud/iteration_7"
    storage.write_bytes(f"{output}/point_cloud.ply", (root / "one.ply").read_bytes())
    storage.write_bytes(f"{store}/run/cameras.json", (root / "cameras.json").read_bytes())
    assert set(open_capture(f"{output}/point_cloud.ply").names) == set(NAMES)


def test_a_changed_capture_is_copied_anew(store: str, requests, tmp_path: Path) -> None:
    root = write_transforms(tmp_path / "thing")
    put_folder(root, f"{store}/thing")
    load_all(open_capture(f"{store}/thing"))
    load_all(open_capture(f"{store}/thing"))
    assert set(requests.values()) == {1}
    tree = json.loads((root / "transforms.json").read_text())
    storage.write_bytes(f"{store}/thing/transforms.json", json.dumps({**tree, "frames": tree["frames"][:3]}).encode())
    assert len(open_capture(f"{store}/thing").views) == 3


def test_errors_name_the_url(store: str) -> None:
    with pytest.raises(ValueError, match=rf"^{store}/nothing: no such file or folder"):
        open_capture(f"{store}/nothing")
    storage.write_bytes(f"{store}/bad/transforms.json", b"{")
    with pytest.raises(ValueError, match=rf"^{store}/bad/transforms\.json: not valid JSON"):
        open_capture(f"{store}/bad")
    storage.write_bytes(f"{store}/other/notes.txt", b"{")
    with pytest.raises(ValueError, match=rf"^{store}/other: no capture found; it contains notes\.txt"):
        open_capture(f"{store}/other")
