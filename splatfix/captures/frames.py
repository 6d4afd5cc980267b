"""Frames of ``transforms*.json``: one record for what nerfstudio, instant-ngp and NeRF-synthetic write."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from splatfix.captures.lenses import Lens, checked_lens
from splatfix.captures.records import Record

FOCALS = ("fl_x", "fl_y", "camera_angle_x", "camera_angle_y")


class Intrinsics(Record):
    """What a frame, or the whole file, may say about the lens. Lengths in pixels, angles in radians."""

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
    """One posed image; its own intrinsics, where it has some, come before the file's."""

    file_path: str
    transform_matrix: list[list[float]]
    mask_path: str | None = None


class FramesFile(Intrinsics):
    """A ``transforms*.json``."""

    frames: list[Frame]
    ply_file_path: str | None = None


def joined(folder: Path, text: str) -> Path:
    """A path in the file, relative to its folder; written on Windows or with ``./`` all the same."""
    return folder / text.replace("\\", "/")


def frame_lens(file: FramesFile, frame: Frame, image_size: tuple[int, int], where: str) -> Lens:
    """The lens of a frame, at the size that the file states, else at the image's own.

    Distortion k1, k2, p1, p2 (and k3) is OpenCV's, k1 to k4 of a fisheye OpenCV's fisheye; a missing principal point
    is the image center.

    Raises:
        ValueError: no focal length, a value out of range, or a camera model without a pinhole image.
    """
    names = Intrinsics.model_fields
    own = {name: getattr(frame, name) for name in names if getattr(frame, name) is not None}
    shared = {name: getattr(file, name) for name in names if getattr(file, name) is not None}
    if own.keys() & set(FOCALS):
        shared = {name: value for name, value in shared.items() if name not in FOCALS}
    seen = shared | own
    width, height = seen.get("w", image_size[0]), seen.get("h", image_size[1])
    fx, fy = _focals(seen, width, height, where)
    start = (fx, fy, seen.get("cx", width / 2), seen.get("cy", height / 2))
    k1, k2, k3, k4, p1, p2 = (seen.get(name, 0.0) for name in ("k1", "k2", "k3", "k4", "p1", "p2"))
    model = str(seen.get("camera_model", "OPENCV")).upper()
    if seen.get("is_fisheye") or model == "OPENCV_FISHEYE":
        return checked_lens("OPENCV_FISHEYE", width, height, (*start, k1, k2, k3, k4), where)
    if model not in ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "FULL_OPENCV"):
        raise ValueError(f"{where}: camera_model {model!r}; wanted PINHOLE, OPENCV or OPENCV_FISHEYE")
    if k4:
        raise ValueError(f"{where}: k4 = {k4:g} on a perspective lens; wanted 0, or is_fisheye: true")
    if k3:
        return checked_lens("FULL_OPENCV", width, height, (*start, k1, k2, p1, p2, k3, 0.0, 0.0, 0.0), where)
    if any((k1, k2, p1, p2)):
        return checked_lens("OPENCV", width, height, (*start, k1, k2, p1, p2), where)
    return checked_lens("PINHOLE", width, height, start, where)


def _focals(seen: dict, width: float, height: float, where: str) -> tuple[float, float]:
    """Focal lengths in pixels; one axis stands for both where the other is not given."""

    def of(length: str, angle: str, side: float) -> float | None:
        if length in seen:
            return seen[length]
        if angle not in seen:
            return None
        if not 0 < seen[angle] < np.pi:
            raise ValueError(f"{where}: {angle} = {seen[angle]:g}; wanted radians between 0 and pi")
        return side / 2 / np.tan(seen[angle] / 2)

    fx = of("fl_x", "camera_angle_x", width)
    fy = seen.get("fl_y") if "fl_x" in seen else of("fl_y", "camera_angle_y", height)
    known = [focal for focal in (fx, fy) if focal is not None]
    if not known:
        raise ValueError(f"{where}: no focal length; wanted fl_x (pixels) or camera_angle_x (radians)")
    return known[0], known[-1]
