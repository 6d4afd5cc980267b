"""Plane-sweep stereo with torch, as on CUDA, against the CPU kernels: on CPU tensors, in tiles, and its memory.

Each comparison states what was measured, and allows more: other processors round otherwise.
"""

import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from splatfix.captures import open_capture
from splatfix.sample import sample_path
from splatfix.splats.hull import depth_ranges
from splatfix.splats.stereo import cpu, plane_sweep, torch_sweep
from splatfix.splats.stereo.config import StereoConfig
from splatfix.splats.stereo.plane_sweep import StereoPoints, find_stereo_points
from tests.splats.textured import camera, photograph

CAMERAS = [camera(-0.5), camera(0.0, 0.2), camera(0.5)]
RANGES = [(1.5, 8.0)] * 3
CONFIG = StereoConfig()
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Difference:
    """How two results differ: shares of all pixels, and of the points of either.

    Attributes:
        masks: pixels that have a depth in one of the depth maps alone.
        depths: pixels with a depth in both that differs by more than 1 %.
        points: pixels with a point in one of the results alone.
    """

    masks: float
    depths: float
    points: float


def compare(monkeypatch, *arguments) -> tuple[Difference, StereoPoints]:
    """Run `find_stereo_points` with the kernels of each device, all on the CPU; the points are those of torch."""
    maps, found = {}, {}
    for kernels in (cpu, torch_sweep):
        maps[kernels] = []

        def match(*inputs, kernels=kernels, original=kernels.compute_depth_map):
            maps[kernels].append(original(*inputs))
            return maps[kernels][-1]

        with monkeypatch.context() as patch:
            patch.setattr(kernels, "compute_depth_map", match)
            patch.setitem(plane_sweep.KERNELS, "cpu", kernels)
            found[kernels] = find_stereo_points(*arguments, CONFIG)
    ours, theirs = (np.concatenate([each.ravel() for each in maps[kernels]]) for kernels in (torch_sweep, cpu))
    both = (ours > 0) & (theirs > 0)
    depths = np.abs(ours - theirs) > 0.01 * theirs
    pixels = [set(zip(f.view.tolist(), *f.pixels.T.tolist(), strict=True)) for f in (found[torch_sweep], found[cpu])]
    differ = len(pixels[0] ^ pixels[1]) / max(len(pixels[0] | pixels[1]), 1)
    masks = (ours > 0) != (theirs > 0)
    return Difference(float(masks.mean()), float((both & depths).mean()), differ), found[torch_sweep]


def check_small(difference: Difference) -> None:
    assert difference.masks < 1e-3
    assert difference.depths < 1e-3
    assert difference.points < 2e-3


@pytest.mark.slow
def test_a_synthetic_scene_gives_the_same_depths_and_points(monkeypatch):
    """Measured: no pixel and no point differs."""
    photos = [photograph(each)[0] for each in CAMERAS]
    difference, points = compare(monkeypatch, CAMERAS, photos, [None] * 3, RANGES)
    assert points.coverage > 0.4
    check_small(difference)


@pytest.mark.slow
def test_photos_of_unequal_size_with_masks_give_the_same(monkeypatch):
    """Measured: no pixel and no point differs."""
    cameras = [CAMERAS[0], CAMERAS[1].resize(64, 48), CAMERAS[2]]
    photos, _, boards = zip(*map(photograph, cameras), strict=True)
    masks = [boards[0].astype(np.float32), None, boards[2].astype(np.float32)]
    difference, points = compare(monkeypatch, cameras, photos, masks, RANGES)
    assert len(points) > 200
    check_small(difference)


def test_the_sample_capture_gives_the_same_depths_and_points(monkeypatch):
    """Measured: no pixel and no point differs; nor at 160 px with four photos, where there are 19,104 points."""
    views = open_capture(sample_path(), longest_side_px=112).views[:3]
    photos, cameras = [view.load() for view in views], [view.camera for view in views]
    ranges = depth_ranges(cameras, np.zeros((0, 3)))
    images, masks = [photo.rgb for photo in photos], [photo.mask for photo in photos]
    difference, points = compare(monkeypatch, cameras, images, masks, ranges)
    assert len(points) > 1000
    check_small(difference)


def test_photos_without_texture_have_no_depth(monkeypatch):
    black = np.zeros((40, 50, 3), np.float32)
    cameras = [each.resize(50, 40) for each in CAMERAS]
    difference, points = compare(monkeypatch, cameras, [black] * 3, [None] * 3, RANGES)
    assert len(points) == 0
    assert difference == Difference(0, 0, 0)


def test_tiles_change_nothing(monkeypatch):
    """One plane, one row and one point at a time."""
    cameras = [each.resize(48, 36) for each in CAMERAS]
    photos = [photograph(each)[0] for each in cameras]
    monkeypatch.setitem(plane_sweep.KERNELS, "cpu", torch_sweep)
    whole = find_stereo_points(cameras, photos, [None] * 3, RANGES, CONFIG)
    monkeypatch.setattr(torch_sweep, "BUDGET_BYTES", 40 * torch_sweep.VOTE_BYTES)
    tiled = find_stereo_points(cameras, photos, [None] * 3, RANGES, CONFIG)
    assert len(whole) > 100
    for name, values in vars(whole).items():
        np.testing.assert_array_equal(getattr(tiled, name), values)


