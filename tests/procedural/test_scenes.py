"""Procedural scenes: the seed determines all pixels, depth agrees with the photos, cameras see what they should."""

from __future__ import annotations

from collections import Counter

import numba
import numpy as np
import pytest

from splatfix.cameras import Camera
from splatfix.procedural.casting.bvh import build_bvh, cast_ray, make_stack
from splatfix.procedural.layouts import LAYOUTS
from splatfix.procedural.meshes import Mesh, make_box, make_cylinder, make_ellipsoid, make_torus
from splatfix.procedural.scene import Scene, build_scene, choose_layout

KINDS = {"object": 3, "room": 1, "front": 0, "garden": 10, "land": 13}  # a seed of each


@pytest.fixture(scope="module", params=KINDS)
def scene(request: pytest.FixtureRequest) -> Scene:
    scene = build_scene(KINDS[request.param])
    assert scene.kind == request.param
    return scene


def view(scene: Scene, index: int, size_px: int = 64) -> Camera:
    return scene.cameras[index].with_longest_side(size_px)


def test_all_layouts_occur_in_about_their_shares() -> None:
    counts = Counter(choose_layout(np.random.default_rng([1, seed, 0])) for seed in range(400))
    assert {kind: counts[kind] / 400 for kind in LAYOUTS} == pytest.approx(
        {kind: share for kind, (_, share) in LAYOUTS.items()}, abs=0.06
    )


@pytest.mark.parametrize("mesh", [make_box((1, 2, 3)), make_cylinder(0.5, 2), make_ellipsoid(), make_torus(1, 0.3)])
def test_meshes_are_closed_and_their_normals_point_outward(mesh: Mesh) -> None:
    areas = 0.5 * np.cross(mesh.corners[:, 1] - mesh.corners[:, 0], mesh.corners[:, 2] - mesh.corners[:, 0])
    assert np.abs(areas.sum(0)).max() < 1e-9  # of a closed surface (divergence theorem)
    volume = (mesh.corners[:, 0] * areas).sum() / 3
    assert volume > 0.1
    facing = (areas * mesh.normals.mean(1)).sum(1)
    assert (facing > -1e-9).mean() > 0.98


def test_the_hierarchy_finds_what_a_search_of_all_triangles_finds() -> None:
    rng = np.random.default_rng(0)
    corners = rng.normal(size=(300, 1, 3)) + 0.3 * rng.normal(size=(300, 3, 3))
    bounds, links, order = build_bvh(corners)
    sorted_ = corners[order].astype(np.float32)
    triangles = np.concatenate([sorted_[:, :1], sorted_[:, 1:] - sorted_[:, :1]], axis=1).reshape(-1, 9)
    everything = np.array([[-99, -99, -99, 99, 99, 99]], np.float32), np.array([[0, 300]], np.int32)
    stack, num_hits = make_stack(), 0
    for _ in range(200):
        origin, direction = 3 * rng.normal(size=3), rng.normal(size=3)
        ray = (*origin.tolist(), *(direction / np.linalg.norm(direction)).tolist(), 0.0, 1e9)
        found = cast_ray(bounds, links, triangles, stack, *ray, False)
        assert found == cast_ray(*everything, triangles, stack, *ray, False)
        assert (cast_ray(bounds, links, triangles, stack, *ray, True)[1] >= 0) == (found[1] >= 0)
        num_hits += found[1] >= 0
    assert 20 < num_hits < 180


def test_a_seed_determines_the_photos_for_any_number_of_threads() -> None:
    photo = build_scene(3).photograph(view(build_scene(3), 2))
    build_scene.cache_clear()
    threads = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        again = build_scene(3).photograph(view(build_scene(3), 2))
    finally:
        numba.set_num_threads(threads)
    assert np.array_equal(photo, again)
    assert photo.dtype == np.float32 and photo.min() >= 0 and photo.max() <= 1


def test_a_photo_does_not_depend_on_the_others() -> None:
    scene = build_scene(3)
    alone = scene.photograph(view(scene, 5))
    scene.photograph(view(scene, 6))
    assert np.array_equal(scene.photograph(view(scene, 5)), alone)


def test_depth_takes_the_pixels_of_one_view_to_another(scene: Scene) -> None:
    """Points of a view, moved by their depth, have the depth that the other view sees, and the same colors."""
    errors, num_visible = [], 0
    for first, second in ((0, 1), (8, 9)):
        a, b = view(scene, first), view(scene, second)
        depth_a, depth_b = scene.measure_depth(a), scene.measure_depth(b)
        rows, columns = np.nonzero(np.isfinite(depth_a))
        points = a.unproject(np.stack([columns, rows], axis=1) + 0.5, depth_a[rows, columns])
        pixels, depth = b.project(points)
        inside = b.sees(points)
        i, j = pixels[inside].astype(int).T[::-1]
        is_visible = np.abs(depth[inside] - depth_b[i, j]) < 0.03 * depth[inside]
        num_visible += int(is_visible.sum())
        colors_a = scene.photograph(a)[rows, columns][inside][is_visible]
        colors_b = scene.photograph(b)[i, j][is_visible]
        errors.append(np.abs(colors_a - colors_b).mean(1))
    assert num_visible > 500
    assert np.median(np.concatenate(errors)) < 0.06


def test_photos_are_exposed_and_have_texture(scene: Scene) -> None:
    assert len(scene.cameras) >= 20
    for index in (0, 10):
        photo = scene.photograph(view(scene, index))
        depth = scene.measure_depth(view(scene, index))
        assert 0.12 < photo.mean() < 0.85 and (photo > 0.98).all(2).mean() < 0.4
        gray = photo.mean(2)
        blocks = gray[: len(gray) // 8 * 8, :64].reshape(len(gray) // 8, 8, -1, 8).std(axis=(1, 3))
        assert (blocks > 0.006).mean() > 0.5  # but for the sky
        assert depth.min() > 0.05


def test_other_seeds_make_other_scenes() -> None:
    first, second = (build_scene(seed) for seed in (KINDS["garden"], KINDS["land"]))
    assert first.photograph(view(first, 0)).mean() != second.photograph(view(second, 0)).mean()
