"""Find dense points from the chosen photos alone, by plane-sweep stereo with strict checks.

Each photo in turn is the reference: its neighbors are warped onto planes of constant depth and compared by zero-mean
normalized cross-correlation (ZNCC). A depth is kept if the match is good and unique, and the depth map of another photo
agrees. For photos close together this is the best initialization of a sparse fit. For photos 40 degrees apart few
depths are kept; `StereoPoints.coverage` is their share.

Collins 1996 (plane sweep); Hirschmueller 2008 (semi-global matching); Schoenberger et al. 2016 (checks across views).
This module prepares the photos and fuses their depth maps. Only `compute_depth_map` and `count_votes` depend on the
device: those of `cpu` and `torch_sweep` are the same algorithm, and `KERNELS` has the module of each kind of device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import torch
from numpy import ndarray

from splatfix.cameras import Camera
from splatfix.shapes import Bool, Float, Int
from splatfix.splats.hull import find_valid, is_in_hull, neighbor_angles_deg
from splatfix.splats.stereo import cpu, torch_sweep
from splatfix.splats.stereo.config import StereoConfig
from splatfix.splats.triangulate import GRAY_WEIGHTS

KERNELS: dict[str, ModuleType] = {"cpu": cpu, "cuda": torch_sweep}  # by the kind of the device of a fit


@dataclass(frozen=True, eq=False)
class StereoPoints:
    """Dense points: one per pixel whose depth passed the checks.

    Attributes:
        positions: world coordinates, float64 ``[P, 3]``.
        view: index of the reference photo, ``[P]``.
        pixels: column and row in that photo, ``[P, 2]``.
        num_agreeing: number of other photos whose depth agrees, ``[P]``.
        coverage: share of the (masked) pixels of all photos that have such a depth.
    """

    positions: Float[ndarray, "P 3"]
    view: Int[ndarray, " P"]
    pixels: Int[ndarray, "P 2"]
    num_agreeing: Int[ndarray, " P"]
    coverage: float

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def overlap(self) -> float:
        """Share of the (masked) pixels of all photos that have a depth which another photo agrees on."""
        return self.coverage * float((self.num_agreeing > 0).mean()) if len(self) else 0.0

    def select(self, keep: Bool[ndarray, " P"]) -> StereoPoints:
        """Keep some of the points; the coverage falls with their number."""
        share = float(keep.mean()) if len(keep) else 1.0
        return StereoPoints(
            self.positions[keep], self.view[keep], self.pixels[keep], self.num_agreeing[keep], share * self.coverage
        )

    def sample_colors(
        self, indices: Int[ndarray, " M"], photos: Sequence[Float[ndarray, "_ _ 3"]]
    ) -> Float[ndarray, "M 3"]:
        """Sample the colors of some of the points, each from the photo that it was found in."""
        column, row = self.pixels[indices].T
        colors = np.zeros((len(indices), 3), np.float32)
        for index, photo in enumerate(photos):
            from_photo = self.view[indices] == index
            colors[from_photo] = photo[row[from_photo], column[from_photo]]
        return colors


def find_stereo_points(
    cameras: Sequence[Camera],
    photos: Sequence[Float[ndarray, "_ _ 3"]],
    masks: Sequence[Float[ndarray, "_ _"] | None],
    depth_ranges: Sequence[tuple[float, float]],
    config: StereoConfig,
    *,
    validities: Sequence[Float[ndarray, "_ _"] | None] | None = None,
    device: torch.device | str = "cpu",
) -> StereoPoints:
    """Find points at the pixels whose depth other photos agree on.

    Args:
        cameras: at least two, in the order of the photos.
        photos: sRGB in [0, 1], each ``[H, W, 3]`` with the size of its camera.
        masks: 1 on the object, ``[H, W]``; only these pixels are matched. None matches all pixels.
        depth_ranges: nearest and farthest depth to search per photo, in world units.
        validities: 0 where a photo is ignored, ``[H, W]``, which is not matched; None matches all pixels.
        device: of the fit; it matches the photos and compares their depth maps.

    Raises:
        ValueError: fewer than two cameras, or a depth range that is not positive and rising.
    """
    if len(cameras) < 2:
        raise ValueError(f"stereo from {len(cameras)} photo(s); wanted at least 2")
    for camera, (low, high) in zip(cameras, depth_ranges, strict=True):
        if not 0 < low < high < np.inf:
            raise ValueError(f"{camera.name}: depth range {low:.4g} to {high:.4g}; wanted 0 < nearest < farthest")
    middle_depths = [float(np.sqrt(low * high)) for low, high in depth_ranges]
    valid = [
        find_valid(photo, validity) if mask is None else (mask > 0.5) & find_valid(photo, validity)
        for photo, mask, validity in zip(photos, masks, validities or [None] * len(photos), strict=True)
    ]
    grays = [np.ascontiguousarray(photo @ GRAY_WEIGHTS - 0.5, np.float32) for photo in photos]
    device, depth_maps = torch.device(device), []
    for index, depth_range in enumerate(depth_ranges):
        neighbors = select_neighbors(cameras, index, middle_depths[index], config)
        depth_maps.append(_match_photo(index, neighbors, cameras, grays, valid, depth_range, config, device))
    num_valid = sum(int(each.sum()) for each in valid)
    return _fuse_depth_maps(cameras, depth_maps, masks, num_valid, config, device)


def select_neighbors(cameras: Sequence[Camera], index: int, depth: float, config: StereoConfig) -> list[int]:
    """Select the photos to compare a photo with: those at the smallest angles (at ``depth``) above 0.3 degrees."""
    angles = neighbor_angles_deg(cameras, depth)[index]
    order = [int(i) for i in np.argsort(angles, kind="stable")]
    return [i for i in order if 0.3 < angles[i] <= config.max_neighbour_angle_deg][: config.num_neighbours]


def thin_points(points: StereoPoints, num: int, rng: np.random.Generator) -> Int[ndarray, " M"]:
    """Select about ``num`` points, spread evenly over the surfaces that the photos see; returns their indices.

    Points are sampled systematically along a Z-order curve through each photo. A point that k other photos agree on has
    the weight 1 / (1 + k), because k + 1 photos have points on its surface.
    """
    if len(points) <= num:
        return np.arange(len(points))
    if num < 1:
        return np.zeros(0, int)
    order = np.lexsort((_morton_codes(points.pixels), points.view))
    cumulative = np.cumsum(1.0 / (1 + points.num_agreeing[order]))
    samples = (np.arange(num) + rng.random()) * (cumulative[-1] / num)
    return np.sort(np.unique(order[np.minimum(np.searchsorted(cumulative, samples), len(order) - 1)]))


def _match_photo(
    index: int,
    neighbors: Sequence[int],
    cameras: Sequence[Camera],
    grays: Sequence[ndarray],
    valid: Sequence[ndarray],
    depth_range: tuple[float, float],
    config: StereoConfig,
    device: torch.device,
) -> Float[ndarray, "H W"]:
    """Compute the depth map of one photo: 0 where the match with its neighbors is not good and unique."""
    if not neighbors:
        return np.zeros(grays[index].shape, np.float32)
    inverse_depths = np.linspace(1 / depth_range[1], 1 / depth_range[0], config.num_planes)
    warps = np.stack([_plane_warp(cameras[index], cameras[i]) for i in neighbors])
    tallest = max(grays[i].shape[0] for i in neighbors)
    widest = max(grays[i].shape[1] for i in neighbors)
    images = np.zeros((len(neighbors), tallest, widest), np.float32)
    inside = np.zeros((len(neighbors), tallest, widest), bool)
    for k, i in enumerate(neighbors):
        images[k, : grays[i].shape[0], : grays[i].shape[1]] = grays[i]
        inside[k, : grays[i].shape[0], : grays[i].shape[1]] = valid[i]
    match = KERNELS[device.type].compute_depth_map
    return match(grays[index], valid[index], images, inside, warps, inverse_depths, config, device)


def _plane_warp(reference: Camera, other: Camera) -> Float[ndarray, "3 4"]:
    """Compute ``[A | b]``: reference pixel x at inverse depth w is at ``A (x, 1) + w b`` (homogeneous) in the other."""
    relative = other.camera_from_world @ reference.world_from_camera
    a = other.intrinsics @ relative[:3, :3] @ np.linalg.inv(reference.intrinsics)
    return np.concatenate([a, (other.intrinsics @ relative[:3, 3])[:, None]], axis=1)


def _fuse_depth_maps(
    cameras: Sequence[Camera],
    depth_maps: Sequence[ndarray],
    masks: Sequence[ndarray | None],
    num_valid: int,
    config: StereoConfig,
    device: torch.device,
) -> StereoPoints:
    """Keep the depths that more photos confirm than contradict (by seeing through the point), inside all masks."""
    positions, view, pixels, agreeing = [], [], [], []
    for index, camera in enumerate(cameras):
        row, column = np.nonzero(depth_maps[index] > 0)
        world = camera.unproject(np.stack([column, row], 1) + 0.5, depth_maps[index][row, column].astype(np.float64))
        others = [other for other in range(len(cameras)) if other != index]
        confirming, contradicting = KERNELS[device.type].count_votes(
            *(world, [cameras[other] for other in others], [depth_maps[other] for other in others]),
            *(config.max_disagreement, device),
        )
        keep = (confirming >= config.min_agreeing) & (confirming > contradicting)
        keep[keep] = is_in_hull(world[keep], cameras, masks, margin_px=0)
        positions.append(world[keep])
        view.append(np.full(keep.sum(), index))
        pixels.append(np.stack([column, row], 1)[keep])
        agreeing.append(confirming[keep])
    count = sum(len(each) for each in positions)
    return StereoPoints(
        np.concatenate(positions),
        np.concatenate(view),
        np.concatenate(pixels),
        np.concatenate(agreeing),
        count / max(num_valid, 1),
    )


def _morton_codes(pixels: Int[ndarray, "P 2"]) -> Int[ndarray, " P"]:
    """Compute positions of pixels along a Z-order curve (interleaved bits of column and row; Morton 1966)."""
    code = np.zeros(len(pixels), np.int64)
    for bit in range(14):
        code |= ((pixels[:, 0].astype(np.int64) >> bit) & 1) << (2 * bit)
        code |= ((pixels[:, 1].astype(np.int64) >> bit) & 1) << (2 * bit + 1)
    return code
