"""Dense stereo and descriptor matches on a device, beside those of the CPU: a scene, how they differ, and seconds.

Imports torch and numpy; the functions that compare need numba for the CPU kernels.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache, partial
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from numpy import ndarray

from splatfix.cameras import Camera
from tests.splats.textured import camera, photograph, quads

DEPTH_RANGE = (1.5, 8.0)
NUM_DESCRIPTORS = 4096


@dataclass(frozen=True)
class StereoScene:
    """A photo, its three neighbors and their cameras."""

    cameras: list[Camera]
    photos: list[ndarray]


@cache
def make_scene(width_px: int, height_px: int) -> StereoScene:
    """Photograph a textured wall with a board before it, from four places."""
    cameras = [camera(*place).resize(width_px, height_px) for place in ((-0.5,), (0.0, 0.2), (0.5,), (0.2, -0.3))]
    surfaces = quads(_make_texture)
    return StereoScene(cameras, [photograph(each, surfaces)[0] for each in cameras])


def _make_texture(size: int, seed: int) -> ndarray:
    """Noise at five scales, ``[size, size, 3]`` in [0, 1]; without scipy."""
    generator = torch.Generator().manual_seed(seed)
    layers = [
        F.interpolate(torch.randn((1, 3, size >> k, size >> k), generator=generator), size=(size, size), mode="bicubic")
        for k in range(1, 6)
    ]
    total = torch.stack(layers).sum(0)[0].permute(1, 2, 0)
    return (0.5 + 0.2 * total / total.std()).clamp(0, 1).numpy().astype(np.float64)


def match_first_photo(scene: StereoScene, kernels: Any, device: torch.device) -> ndarray:
    """Compute the depth map of the first photo with the kernels of `cpu` or `torch_sweep`."""
    from splatfix.splats.stereo import plane_sweep
    from splatfix.splats.stereo.config import StereoConfig

    grays = [np.ascontiguousarray(photo @ plane_sweep.GRAY_WEIGHTS - 0.5, np.float32) for photo in scene.photos]
    valid = [np.ones(gray.shape, bool) for gray in grays]
    with patch.dict(plane_sweep.KERNELS, {device.type: kernels}):
        return plane_sweep._match_photo(0, [1, 2, 3], scene.cameras, grays, valid, DEPTH_RANGE, StereoConfig(), device)


def compare_stereo(device: str, width_px: int, height_px: int) -> dict[str, Any]:
    """Match a photo with torch on the device and with the CPU kernels: seconds, memory, and shares that differ."""
    from splatfix.splats.stereo import cpu, torch_sweep

    scene, cuda = make_scene(width_px, height_px), device != "cpu"
    for kernels, place in ((cpu, "cpu"), (torch_sweep, device)):  # compiles, and loads CUDA's kernels
        match_first_photo(make_scene(64, 48), kernels, torch.device(place))
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    found = match_first_photo(scene, torch_sweep, torch.device(device))
    seconds = time.perf_counter() - start
    peak = torch.cuda.max_memory_allocated() / 1e9 if cuda else None
    start = time.perf_counter()
    wanted = match_first_photo(scene, cpu, torch.device("cpu"))
    both = (found > 0) & (wanted > 0)
    return {
        "stereo": f"{width_px} x {height_px}",
        "seconds": seconds,
        "cpu_seconds": time.perf_counter() - start,
        "peak_gb": peak,
        "matched": float((wanted > 0).mean()),
        "masks_differ": float(((found > 0) != (wanted > 0)).mean()),
        "depths_differ": float((both & (np.abs(found - wanted) > 0.01 * wanted)).mean()),
    }


def compare_matches(device: str) -> dict[str, Any]:
    """Match noisy descriptors on the device and on the CPU: seconds, and pairs that one of them alone has."""
    from splatfix.splats import triangulate

    random = np.random.default_rng(0)
    a = random.random((NUM_DESCRIPTORS, 128)).astype(np.float32)
    a[: NUM_DESCRIPTORS // 8] = a[-(NUM_DESCRIPTORS // 8) :]  # twice in a photo
    b = random.permutation(a) + random.normal(0, 0.15, a.shape).astype(np.float32)
    a, b = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (a, b))
    with_torch = partial(triangulate._find_two_nearest_with_torch, device=device)
    seconds, pairs = [], []
    for find in (triangulate._find_two_nearest, with_torch):
        with patch.object(triangulate, "_find_two_nearest", find):
            triangulate.match_descriptors(a[:64], b[:64], 0.8)
            start = time.perf_counter()
            pairs.append(triangulate.match_descriptors(a, b, 0.8)[0])
            seconds.append(time.perf_counter() - start)
    wanted, found = (set(map(tuple, each.tolist())) for each in pairs)
    return {
        "matches": f"{NUM_DESCRIPTORS} descriptors",
        "seconds": seconds[1],
        "cpu_seconds": seconds[0],
        "matched": len(wanted) / NUM_DESCRIPTORS,
        "pairs_differ": len(wanted ^ found) / len(wanted),
    }
