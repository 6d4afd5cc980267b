"""Records of ``transforms*.json`` files, as nerfstudio, instant-ngp and NeRF-synthetic write them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from pydantic import ConfigDict, Field, field_validator

from splatfix.captures.lenses import Lens, make_lens
from splatfix.captures.options import MaskMeaning
from splatfix.captures.records import Record

FOCAL_FIELDS = ("fl_x", "fl_y", "camera_angle_x", "camera_angle_y")
DISTORTION_FIELDS = ("k1", "k2", "k3", "k4", "p1", "p2")
_OTHER_PARAMETERS = re.compile(r"k[7-9]|p[3-8]|s[1-4]|b[12]|ftheta_.*")


def _are_numbers(value: Any, num: int) -> bool:
    return isinstance(value, list) and len(value) == num and all(isinstance(each, int | float) for each in value)


def _is_matrix(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(_are_numbers(row, 3) for row in value)


class Intrinsics(Record):
    """Lens fields of a frame or of the whole file. Lengths in pixels, angles in radians.

    ``distortion_params`` are k1, k2, k3, k4, p1, p2, as in nerfstudio; ``intrinsics`` is a 3x3 matrix in pixels.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

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
    k5: float | None = None
    k6: float | None = None
    p1: float | None = None
    p2: float | None = None
    distortion_params: Any = None
    intrinsics: Any = None

    @cached_property
    def lens_fields(self) -> dict[str, Any]:
        """The fields that are given, with matrix and list as single fields.

        Raises:
            ValueError: distortion of another form, or a lens parameter that no field here stands for.
        """
        fields = {name: value for name in Intrinsics.model_fields if (value := getattr(self, name)) is not None}
        for name, value in (self.model_extra or {}).items():
            if _OTHER_PARAMETERS.fullmatch(name) and value not in (0, None, False):
                raise ValueError(
                    f"{name} = {value!r} is not used by any lens of this format; wanted k1 to k6, p1 and p2: "
                    "undistort the photos, or use COLMAP's format"
                )
        params = fields.pop("distortion_params", None)
        if params:
            if not _are_numbers(params, len(DISTORTION_FIELDS)):
                raise ValueError(f"distortion_params {params!r:.60}; wanted 6 numbers: {', '.join(DISTORTION_FIELDS)}")
            fields = dict(zip(DISTORTION_FIELDS, params, strict=True)) | fields
        matrix = fields.pop("intrinsics", None)
        if _is_matrix(matrix):
            (fx, _, cx), (_, fy, cy), _ = matrix
            fields = {"fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy} | fields
        return fields


class Frame(Intrinsics):
    """A posed image; intrinsics of the frame override those of the file."""

    file_path: str
    transform_matrix: list[list[float]]
    mask_path: str | None = None


class FramesFile(Intrinsics):
    """The content of a ``transforms*.json``."""

    frames: list[Frame]
    test_frames: list[Frame] = Field(default_factory=list)
    mask_meaning: MaskMeaning = "ignore"  # of all mask_path: of splatfix, nerfstudio knows "ignore" alone
    mask_path: str | None = None  # of all frames without their own
    ply_file_path: str | None = None

    @field_validator("test_frames", mode="before")
    @classmethod
    def _keep_posed(cls, value: Any) -> list[Any]:
        """Keep frames that are posed; other programs list names here."""
        entries = value if isinstance(value, list) else []
        return [entry for entry in entries if isinstance(entry, dict) and "transform_matrix" in entry]

    @property
    def all_frames(self) -> list[Frame]:
        """Frames, with those that ScanNet++ lists apart for testing."""
        return [*self.frames, *self.test_frames]


def make_frame_lens(file: FramesFile, frame: Frame, image_size: tuple[int, int], where: str) -> Lens:
    """Make the lens of a frame, at the size that the file states, else at that of the image.

    The distortion is that of OpenCV: k1, k2, p1, p2 and k3 (with k4 to k6 for ``FULL_OPENCV``), or k1 to k4 for a
    fisheye. A missing principal point is the image center.

    Raises:
        ValueError: no focal length, a value out of range, a parameter that the camera model does not have, or a camera
            model without a pinhole image.
    """
    values = _merge_fields(file, frame, where)
    width, height = values.get("w", image_size[0]), values.get("h", image_size[1])
    fx, fy = _focal_lengths(values, width, height, where)
    start = (fx, fy, values.get("cx", width / 2), values.get("cy", height / 2))
    k1, k2, k3, k4, k5, k6, p1, p2 = (values.get(f, 0.0) for f in ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2"))
    model = str(values.get("camera_model", "OPENCV")).upper()
    if values.get("is_fisheye") or model == "OPENCV_FISHEYE":
        _refuse_unused(values, ("k5", "k6", "p1", "p2"), "a fisheye lens", "0, as it has k1 to k4 only", where)
        return make_lens("OPENCV_FISHEYE", width, height, (*start, k1, k2, k3, k4), where)
    if model not in ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "FULL_OPENCV"):
        raise ValueError(f"{where}: camera_model {model!r}; wanted PINHOLE, OPENCV or OPENCV_FISHEYE")
    if model != "FULL_OPENCV":
        remedy = "0, is_fisheye: true, or camera_model FULL_OPENCV"
        _refuse_unused(values, ("k4", "k5", "k6"), "a perspective lens", remedy, where)
    if any((k3, k4, k5, k6)):
        return make_lens("FULL_OPENCV", width, height, (*start, k1, k2, p1, p2, k3, k4, k5, k6), where)
    if any((k1, k2, p1, p2)):
        return make_lens("OPENCV", width, height, (*start, k1, k2, p1, p2), where)
    return make_lens("PINHOLE", width, height, start, where)


def _merge_fields(file: FramesFile, frame: Frame, where: str) -> dict[str, Any]:
    """Merge the lens fields of file and frame, of which those of the frame are preferred."""
    try:
        file_values, frame_values = file.lens_fields, frame.lens_fields
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    if frame_values.keys() & set(FOCAL_FIELDS):
        file_values = {name: value for name, value in file_values.items() if name not in FOCAL_FIELDS}
    return file_values | frame_values


def _refuse_unused(values: Mapping[str, Any], names: Sequence[str], lens: str, wanted: str, where: str) -> None:
    for name in names:
        if values.get(name):
            raise ValueError(f"{where}: {name} = {values[name]:g} on {lens}; wanted {wanted}")


def tell_by_center(file: FramesFile, frame: Frame) -> Callable[[tuple[int, int]], bool] | None:
    """Return a test that tells by the principal point which size an image had when its pose was found.

    None where the file states the size, which tells more.
    """
    if any(fields.w is not None and fields.h is not None for fields in (file, frame)):
        return None
    cx, cy = (getattr(frame, name) or getattr(file, name) for name in ("cx", "cy"))
    if cx is None or cy is None:
        return lambda _: True
    return lambda size: abs(cx / size[0] - 0.5) <= 0.1 and abs(cy / size[1] - 0.5) <= 0.1


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
