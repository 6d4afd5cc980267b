"""What the benchmarks draw and fit: Gaussians of a real scene, and how much work they are."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from splatfix.cameras import Camera
from splatfix.captures import Capture, open_capture
from splatfix.gaussians import Gaussians
from splatfix.jit import kernel
from splatfix.rendering.cpu.lanes import LANES
from splatfix.rendering.cpu.tiles import BLOCKS, LOG2_255, LOG_OPACITY, TILE, U_X, U_Y, V_Y, X, Y
from splatfix.splats.initial_points import InitializationConfig, InitialPoints
from splatfix.splats.initialization import initialize_gaussians, nearest_distances

SCENE = "bonsai"  # of the development scenes (SPLATFIX_SCENES, default ../shared/scenes)


def scene_folder() -> Path | None:
    """The benchmark's capture, or None where the development scenes are not there."""
    root = Path(__file__).resolve().parents[2]
    folder = Path(os.environ.get("SPLATFIX_SCENES", root.parent / "shared" / "scenes")) / SCENE
    return folder if folder.is_dir() else None


def real_gaussians(capture: Capture, camera: Camera, num: int) -> Gaussians:
    """``num`` Gaussians that ``camera`` sees, as a fit of the scene starts.

    The scene's points in its view are repeated, with jitter of half the distance to their neighbours, until there are
    enough; each is as large as its distance to the three nearest. Opacities, stretch and turn are random.
    """
    random = np.random.default_rng(0)
    assert capture.points is not None
    positions = capture.points.positions.astype(np.float64)
    positions = positions[camera.sees(positions)]
    spacing = nearest_distances(np.ascontiguousarray(positions))
    which = np.arange(num) % len(positions)
    again = (np.arange(num) >= len(positions))[:, None]
    jitter = random.normal(size=(num, 3)) * (0.5 * np.nan_to_num(spacing)[which])[:, None]
    points = InitialPoints(
        positions=positions[which] + np.where(again, jitter, 0),
        colors=random.random((num, 3), np.float32),
        sources=np.zeros(num, np.int64),
        depth_scale=1.0,
        baselines=None,
        notes=(),
    )
    made = initialize_gaussians(points, InitializationConfig())
    opacities = torch.from_numpy(random.normal(0, 1.5, num).astype(np.float32))
    stretched = torch.from_numpy(random.normal(0, 0.5, (num, 3)).astype(np.float32))
    turned = torch.from_numpy(random.normal(size=(num, 4)).astype(np.float32))
    waves = torch.from_numpy(random.normal(0, 0.1, (num, 15, 3)).astype(np.float32))
    return replace(made, opacity_logits=opacities, log_scales=made.log_scales + stretched, quats=turned, sh_rest=waves)


def square_camera(capture: Capture, size_px: int) -> Camera:
    """The middle view of the capture as a square of ``size_px``, as wide as the photo."""
    camera = capture.views[len(capture.views) // 2].camera
    k = camera.intrinsics * (size_px / camera.width_px)
    k[:2, 2], k[2, 2] = size_px / 2, 1
    return Camera("bench", size_px, size_px, k, camera.camera_from_world)


@kernel()
def count_blends(records, entries, starts, width, height):
    """Blends (pairs of a Gaussian and a pixel at which it counts) and blocks that a front-to-back rasterizer draws."""
    tiles_x = (width + TILE - 1) // TILE
    blends, blocks = 0, 0
    for tile in range(len(starts) - 1):
        through = np.ones((BLOCKS, LANES), np.float64)
        for e in range(starts[tile], starts[tile + 1]):
            record = records[entries[e] >> np.uint64(BLOCKS)]
            for block in range(BLOCKS):
                if not (entries[e] >> np.uint64(block)) & np.uint64(1) or through[block].max() <= 0:
                    continue
                blocks += 1
                for lane in range(LANES):
                    column = tile % tiles_x * TILE + block % 4 * 4 + lane % 4
                    row = tile // tiles_x * TILE + block // 4 * 4 + lane // 4
                    dx, dy = column + 0.5 - record[X], row + 0.5 - record[Y]
                    u, v = record[U_X] * dx + record[U_Y] * dy, record[V_Y] * dy
                    power = record[LOG_OPACITY] - u * u - v * v
                    if power < -LOG2_255 or through[block, lane] <= 0 or column >= width or row >= height:
                        continue
                    after = through[block, lane] * (1 - min(2**power, 0.999))
                    through[block, lane] = after if after > 1e-4 else 0
                    blends += after > 1e-4
    return blends, blocks


def open_scene(size_px: int) -> Capture | None:
    """The benchmark's capture, or None where it is not there."""
    folder = scene_folder()
    return None if folder is None else open_capture(folder, longest_side_px=size_px)
