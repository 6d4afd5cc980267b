"""Pinhole cameras and their geometry.

Conventions, the same everywhere in splatfix: OpenCV axes (x right, y down, z forward); poses are ``camera_from_world``,
read right to left; pixel centers are at +0.5, so an image spans ``[0, width] x [0, height]``. The capture readers
convert to these conventions and remove lens distortion, so no other module has to.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy import ndarray

from splatfix.shapes import Float
from splatfix.similarity import Similarity

PARALLEL_RAD = 1e-5  # angle below which optical axes are parallel: what rounding in files leaves
PARALLEL_DEPTH = 5.0  # guess of the depth over the baseline of cameras with parallel axes, as of a slider or a drone


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole camera: intrinsics, pose and image size.

    Attributes:
        name: unique name of the view within its capture (the image's relative path for photos).
        width_px, height_px: image size.
        intrinsics: ``K``, float64 ``[3, 3]``, in pixels.
        camera_from_world: rigid transform, float64 ``[4, 4]``.
    """

    name: str
    width_px: int
    height_px: int
    intrinsics: Float[ndarray, "3 3"]
    camera_from_world: Float[ndarray, "4 4"]

    @property
    def rotation(self) -> Float[ndarray, "3 3"]:
        """Rotation part of ``camera_from_world``."""
        return self.camera_from_world[:3, :3]

    @property
    def center(self) -> Float[ndarray, "3"]:
        """Camera center in world coordinates."""
        return -self.rotation.T @ self.camera_from_world[:3, 3]

    @property
    def axis(self) -> Float[ndarray, "3"]:
        """Unit vector of the optical axis (forward) in world coordinates."""
        return self.rotation[2].copy()

    @property
    def world_from_camera(self) -> Float[ndarray, "4 4"]:
        """Inverse of ``camera_from_world``, float64 ``[4, 4]``."""
        pose = np.eye(4)
        pose[:3, :3] = self.rotation.T
        pose[:3, 3] = self.center
        return pose

    @property
    def focal_px(self) -> float:
        """Geometric mean of the two focal lengths, in pixels."""
        return float(np.sqrt(self.intrinsics[0, 0] * self.intrinsics[1, 1]))

    def to_json(self) -> dict[str, Any]:
        """The camera as a JSON object: its fields, matrices as lists of rows."""
        return {
            "name": self.name,
            "width_px": self.width_px,
            "height_px": self.height_px,
            "intrinsics": self.intrinsics.tolist(),
            "camera_from_world": self.camera_from_world.tolist(),
        }

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Camera:
        """Inverse of `to_json`; other keys are ignored."""
        matrices = np.array(tree["intrinsics"]), np.array(tree["camera_from_world"])
        return cls(tree["name"], tree["width_px"], tree["height_px"], *matrices)

    def change_world(self, old_from_new: Similarity) -> Camera:
        """Express the pose in another world, which differs by a scale and an offset; the image stays the same."""
        if old_from_new.is_identity:
            return self
        pose = self.camera_from_world.copy()
        pose[:3, 3] = (pose[:3, 3] + self.rotation @ old_from_new.offset) / old_from_new.scale
        return replace(self, camera_from_world=pose)

    def resize(self, width_px: int, height_px: int) -> Camera:
        """Change the image size; the intrinsics are scaled along each axis."""
        scale = np.diag([width_px / self.width_px, height_px / self.height_px, 1.0])
        return replace(self, width_px=width_px, height_px=height_px, intrinsics=scale @ self.intrinsics)

    def with_longest_side(self, longest_side_px: int | None) -> Camera:
        """Scale the image down to a longest side of at most ``longest_side_px``; None keeps the size."""
        return self.resize(*limit_size(self.width_px, self.height_px, longest_side_px))

    def project(self, points: Float[ndarray, "*N 3"]) -> tuple[Float[ndarray, "*N 2"], Float[ndarray, "*N"]]:
        """Project world points to pixel coordinates ``[..., 2]`` and depths along the axis ``[...]``.

        The coordinates of points at or behind the camera are NaN.
        """
        local = points @ self.rotation.T + self.camera_from_world[:3, 3]
        depth = local[..., 2]
        with np.errstate(divide="ignore", invalid="ignore"):
            pixels = (local @ self.intrinsics.T)[..., :2] / depth[..., None]
        pixels = np.where(depth[..., None] > 0, pixels, np.nan)
        return pixels, depth

    def unproject(self, pixels: Float[ndarray, "*N 2"], depth: Float[ndarray, "*N"]) -> Float[ndarray, "*N 3"]:
        """Lift pixel coordinates with depths along the axis to world points."""
        homogeneous = np.concatenate([pixels, np.ones_like(pixels[..., :1])], axis=-1)
        local = homogeneous @ np.linalg.inv(self.intrinsics).T * depth[..., None]
        return (local - self.camera_from_world[:3, 3]) @ self.rotation

    def sees(self, points: Float[ndarray, "N 3"]) -> ndarray:
        """Test which world points are in front of the camera and inside its image. Boolean ``[N]``."""
        pixels, depth = self.project(points)
        with np.errstate(invalid="ignore"):
            inside = (pixels >= 0).all(-1) & (pixels[:, 0] < self.width_px) & (pixels[:, 1] < self.height_px)
        return inside & (depth > 0)


