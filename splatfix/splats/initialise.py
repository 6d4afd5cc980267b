"""Where the Gaussians of a fit start (interim: admissible points and random ones)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from splatfix.cameras import Camera, focus_point
from splatfix.captures.capture import Points
from splatfix.gaussians import SH_C0, Gaussians


@dataclass(frozen=True, kw_only=True)
class InitialiseConfig:
    """Where the Gaussians start."""

    sources: tuple[str, ...] = ("auto",)
    num_random: int = 1000
    num_stereo: int = 0
    initial_opacity: float = 0.1
    scale_factor: float = 1.0
    sh_degree: int = 1


@dataclass(frozen=True, eq=False)
class InitialPoints:
    """Points and their colours."""

    positions: np.ndarray
    colors: np.ndarray


def initial_points(cameras: Sequence[Camera], photos, masks, points: Points | None, config, rng) -> InitialPoints:
    names = [camera.name for camera in cameras]
    known = points.admissible(names) if points is not None else None
    if known is not None and len(known) > 20:
        depths = np.concatenate([c.project(known.positions)[1][c.sees(known.positions)] for c in cameras])
        low, high = np.percentile(depths, [5, 95]) * [0.7, 1.4]
    else:
        focus = focus_point(cameras)
        depth = float(np.median([np.linalg.norm(c.centre - focus) for c in cameras]))
        low, high = 0.5 * depth, 1.8 * depth
    found, colors = [], []
    tries = 0
    while len(found) < config.num_random and tries < 100:
        tries += 1
        which = int(rng.integers(len(cameras)))
        camera = cameras[which]
        pixels = rng.random((256, 2)) * [camera.width_px, camera.height_px]
        depth = 1 / rng.uniform(1 / high, 1 / low, 256)
        world = camera.unproject(pixels, depth)
        keep = np.sum([c.sees(world) for c in cameras], axis=0) >= min(2, len(cameras))
        for c, mask in zip(cameras, masks, strict=True):
            if mask is None:
                continue
            uv, _ = c.project(world)
            inside = c.sees(world)
            uv = np.nan_to_num(uv)
            x = np.clip(uv[:, 0].astype(int), 0, c.width_px - 1)
            y = np.clip(uv[:, 1].astype(int), 0, c.height_px - 1)
            keep &= ~inside | (mask[y, x] > 0.5)
        xy = pixels.astype(int)
        found.extend(world[keep])
        colors.extend(photos[which][xy[keep, 1], xy[keep, 0]])
    positions = np.array(found[: config.num_random]).reshape(-1, 3)
    colors = np.array(colors[: config.num_random], np.float32).reshape(-1, 3)
    if known is not None and len(known):
        positions = np.concatenate([known.positions, positions])
        colors = np.concatenate([known.colors, colors])
    return InitialPoints(positions, colors)


def initialise(points: InitialPoints, config: InitialiseConfig, device: torch.device) -> Gaussians:
    from scipy.spatial import cKDTree

    n = len(points.positions)
    distance = cKDTree(points.positions).query(points.positions, min(4, n))[0][:, 1:].mean(1)
    distance = np.clip(distance, 1e-7, np.percentile(distance, 95)) * config.scale_factor

    def tensor(values) -> torch.Tensor:
        return torch.tensor(np.asarray(values), dtype=torch.float32, device=device)

    rest = (config.sh_degree + 1) ** 2 - 1
    logit = float(np.log(config.initial_opacity / (1 - config.initial_opacity)))
    return Gaussians(
        tensor(points.positions),
        tensor(np.log(distance))[:, None].repeat(1, 3),
        tensor(np.tile([1.0, 0, 0, 0], (n, 1))),
        torch.full((n,), logit, device=device),
        tensor((points.colors - 0.5) / SH_C0)[:, None, :],
        torch.zeros(n, rest, 3, device=device),
    )
