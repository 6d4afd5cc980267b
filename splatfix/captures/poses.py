"""Check pose matrices from files and convert them to exactly rigid OpenCV poses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy import ndarray

from splatfix.cameras import Camera, compose_pose, focus_point
from splatfix.shapes import Float

AXES_OPENGL = np.diag([1.0, -1.0, -1.0])  # x right, y up, z backward -> x right, y down, z forward
MAX_PARALLEL = 0.9  # length of the mean of the optical axes, which is 1 if all are parallel
MIN_AWAY = 0.75  # of the cameras
MAX_SKEW = 0.02  # relative; the rounding of files with few digits is well below this


def pose_from_camera_to_world(
    matrix: Sequence[Sequence[float]] | ndarray, where: str, axes: Float[ndarray, "3 3"] | None = None
) -> tuple[Float[ndarray, "4 4"], float]:
    """Convert a camera-to-world matrix, 3x4 or 4x4, to ``camera_from_world`` (OpenCV axes) and a scale.

    A rotation that is slightly off (rounding) is replaced by the nearest one. A uniform scale of the rotation, which
    some instant-ngp exports have, is removed and returned (otherwise 1). ``axes`` converts the camera axes of the file
    to OpenCV's.

    Raises:
        ValueError: wrong shape, not finite, mirrored, singular or skewed. ``where`` names file and field.
    """
    try:
        values = np.asarray(matrix, np.float64)
    except ValueError:
        raise ValueError(f"{where}: rows of different lengths; wanted a 4x4 or 3x4 matrix of numbers") from None
    if values.shape not in ((4, 4), (3, 4)):
        raise ValueError(f"{where}: shape {'x'.join(map(str, values.shape))}; wanted a 4x4 or 3x4 matrix")
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise ValueError(f"{where}: row {row}, column {column} is {values[row, column]}; wanted finite numbers")
    if values.shape == (4, 4) and not np.allclose(values[3], [0, 0, 0, 1], atol=1e-4):
        raise ValueError(f"{where}: last row {values[3].tolist()}; wanted [0, 0, 0, 1] (is it transposed?)")
    rotation, scale = nearest_rotation(values[:3, :3] if axes is None else values[:3, :3] @ axes, where)
    return compose_pose(rotation.T, values[:3, 3]), scale


def nearest_rotation(matrix: Float[ndarray, "3 3"], where: str) -> tuple[Float[ndarray, "3 3"], float]:
    """Find the rotation nearest to a matrix (Frobenius norm), and the uniform scale of the matrix.

    Raises:
        ValueError: the matrix is singular, mirrored or skewed.
    """
    u, singular, vt = np.linalg.svd(matrix)
    if singular[0] < 1e-8 or singular[2] < 1e-3 * singular[0]:
        raise ValueError(f"{where}: singular rotation (singular values {_format_numbers(singular)}); wanted a rotation")
    if np.linalg.det(matrix) < 0:
        raise ValueError(
            f"{where}: mirrored rotation (determinant {np.linalg.det(matrix):.3g}); wanted +1: is an axis flipped?"
        )
    if singular[0] / singular[2] > 1 + MAX_SKEW:
        raise ValueError(
            f"{where}: skewed rotation (singular values {_format_numbers(singular)}); wanted all equal to 1"
        )
    scale = float(singular.mean())
    return u @ vt, scale if abs(scale - 1) > MAX_SKEW else 1.0


def describe_other_axes(cameras: Sequence[Camera]) -> list[str]:
    """Describe cameras that look away from where their optical axes meet: a list of one note, or of none.

    So do cameras around an object whose file has other axes than its format, or world-to-camera matrices. Those that
    look outward from one place do so too, and parallel axes meet nowhere.
    """
    mean_axis = np.mean([camera.axis for camera in cameras], axis=0)
    if len(cameras) < 3 or np.linalg.norm(mean_axis) > MAX_PARALLEL:
        return []
    meeting_point = focus_point(cameras)
    num_away = sum(float((meeting_point - camera.center) @ camera.axis) < 0 for camera in cameras)
    if num_away < MIN_AWAY * len(cameras):
        return []
    return [
        f"{num_away} of {len(cameras)} cameras look away from where their optical axes meet; if these photos surround "
        "an object, the matrices have other axes (wanted OpenGL's: x right, y up, z backward) or are world-to-camera "
        "(wanted camera-to-world)"
    ]


def _format_numbers(values: ndarray) -> str:
    return ", ".join(f"{value:.3g}" for value in values)
