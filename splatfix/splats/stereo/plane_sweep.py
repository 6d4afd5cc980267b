"""Dense points from the chosen photos alone: plane-sweep stereo with strict checks.

Each photo in turn is the reference: its neighbours are warped onto planes of constant depth and compared by zero-mean
normalised cross-correlation (ZNCC). A depth stays where the match is good and unique, and where another photo's own
depth map agrees. Where photos stand close this is the best start a sparse fit can have; where they stand 40 degrees
apart little survives, and the share that survives (`StereoPoints.coverage`) says so.

Collins 1996 (plane sweep); Hirschmueller 2008 (semi-global matching); Schoenberger et al. 2016 (checks across views).
The kernels are in `splatfix.splats.stereo.cpu`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from splatfix.cameras import Camera
from splatfix.shapes import Float, Int
from splatfix.splats.hull import in_hull, neighbour_angles_deg
from splatfix.splats.stereo.cpu import agreement, best_planes, smoothed, supported, swept
from splatfix.splats.triangulate import GREY


@dataclass(frozen=True, kw_only=True)
class StereoConfig:
    """How depth is found and what survives.

    Attributes:
        num_neighbours: photos that each reference is compared with, nearest first.
        max_neighbour_angle_deg: neighbours whose rays to the scene differ by more are left out, in degrees.
        num_planes: planes per reference, evenly spaced in inverse depth.
        windows_px: sides of the two square ZNCC windows, in pixels (odd); their scores are averaged.
        smoothness: penalty for a step of one plane between pixels, in units of ZNCC; larger steps cost four times it.
        min_zncc: least ZNCC of a match.
        uniqueness: most that 1 - ZNCC of the match may be of the best rival's at another depth.
        min_contrast: least standard deviation of grey in the smaller window, in [0, 1].
        max_disagreement: relative depth difference up to which two photos agree.
        min_agreeing: other photos whose depth must agree.
        min_support: of the 24 pixels around, those whose depth must be alike (within twice max_disagreement).
    """

    num_neighbours: int = 3
    max_neighbour_angle_deg: float = 60.0
    num_planes: int = 96
    windows_px: tuple[int, int] = (7, 11)
    smoothness: float = 0.06
    min_zncc: float = 0.75
    uniqueness: float = 0.7
    min_contrast: float = 0.012
    max_disagreement: float = 0.015
    min_agreeing: int = 1
    min_support: int = 8


@dataclass(frozen=True, eq=False)
class StereoPoints:
    """Dense points, one per surviving pixel.

    Attributes:
        positions: world coordinates, float64 ``[P, 3]``.
        view: index of the reference photo, ``[P]``.
        pixels: its pixel, column and row, ``[P, 2]``.
        num_agreeing: other photos whose depth agrees, ``[P]``.
        coverage: share of the photos' (masked) pixels with a surviving depth.
    """

    positions: Float[ndarray, "P 3"]
    view: Int[ndarray, " P"]
    pixels: Int[ndarray, "P 2"]
    num_agreeing: Int[ndarray, " P"]
    coverage: float

    def __len__(self) -> int:
        return len(self.positions)


def stereo(
    cameras: Sequence[Camera],
    photos: Sequence[Float[ndarray, "_ _ 3"]],
    masks: Sequence[Float[ndarray, "_ _"] | None],
    depth_ranges: Sequence[tuple[float, float]],
    config: StereoConfig,
) -> StereoPoints:
    """Points at the pixels whose depth two or more photos agree on.

    Args:
        cameras: at least two, in the order of the photos.
        photos: sRGB in [0, 1], each ``[H, W, 3]`` with the size of its camera.
        masks: 1 on the object, ``[H, W]``; only matched there. None: everywhere.
        depth_ranges: nearest and farthest depth to search per photo, in world units.

    Raises:
        ValueError: fewer than two cameras, or a depth range that is not positive and rising.
    """
    if len(cameras) < 2:
        raise ValueError(f"stereo from {len(cameras)} photo(s); wanted at least 2")
    for camera, (low, high) in zip(cameras, depth_ranges, strict=True):
        if not 0 < low < high < np.inf:
            raise ValueError(f"{camera.name}: depth range {low:.4g} to {high:.4g}; wanted 0 < nearest < farthest")
    middle = [float(np.sqrt(low * high)) for low, high in depth_ranges]
    valid = [
        np.ones(photo.shape[:2], bool) if mask is None else mask > 0.5
        for photo, mask in zip(photos, masks, strict=True)
    ]
    greys = [np.ascontiguousarray(photo @ GREY - 0.5, np.float32) for photo in photos]
    depths = [
        _depth_map(
            index, neighbours(cameras, index, middle[index], config), cameras, greys, valid, depth_ranges[index], config
        )
        for index in range(len(cameras))
    ]
    num_valid = sum(int(each.sum()) for each in valid)
    return _fused(cameras, depths, masks, num_valid, config)


def neighbours(cameras: Sequence[Camera], index: int, depth: float, config: StereoConfig) -> list[int]:
    """The photos to compare one with: those whose rays to its middle (at ``depth``) differ least, but differ."""
    angles = neighbour_angles_deg(cameras, depth)[index]
    order = [int(i) for i in np.argsort(angles, kind="stable")]
    return [i for i in order if 0.3 < angles[i] <= config.max_neighbour_angle_deg][: config.num_neighbours]


def thinned(points: StereoPoints, num: int, rng: np.random.Generator) -> Int[ndarray, " M"]:
    """Indices of about ``num`` points, spread evenly over the surfaces that the photos see.

    Systematic sampling along a Z-order curve through each photo; a point that k photos agree on counts 1 / (1 + k),
    because its surface is there k + 1 times.
    """
    if len(points) <= num:
        return np.arange(len(points))
    if num < 1:
        return np.zeros(0, int)
    order = np.lexsort((_morton(points.pixels), points.view))
    upto = np.cumsum(1.0 / (1 + points.num_agreeing[order]))
    at = (np.arange(num) + rng.random()) * (upto[-1] / num)
    return np.sort(np.unique(order[np.minimum(np.searchsorted(upto, at), len(order) - 1)]))


def _depth_map(
    index: int,
    others: Sequence[int],
    cameras: Sequence[Camera],
    greys: Sequence[ndarray],
    valid: Sequence[ndarray],
    depth_range: tuple[float, float],
    config: StereoConfig,
) -> Float[ndarray, "H W"]:
    """Depth of one photo where the match is good and unique, else 0."""
    height, width = greys[index].shape
    if not others:
        return np.zeros((height, width), np.float32)
    inverse = np.linspace(1 / depth_range[1], 1 / depth_range[0], config.num_planes)
    warps = np.stack([_warp(cameras[index], cameras[i]) for i in others])
    tallest = max(greys[i].shape[0] for i in others)
    widest = max(greys[i].shape[1] for i in others)
    images = np.zeros((len(others), tallest, widest), np.float32)
    inside = np.zeros((len(others), tallest, widest), bool)
    for k, i in enumerate(others):
        images[k, : greys[i].shape[0], : greys[i].shape[1]] = greys[i]
        inside[k, : greys[i].shape[0], : greys[i].shape[1]] = valid[i]
    radii = np.array([side // 2 for side in config.windows_px])
    volume = swept(greys[index], valid[index], images, inside, warps, inverse, radii, config.min_contrast**2)
    scores = np.ascontiguousarray(volume.transpose(1, 2, 0))  # [H, W, K]
    total = smoothed(scores, config.smoothness, 4 * config.smoothness)
    plane = best_planes(scores, total, config.min_zncc, config.uniqueness)
    found = plane >= 0
    step = inverse[1] - inverse[0]
    depth = np.where(found, 1 / (inverse[0] + np.maximum(plane, 0) * step), 0).astype(np.float32)
    return supported(depth, 2 * config.max_disagreement, config.min_support)


def _warp(reference: Camera, other: Camera) -> Float[ndarray, "3 4"]:
    """``[A | b]``: a reference pixel x at inverse depth w is at ``A (x, 1) + w b`` (homogeneous) in the other photo."""
    relative = other.camera_from_world @ reference.world_from_camera
    a = other.intrinsics @ relative[:3, :3] @ np.linalg.inv(reference.intrinsics)
    return np.concatenate([a, (other.intrinsics @ relative[:3, 3])[:, None]], axis=1)


def _fused(
    cameras: Sequence[Camera],
    depths: Sequence[ndarray],
    masks: Sequence[ndarray | None],
    num_valid: int,
    config: StereoConfig,
) -> StereoPoints:
    """The pixels whose depth others confirm, more than contradict it by seeing through, and that no mask rules out."""
    positions, view, pixels, agreeing = [], [], [], []
    for index, camera in enumerate(cameras):
        row, column = np.nonzero(depths[index] > 0)
        world = camera.unproject(np.stack([column, row], 1) + 0.5, depths[index][row, column].astype(np.float64))
        agree, against = np.zeros(len(world), int), np.zeros(len(world), int)
        for other, other_camera in enumerate(cameras):
            if other != index and len(world):
                pixel, depth = other_camera.project(world)
                says = agreement(np.nan_to_num(pixel, nan=-1e6), depth, depths[other], config.max_disagreement)
                agree += says > 0
                against += says < 0
        keep = (agree >= config.min_agreeing) & (agree > against)
        keep[keep] = in_hull(world[keep], cameras, masks, margin_px=0)
        positions.append(world[keep])
        view.append(np.full(keep.sum(), index))
        pixels.append(np.stack([column, row], 1)[keep])
        agreeing.append(agree[keep])
    count = sum(len(each) for each in positions)
    return StereoPoints(
        np.concatenate(positions),
        np.concatenate(view),
        np.concatenate(pixels),
        np.concatenate(agreeing),
        count / max(num_valid, 1),
    )


def _morton(pixels: Int[ndarray, "P 2"]) -> Int[ndarray, " P"]:
    """Position of pixels along a Z-order curve (bits of column and row interleaved; Morton 1966)."""
    code = np.zeros(len(pixels), np.int64)
    for bit in range(14):
        code |= ((pixels[:, 0].astype(np.int64) >> bit) & 1) << (2 * bit)
        code |= ((pixels[:, 1].astype(np.int64) >> bit) & 1) << (2 * bit + 1)
    return code
