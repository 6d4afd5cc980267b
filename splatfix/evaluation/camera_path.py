"""A smooth camera path through and beyond the training cameras, for videos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy import ndarray
from scipy.linalg import expm, logm

from splatfix.cameras import (
    Camera,
    angle_between_rad,
    compose_pose,
    interpolate_linearly,
    quaternion_from_rotation,
    rotation_from_quaternion,
)
from splatfix.shapes import Float

MAX_KEYFRAMES = 12


def path_cameras(train_cameras: Sequence[Camera], num_frames: int) -> list[Camera]:
    """A smooth path through the training cameras and a bit beyond them, at constant speed, eased at both ends.

    The cameras are put in the order of a short tour (at most 12 of them, spread out); the path starts and ends a third
    of a step outside of the first and the last, and between cameras it rises by up to a sixteenth of the median step
    along the image's up, so that it shows views that the fit has not seen. From camera to camera it follows a screw, so
    that it circles what neighbors both look at; a Catmull-Rom spline over the distance travelled rounds the corners.
    All frames have one size: the most frequent one, with the median focal length.

    Raises:
        ValueError: no cameras, or fewer than one frame.
    """
    if not train_cameras or num_frames < 1:
        raise ValueError(f"{len(train_cameras)} cameras and {num_frames} frames; wanted at least one of each")
    base = _common_camera(train_cameras)
    tour = _short_tour(train_cameras)
    if len(tour) == 1:
        return [
            replace(base, name=f"path_{i:04d}", camera_from_world=tour[0].camera_from_world) for i in range(num_frames)
        ]
    keys = [_along_screw(tour[0], tour[1], -1 / 3)]
    for a, b in pairwise(tour):
        keys += [a, _along_screw(a, b, 1 / 3), _along_screw(a, b, 2 / 3)]
    keys += [tour[-1], _along_screw(tour[-2], tour[-1], 4 / 3)]
    step = float(np.median([_tour_distance(a, b) for a, b in pairwise(tour)]))
    travelled = np.concatenate([[0.0], np.cumsum([_tour_distance(a, b) for a, b in pairwise(keys)])])
    values = np.concatenate([np.stack([key.center for key in keys]), _aligned_quaternions(keys)], axis=1)  # [K, 7]
    stops = travelled[1:-1:3]  # at the training cameras
    eased = _ease(np.linspace(0, 1, num_frames)) * travelled[-1]
    samples = _catmull_rom(travelled, values, eased)
    cameras = []
    for i, (at, sample) in enumerate(zip(eased, samples, strict=True)):
        rotation = rotation_from_quaternion(sample[3:])
        k = int(np.clip(np.searchsorted(stops, at, side="right") - 1, 0, len(stops) - 2))
        within = (at - stops[k]) / max(stops[k + 1] - stops[k], 1e-12)
        rise = step / 16 * np.sin(np.pi * np.clip(within, 0, 1)) ** 2
        center = sample[:3] - rise * rotation[1]  # y points down in the image
        cameras.append(replace(base, name=f"path_{i:04d}", camera_from_world=compose_pose(rotation, center)))
    return cameras


def _common_camera(cameras: Sequence[Camera]) -> Camera:
    sizes = [(camera.width_px, camera.height_px) for camera in cameras]
    size = max(sorted(set(sizes)), key=sizes.count)
    alike = sorted((c for c in cameras if (c.width_px, c.height_px) == size), key=lambda camera: camera.focal_px)
    return alike[len(alike) // 2]


def _short_tour(cameras: Sequence[Camera]) -> list[Camera]:
    """Farthest-point choice of keyframes, then an open tour: nearest neighbors from each start, improved by 2-opt."""
    keep = [0]
    gaps = np.array([[_tour_distance(a, b) for b in cameras] for a in cameras])
    while len(keep) < min(MAX_KEYFRAMES, len(cameras)):
        farthest = int(gaps[keep].min(axis=0).argmax())
        if gaps[keep].min(axis=0)[farthest] < 1e-9:  # the rest are copies
            break
        keep.append(farthest)
    best: list[int] = keep
    for start in keep:
        order, left = [start], [k for k in keep if k != start]
        while left:
            order.append(min(left, key=lambda k: gaps[order[-1], k]))
            left.remove(order[-1])
        order = _two_opt(order, gaps)
        if _length(order, gaps) < _length(best, gaps) - 1e-12 or start == keep[0]:
            best = order
    return [cameras[k] for k in best]


def _two_opt(order: list[int], gaps: ndarray) -> list[int]:
    improved = True
    while improved:
        improved = False
        for i in range(len(order) - 1):
            for j in range(i + 2, len(order) + 1):
                other = order[:i] + order[i:j][::-1] + order[j:]
                if _length(other, gaps) < _length(order, gaps) - 1e-12:
                    order, improved = other, True
    return order


def _length(order: Sequence[int], gaps: ndarray) -> float:
    return float(sum(gaps[a, b] for a, b in pairwise(order)))


def _tour_distance(a: Camera, b: Camera) -> float:
    """Distance of two cameras: that of their centers, more where they look in different directions."""
    distance = float(np.linalg.norm(a.center - b.center))
    return distance * (1 + angle_between_rad(a, b) / np.pi)


def _along_screw(a: Camera, b: Camera, t: float) -> Camera:
    """A camera on the screw motion that carries ``a`` (t = 0) to ``b`` (t = 1), or beyond.

    Two cameras that look at one point turn about it, where straight lines would cut through or leave it. Turns of
    nearly half a circle have no definite screw axis: there the center moves straight.
    """
    relative = np.linalg.inv(a.world_from_camera) @ b.world_from_camera
    if np.trace(relative[:3, :3]) < 2 * np.cos(np.radians(160)) + 1:
        return interpolate_linearly(a, b, t, a.name)
    pose = a.world_from_camera @ expm(t * np.real(logm(relative)))
    rotation = rotation_from_quaternion(quaternion_from_rotation(pose[:3, :3].T))
    return replace(a, camera_from_world=compose_pose(rotation, pose[:3, 3]))


def _aligned_quaternions(cameras: Sequence[Camera]) -> Float[ndarray, "K 4"]:
    """Quaternions with the signs that make neighbors close."""
    quaternions = [quaternion_from_rotation(camera.rotation) for camera in cameras]
    for k in range(1, len(quaternions)):
        if quaternions[k] @ quaternions[k - 1] < 0:
            quaternions[k] = -quaternions[k]
    return np.stack(quaternions)


def _catmull_rom(
    at: Float[ndarray, " K"], values: Float[ndarray, "K D"], x: Float[ndarray, " F"]
) -> Float[ndarray, "F D"]:
    """Cubic Hermite interpolation with central differences as slopes (one-sided at the ends)."""
    at = at + np.arange(len(at)) * 1e-9  # distinct also where two cameras share a place
    slopes = np.gradient(values, at, axis=0)
    k = np.clip(np.searchsorted(at, x, side="right") - 1, 0, len(at) - 2)
    width = (at[k + 1] - at[k])[:, None]
    t = ((x - at[k])[:, None] / width).clip(0, 1)
    return (
        (1 + 2 * t) * (1 - t) ** 2 * values[k]
        + t * (1 - t) ** 2 * width * slopes[k]
        + t**2 * (3 - 2 * t) * values[k + 1]
        + t**2 * (t - 1) * width * slopes[k + 1]
    )


def _ease(t: Float[ndarray, " F"]) -> Float[ndarray, " F"]:
    """Constant speed, slowing down over the first and the last tenth."""
    ramp = 0.1
    speed_end = 1 / (1 - ramp)
    start = t**2 / (2 * ramp) * speed_end
    end = 1 - (1 - t) ** 2 / (2 * ramp) * speed_end
    return np.where(t < ramp, start, np.where(t > 1 - ramp, end, (t - ramp / 2) * speed_end))