def test_votes_are_those_of_the_cpu_kernel():
    depth_map = np.zeros((6, 6), np.float32)
    depth_map[2:4, 2:4] = 2.0
    depth_map[5, 5] = 3.0
    pixels = np.array(
        [[3.0, 3.0], [3.0, 3.0], [3.0, 3.0], [0.5, 0.5], [-9e9, 99.0], [6.2, 6.2], [3.0, 3.0], [4.6, 4.6]]
    )
    depths = np.array([2.01, 1.5, 3.0, 2.0, 2.0, 3.0, -2.0, 2.5])
    wanted = cpu.compare_depths(pixels, depths, depth_map, 0.015)
    u, v, z = (torch.from_numpy(each.astype(np.float32)) for each in (*pixels.T, depths))
    confirms, contradicts = torch_sweep.compare_depths(u, v, z, torch.from_numpy(depth_map), 0.015)
    np.testing.assert_array_equal(confirms.numpy().astype(int) - contradicts.numpy(), wanted)
    assert set(wanted.tolist()) == {-1, 0, 1}


def test_votes_far_from_the_origin_are_those_of_the_cpu():
    """As far as map coordinates: float32 has no digits left there. Measured: no vote differs."""
    offset = np.array([5e5, 5e6, -1e5])
    positions = np.random.default_rng(0).uniform([-2, -2, -1.5], [2, 2, 0.1], (2000, 3)) + offset
    cameras, depth_maps = [], []
    for each in CAMERAS:
        pose = each.camera_from_world.copy()
        pose[:3, 3] -= each.rotation @ offset
        cameras.append(replace(each, camera_from_world=pose))
        depth_maps.append(photograph(each)[1].astype(np.float32))
    wanted = cpu.count_votes(positions, cameras, depth_maps, 0.05, CPU)
    found = torch_sweep.count_votes(positions, cameras, depth_maps, 0.05, CPU)
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.dtype == theirs.dtype
        assert (ours != theirs).mean() < 2e-3
        assert theirs.max() >= 2


def test_flat_peaks_and_rivals_are_judged_as_by_the_cpu_kernel():
    """Scores of few values, so that many are equal; random costs put the lowest anywhere."""
    random = np.random.default_rng(0)
    scores = (random.integers(0, 6, (30, 40, 12)) / 5).astype(np.float32)
    costs = random.random(scores.shape, np.float32)
    for uniqueness in (0.7, 1.5, 9.0):
        wanted = cpu.select_planes(scores, costs, 0.5, uniqueness)
        found = torch_sweep.select_planes(torch.from_numpy(scores), torch.from_numpy(costs), 0.5, uniqueness)
        np.testing.assert_allclose(found.numpy(), wanted, atol=1e-6)
        assert (wanted > 0).any()


class PeakMemory(TorchDispatchMode):
    """Tracks the bytes of all tensors that operations make, without inputs from outside: the most at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self._add((args, kwargs), counts=False)
        made = func(*args, **(kwargs or {}))
        self._add(made, counts=True)
        self.peak = max(self.peak, sum(self._sizes.values()))
        return made

    def _add(self, tree: object, *, counts: bool) -> None:
        for tensor in tree_flatten(tree)[0]:
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in self._sizes:
                storage = tensor.untyped_storage()
                self._sizes[storage._cdata] = storage.nbytes() if counts else 0
                weakref.finalize(storage, self._sizes.pop, storage._cdata)


def peak_bytes(action: Callable[[], object]) -> int:
    with PeakMemory() as memory:
        action()
    return memory.peak


@pytest.mark.slow
def test_memory_is_within_the_budget(monkeypatch):
    """Two volumes, padded photos and lines beside it."""
    rows, columns, planes, points = 60, 80, 40, 20_000
    random = torch.Generator().manual_seed(0)
    photos = torch.rand((4, rows, columns), generator=random)
    inside = torch.ones((4, rows, columns), dtype=torch.bool)
    warps = np.stack([np.concatenate([np.eye(3), [[5.0], [0], [0]]], 1)] * 3)
    budget = 10 * torch_sweep.SWEEP_BYTES * rows * columns
    monkeypatch.setattr(torch_sweep, "BUDGET_BYTES", budget)
    inverse_depths = torch.linspace(0.1, 0.9, planes)
    sweep = (photos[0], inside[0], photos[1:], inside[1:], warps, inverse_depths, [3, 5], 1e-6)
    scores = torch_sweep.sweep_planes(*sweep)
    volume, photo = scores.nbytes, 5 * 3 * rows * columns + 5 * 3 * columns
    assert budget / 2 < peak_bytes(lambda: torch_sweep.sweep_planes(*sweep)) - volume < budget + photo
    costs = torch_sweep.smooth_costs(scores, 0.06, 0.24)
    lines = 8 * 2 * columns * planes * 4
    assert peak_bytes(lambda: torch_sweep.smooth_costs(scores, 0.06, 0.24)) < volume + lines
    monkeypatch.setattr(torch_sweep, "BUDGET_BYTES", volume)
    image = 4 * rows * columns
    select = peak_bytes(lambda: torch_sweep.select_planes(scores, costs, 0.75, 0.7))
    assert volume / 2 < select < volume + image
    depth_maps = [photo.numpy() for photo in photos[:3]]
    positions = np.random.default_rng(0).normal(size=(points, 3))
    monkeypatch.setattr(torch_sweep, "BUDGET_BYTES", torch_sweep.VOTE_BYTES * points // 3)
    beside = points * (3 * 4 + 2 * 8) + 3 * image
    votes = peak_bytes(lambda: torch_sweep.count_votes(positions, CAMERAS, depth_maps, 0.015, CPU))
    assert votes < torch_sweep.BUDGET_BYTES + beside