def separation(a: Camera, b: Camera, depth: float) -> float:
    """Measure how far two views are apart: ``sqrt((|center difference| / depth)^2 + angle^2)``, dimensionless.

    ``depth`` is the typical depth of the scene in world units; the angle is that between the optical axes, in radians.
    """
    return math.hypot(float(np.linalg.norm(a.center - b.center)) / depth, angle_between_rad(a, b))


def pairwise_separations(cameras: Sequence[Camera], depth: float) -> Float[ndarray, "C C"]:
    """Compute the `separation` of every pair of views, dimensionless; 0 on the diagonal."""
    centers = np.stack([camera.center for camera in cameras])
    axes = np.stack([camera.axis for camera in cameras])
    angles = np.arccos(np.clip(axes @ axes.T, -1, 1))
    np.fill_diagonal(angles, 0.0)
    return np.hypot(np.linalg.norm(centers[:, None] - centers, axis=2) / depth, angles)


def limit_size(width_px: int, height_px: int, longest_side_px: int | None) -> tuple[int, int]:
    """Scale an image size down to a longest side of at most ``longest_side_px``; None keeps it."""
    longest = max(width_px, height_px)
    if longest_side_px is None or longest <= longest_side_px:
        return width_px, height_px
    scale = longest_side_px / longest
    return max(1, round(width_px * scale)), max(1, round(height_px * scale))


def stack_cameras(
    cameras: Sequence[Camera], device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> tuple[Float[torch.Tensor, "C 4 4"], Float[torch.Tensor, "C 3 3"]]:
    """Stack ``camera_from_world`` and the intrinsics of cameras. The copy to a CUDA device is asynchronous."""
    poses = torch.tensor(np.stack([camera.camera_from_world for camera in cameras]), dtype=dtype)
    intrinsics = torch.tensor(np.stack([camera.intrinsics for camera in cameras]), dtype=dtype)
    if torch.device(device).type == "cuda":
        poses, intrinsics = poses.pin_memory(), intrinsics.pin_memory()
    return poses.to(device, non_blocking=True), intrinsics.to(device, non_blocking=True)


def look_at(center: Float[ndarray, "3"], target: Float[ndarray, "3"], up: Float[ndarray, "3"]) -> Float[ndarray, "4 4"]:
    """Make ``camera_from_world`` of a camera at ``center`` that looks at ``target`` with ``up`` pointing up."""
    forward = target - center
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, up)
    if np.linalg.norm(right) < 1e-8:
        right = np.cross(forward, np.eye(3)[np.argmin(np.abs(forward))])
    right = right / np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    return compose_pose(rotation, center)


def compose_pose(rotation: Float[ndarray, "3 3"], center: Float[ndarray, "3"]) -> Float[ndarray, "4 4"]:
    """Make ``camera_from_world`` from its rotation part and the camera center."""
    pose = np.eye(4)
    pose[:3, :3] = rotation
    pose[:3, 3] = -rotation @ center
    return pose


def quaternion_from_rotation(rotation: Float[ndarray, "3 3"]) -> Float[ndarray, "4"]:
    """Convert a rotation matrix to a unit quaternion wxyz, w >= 0 (Bar-Itzhack 2000: largest eigenvector)."""
    r = rotation
    k = np.array(
        [
            [r[0, 0] - r[1, 1] - r[2, 2], 0, 0, 0],
            [r[0, 1] + r[1, 0], r[1, 1] - r[0, 0] - r[2, 2], 0, 0],
            [r[0, 2] + r[2, 0], r[1, 2] + r[2, 1], r[2, 2] - r[0, 0] - r[1, 1], 0],
            [r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1], r[0, 0] + r[1, 1] + r[2, 2]],
        ]
    )
    _, vectors = np.linalg.eigh(k / 3)  # reads the lower triangle
    q = vectors[[3, 0, 1, 2], -1]
    return q if q[0] >= 0 else -q


