"""Split, distance, bands and repair cameras."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from splatfix.captures import Capture, Photo, PhotoOptions, Points, View
from splatfix.files import write_json
from splatfix.views import (
    BANDS,
    Split,
    ViewsConfig,
    assign_bands,
    displace_camera,
    find_neighbor_pairs,
    interpolate_on_arc,
    make_split,
    place_repair_cameras,
    read_split,
    resolve_masks,
    resolve_size,
    scene_depth,
    select_farthest_views,
    view_distances,
)
from tests.test_cameras import camera_at


def ring(num=12, radius=4.0):
    return [
        camera_at((radius * np.sin(a), -1, radius * np.cos(a)), name=f"v{i:02d}.png")
        for i, a in enumerate(np.linspace(0, 2 * np.pi, num, endpoint=False))
    ]


def make_capture(cameras, points=None) -> Capture:
    def refuse() -> Photo:
        raise AssertionError("the choice of views must not look at pixels")

    return Capture("ring", Path("ring"), "colmap", tuple(View(c, refuse) for c in cameras), points)


def test_split_is_deterministic_and_disjoint_and_reads_no_pixels():
    capture = make_capture(ring())
    split = make_split(capture, ViewsConfig(num_train=4))
    assert split == make_split(capture, ViewsConfig(num_train=4))
    assert len(split.train_ids) == 4
    assert set(split.train_ids) | set(split.test_ids) == set(capture.names)
    assert not set(split.train_ids) & set(split.test_ids)


def test_farthest_views_spread_over_the_ring():
    chosen = [int(name[1:3]) for name in select_farthest_views(ring(), 4)]
    gaps = np.diff([*chosen, chosen[0] + 12])
    assert gaps.tolist() == [3, 3, 3, 3]


def test_max_test_keeps_the_nearest_and_the_farthest_test_view():
    cameras = ring(40)
    split = make_split(make_capture(cameras), ViewsConfig(num_train=3, max_test=7))
    assert len(split.test_ids) == 7
    training = [c for c in cameras if c.name in split.train_ids]
    distances = view_distances([c for c in cameras if c.name not in split.train_ids], training)
    chosen = [distances[name] for name in split.test_ids]
    assert min(chosen) == min(distances.values())
    assert max(chosen) == max(distances.values())


def test_copies_of_training_photos_are_not_tested_on(caplog):
    cameras = ring()
    copies = [replace(camera, name=f"copy_{camera.name}") for camera in cameras]
    capture = make_capture([*cameras, *copies])
    split = make_split(capture, ViewsConfig(num_train=4))
    trained = [capture.view(name).camera.center for name in split.train_ids]
    for name in split.test_ids:
        center = capture.view(name).camera.center
        assert min(np.linalg.norm(center - other) for other in trained) > 0.1
    assert len(split.test_ids) == 16
    assert "4 photos have the camera of a training photo" in caplog.text


def test_distance_equals_its_definition():
    a, b = camera_at((0, 0, -5), name="a"), camera_at((2, 0, -5), name="b")
    points = Points(np.zeros((1, 3)), np.zeros((1, 3), np.float32), (frozenset({"a"}),))
    depth = scene_depth([a], points)
    assert depth == pytest.approx(5)
    angle = np.arctan2(2, 5)
    assert view_distances([b], [a], points)["b"] == pytest.approx(np.hypot(2 / 5, angle))


def test_depth_without_points_is_the_distance_to_the_focus():
    assert scene_depth(ring()) == pytest.approx(np.sqrt(17))


@pytest.mark.parametrize("num", [0, 1, 2, 3, 4, 7, 24])
def test_bands_partition_the_views_in_order_of_distance(num):
    distances = {f"v{i:02d}": float((i * 7) % 5) for i in range(num)}
    bands = assign_bands(distances)
    assert bands.keys() == distances.keys()
    sizes = [sum(band == b for band in bands.values()) for b in BANDS]
    assert max(sizes) - min(sizes) <= 1
    order = [BANDS.index(bands[name]) for name in sorted(distances, key=lambda n: (distances[n], n))]
    assert order == sorted(order)


def test_split_file_is_read_and_checked(tmp_path):
    capture = make_capture(ring(4))
    path = tmp_path / "split.json"
    path.write_text(json.dumps({"train_ids": ["v00.png"], "test_ids": ["v01.png"], "size_px": 100}))
    assert make_split(capture, ViewsConfig(split=path)) == Split(("v00.png",), ("v01.png",), 100)
    for tree, words in (
        ({"train_ids": ["v00.png"]}, "test_ids = None: wanted a list"),
        ({"train_ids": [], "test_ids": ["v01.png"]}, "train_ids is empty"),
        ({"train_ids": ["v00.png"], "test_ids": ["v00.png"]}, "'v00.png' is in train_ids and in test_ids"),
        ({"train_ids": ["nope.png"], "test_ids": []}, "none of 4 views is named 'nope.png'"),
        ({"train_ids": ["v00.png"], "test_ids": [], "size_px": -1}, "size_px = -1"),
    ):
        path.write_text(json.dumps(tree))
        with pytest.raises(ValueError, match=words):
            read_split(path, capture)


def test_too_many_or_too_few_photos_are_errors():
    capture = make_capture(ring(6))
    with pytest.raises(ValueError, match="num_train = 6, but there are 6 photos"):
        make_split(capture, ViewsConfig(num_train=6))
    with pytest.raises(ValueError, match="num_train = 0"):
        make_split(capture, ViewsConfig(num_train=0))


def test_points_of_other_photos_are_not_admissible():
    tracks = (frozenset({"a", "b"}), frozenset({"a", "z"}), frozenset({"y", "z"}), frozenset({"a", "b", "z"}))
    points = Points(np.arange(12.0).reshape(4, 3), np.zeros((4, 3), np.float32), tracks)
    kept = points.admissible(["a", "b"])
    np.testing.assert_array_equal(kept.positions[:, 0], [0, 9])
    unknown = Points(points.positions, points.colors, None)
    assert len(unknown.admissible(["a", "b"])) == 0


def test_photos_from_one_place_test_nothing():
    cameras = [camera_at((4, 0, 0), name=f"{k}") for k in range(5)]
    capture = Capture("room", Path("room"), "colmap", tuple(View(camera, lambda: None) for camera in cameras))
    with pytest.raises(ValueError, match="all 3 other photos have the camera of a training photo"):
        make_split(capture, ViewsConfig(num_train=2))


def test_interpolation_on_an_arc_keeps_the_distance_to_the_target():
    a, b = camera_at((4, 0, 0), name="a"), camera_at((0, 0, 4), name="b")
    middle = interpolate_on_arc(a, b, 0.5, 4.0, "m")
    assert np.linalg.norm(middle.center) == pytest.approx(4)
    np.testing.assert_allclose(
        interpolate_on_arc(a, b, 0.0, 4.0, "m").camera_from_world, a.camera_from_world, atol=1e-9
    )


def test_a_displaced_camera_looks_at_the_same_point():
    camera = camera_at((0, 0, -5))
    moved = displace_camera(camera, 0.7, 1.5, 5.0, "m")
    assert np.linalg.norm(moved.center - camera.center) == pytest.approx(1.5)
    pixel, _ = moved.project(np.zeros((1, 3)))
    np.testing.assert_allclose(pixel[0], [32, 24], atol=1e-6)
    np.testing.assert_allclose(moved.rotation @ moved.rotation.T, np.eye(3), atol=1e-12)


def test_repair_cameras_come_from_training_cameras_alone_and_step_outwards():
    training = ring(6)
    depth = scene_depth(training)
    rounds = [
        place_repair_cameras(training, num=24, round_index=k, num_rounds=3, outward=0.5, depth=depth) for k in range(3)
    ]
    names = [camera.name for cameras in rounds for camera in cameras]
    assert len(set(names)) == len(names) == 72

    def off_ring(camera):  # distance from the circle of the training cameras
        x, y, z = camera.center
        return np.hypot(np.hypot(x, z) - 4, y + 1)

    spread = [float(np.median([off_ring(camera) for camera in cameras])) for cameras in rounds]
    assert spread[0] < spread[1] < spread[2]
    again = place_repair_cameras(training[::-1], num=24, round_index=1, num_rounds=3, outward=0.5, depth=depth)
    for one, other in zip(rounds[1], again, strict=True):
        np.testing.assert_array_equal(one.camera_from_world, other.camera_from_world)


def test_repair_cameras_of_a_single_photo_surround_it():
    cameras = place_repair_cameras(ring(1), num=3, round_index=0, num_rounds=2, outward=0.5, depth=4.0)
    assert all(np.linalg.norm(camera.center - ring(1)[0].center) > 0.1 for camera in cameras)


def test_neighbor_pairs_on_a_ring_are_adjacent():
    cameras = ring(6)
    assert set(find_neighbor_pairs(cameras, 4.0)) == {(i, i + 1) for i in range(5)} | {(0, 5)}


def test_the_size_in_a_split_file_is_used(tmp_path):
    path = tmp_path / "split.json"
    write_json(path, {"train_ids": ["a"], "test_ids": ["b"], "size_px": 64})
    assert resolve_size(ViewsConfig(split=path)).size_px == 64
    assert resolve_size(ViewsConfig(split=path, size_px=64)).size_px == 64
    with pytest.raises(ValueError, match=r"split.json: size_px = 64, but views.size_px = 96; leave views.size_px out"):
        resolve_size(ViewsConfig(split=path, size_px=96))
    write_json(path, {"train_ids": ["a"], "test_ids": ["b"]})
    assert resolve_size(ViewsConfig(split=path, size_px=96)).size_px == 96


def test_what_masks_mark_is_taken_from_a_split_file(tmp_path):
    path = tmp_path / "split.json"
    write_json(path, Split(("a",), ("b",), 64, "object").to_json())
    assert read_split(path) == Split(("a",), ("b",), 64, "object")
    for masks in ("auto", "object"):
        assert resolve_masks(ViewsConfig(split=path, masks=masks)).photo_options == PhotoOptions(masks="object")
    with pytest.raises(ValueError, match=r"split.json: masks = 'object', but views.masks = 'ignore'; leave"):
        resolve_masks(ViewsConfig(split=path, masks="ignore"))
    assert "masks" not in Split(("a",), ("b",)).to_json()
    write_json(path, {"train_ids": ["a"], "test_ids": ["b"]})
    config = ViewsConfig(split=path, masks="ignore")
    assert resolve_masks(config) == config
    write_json(path, {"train_ids": ["a"], "test_ids": ["b"], "masks": "people"})
    with pytest.raises(ValueError, match=r"split.json: masks = 'people': wanted one of auto, object, ignore"):
        read_split(path)
