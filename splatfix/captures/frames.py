"""Records of ``transforms*.json`` files, as nerfstudio, instant-ngp and NeRF-synthetic write them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from splatfix.captures.lenses import Lens, make_lens
from splatfix.captures.options import MaskMeaning
from splatfix.captures.records import Record

FOCAL_FIELDS = ("fl_x", "fl_y", "camera_angle_x", "camera_angle_y")


class Intrinsics(Record):
    """Lens fields of a frame or of the whole file. Lengths in pixels, angles in radians."""

    camera_model: str | None = None
    is_fisheye: bool | None = None
    w: float | None = None
    h: float | None = None
    fl_x: float | None = None
    fl_y: float | None = None
    cx: float | None = None
    cy: float | None = None
    camera_angle_x: float | None = None
    camera_angle_y: float | None = None
    k1: float | None = None
    k2: float | None = None
    k3: float | None = None
    k4: float | None = None
    p1: float | None = None
    p2: float | None = None


class Frame(Intrinsics):
    """A posed image; intrinsics of the frame override those of the file."""

    file_path: str
    transform_matrix: list[list[float]]
    mask_path: str | None = None


class FramesFile(Intrinsics):
    """The content of a ``transforms*.json``."""

    frames: list[Frame]
    mask_meaning: MaskMeaning = "ignore"  # of all mask_path: of splatfix, nerfstudio knows "ignore" alone
    ply_file_path: str | None = None


def resolve_path(folder: Path, text: str) -> Path:
    """Resolve a path from the file, which is relative to its folder and may have been written on Windows."""
    return folder / text.replace("\\", "/")


def make_frame_lens(file: FramesFile, frame: Frame, image_size: tuple[int, int], where: str) -> Lens:
    """Make the lens of a frame, at the size that the file states, else at that of the image.

    The distortion is that of OpenCV: k1, k2, p1, p2 (and k3), or k1 to k4 for a fisheye. A missing principal point is
    the image center.

    Raises:
        ValueError: no focal length, a value out of range, or a camera model without a pinhole image.
    """
    names = Intrinsics.model_fields
    frame_values = {name: getattr(frame, name) for name in names if getattr(frame, name) is not None}
    file_values = {name: getattr(file, name) for name in names if getattr(file, name) is not None}
    if frame_values.keys() & set(FOCAL_FIELDS):
        file_values = {name: value for name, value in file_values.items() if name not in FOCAL_FIELDS}
    values = file_values | frame_values
    width, height = values.get("w", image_size[0]), values.get("h", image_size[1])
    fx, fy = _focal_lengths(values, width, height, where)
    start = (fx, fy, values.get("cx", width / 2), values.get("cy", height / 2))
    k1, k2, k3, k4, p1, p2 = (values.get(name, 0.0) for name in ("k1", "k2", "k3", "k4", "p1", "p2"))
    model = str(values.get("camera_model", "OPENCV")).upper()
    if values.get("is_fisheye") or model == "OPENCV_FISHEYE":
        return make_lens("OPENCV_FISHEYE", width, height, (*start, k1, k2, k3, k4), where)
    if model not in ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "FULL_OPENCV"):
        raise ValueError(f"{where}: camera_model {model!r}; wanted PINHOLE, OPENCV or OPENCV_FISHEYE")
    if k4:
        raise ValueError(f"{where}: k4 = {k4:g} on a perspective lens; wanted 0, or is_fisheye: true")
    if k3:
        return make_lens("FULL_OPENCV", width, height, (*start, k1, k2, p1, p2, k3, 0.0, 0.0, 0.0), where)
    if any((k1, k2, p1, p2)):
        return make_lens("OPENCV", width, height, (*start, k1, k2, p1, p2), where)
    return make_lens("PINHOLE", width, height, start, where)


def _focal_lengths(values: dict, width: float, height: float, where: str) -> tuple[float, float]:
    """Focal lengths in pixels; if that of one axis is not given, it is equal to the other."""

    def focal_length(length: str, angle: str, side: float) -> float | None:
        if length in values:
            return values[length]
        if angle not in values:
            return None
        if not 0 < values[angle] < np.pi:
            raise ValueError(f"{where}: {angle} = {values[angle]:g}; wanted radians between 0 and pi")
        return side / 2 / np.tan(values[angle] / 2)

    fx = focal_length("fl_x", "camera_angle_x", width)
    fy = values.get("fl_y") if "fl_x" in values else focal_length("fl_y", "camera_angle_y", height)
    known = [focal for focal in (fx, fy) if focal is not None]
    if not known:
        raise ValueError(f"{where}: no focal length; wanted fl_x (pixels) or camera_angle_x (radians)")
    return known[0], known[-1]