def rotation_from_quaternion(quaternion: Float[ndarray, "4"]) -> Float[ndarray, "3 3"]:
    """Convert a quaternion wxyz to a rotation matrix; the quaternion is normalized first."""
    w, x, y, z = quaternion / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def slerp(a: Float[ndarray, "4"], b: Float[ndarray, "4"], t: float) -> Float[ndarray, "4"]:
    """Interpolate unit quaternions spherically; ``t`` outside [0, 1] extrapolates (Shoemake 1985)."""
    if np.dot(a, b) < 0:
        b = -b
    angle = np.arccos(np.clip(np.dot(a, b), -1, 1))
    if angle < 1e-6:
        mixed = (1 - t) * a + t * b
    else:
        mixed = (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)
    return mixed / np.linalg.norm(mixed)


def interpolate_linearly(a: Camera, b: Camera, t: float, name: str) -> Camera:
    """Interpolate between cameras ``a`` (t = 0) and ``b`` (t = 1): center linearly, rotation by slerp.

    ``t`` outside [0, 1] extrapolates. Size and intrinsics are those of the nearer camera.
    """
    rotation = rotation_from_quaternion(
        slerp(quaternion_from_rotation(a.rotation), quaternion_from_rotation(b.rotation), t)
    )
    center = (1 - t) * a.center + t * b.center
    return replace(a if t <= 0.5 else b, name=name, camera_from_world=compose_pose(rotation, center))


def angle_between_rad(a: Camera, b: Camera) -> float:
    """Compute the angle between two optical axes, in radians."""
    return float(np.arccos(np.clip(a.axis @ b.axis, -1, 1)))


def focus_point(cameras: Sequence[Camera]) -> Float[ndarray, "3"]:
    """Find the world point nearest to all optical axes, in the least-squares sense.

    If the axes of several cameras are parallel, it is the mean center, wherever the origin of the world is.
    """
    if _have_parallel_axes(cameras):
        return np.mean([camera.center for camera in cameras], axis=0)
    a = np.zeros((3, 3))
    b = np.zeros(3)
    for camera in cameras:
        across = np.eye(3) - np.outer(camera.axis, camera.axis)
        a += across
        b += across @ camera.center
    return np.linalg.lstsq(a, b, rcond=None)[0]


def _have_parallel_axes(cameras: Sequence[Camera]) -> bool:
    """Whether cameras in different places have parallel or opposite axes, but for rounding in files."""
    axes = np.stack([camera.axis for camera in cameras])
    centers = np.stack([camera.center for camera in cameras])
    moves = bool((np.ptp(centers, axis=0) > 0).any())
    return moves and bool((np.linalg.norm(np.cross(axes, axes[0]), axis=1) < PARALLEL_RAD).all())


def measure_baseline(cameras: Sequence[Camera]) -> float:
    """Measure the largest distance between two camera centers, in world units."""
    centers = np.stack([camera.center for camera in cameras])
    return max(float(np.linalg.norm(centers - center, axis=-1).max()) for center in centers)


def measure_depth(cameras: Sequence[Camera], positions: Float[ndarray, "P 3"] | None) -> float | None:
    """Compute the median depth of points over the cameras that see them, in world units; None if no camera sees any."""
    if positions is None or len(positions) == 0:
        return None
    seen = np.concatenate([camera.project(positions)[1][camera.sees(positions)] for camera in cameras])
    return float(np.median(seen)) if len(seen) else None


def estimate_depth(cameras: Sequence[Camera], positions: Float[ndarray, "P 3"] | None) -> float:
    """Estimate the depth of the scene, in world units: that of the points (`measure_depth`).

    Without points in view it is the median distance of the cameras from the point nearest to all optical axes, or, if
    the axes are parallel, a multiple of the largest distance between two cameras.
    """
    depth = measure_depth(cameras, positions)
    if depth is not None:
        return depth
    if _have_parallel_axes(cameras) and all(camera.axis @ cameras[0].axis > 0 for camera in cameras):
        return PARALLEL_DEPTH * measure_baseline(cameras)
    focus = focus_point(cameras)
    return max(float(np.median([np.linalg.norm(camera.center - focus) for camera in cameras])), 1e-6)
