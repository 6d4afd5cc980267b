"""Lenses: camera models with distortion, and their undistortion to pinhole images.

pycolmap implements the models; this module represents them as plain values and resamples images through them.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy import ndarray

from splatfix.cameras import limit_size
from splatfix.images import resize
from splatfix.process import keeping_handler
from splatfix.shapes import Float, Shaped

with keeping_handler(signal.SIGTERM):  # pycolmap's own handler prints a stack trace at every stop
    import pycolmap

PINHOLES = ("SIMPLE_PINHOLE", "PINHOLE")
WIDE_MODELS = ("FISHEYE", "FOV", "EUCM", "DIVISION")  # in the names of models of lenses of up to 180 degrees and more
MAX_PIXEL_ASPECT = 2.0  # of the focal lengths along x and y; that of anamorphic video is up to 1.5
MIN_KEPT_SHARE = 0.25  # of the width and height of the photo that must remain after undistortion
NUM_PARAMS = {
    name: len(pycolmap.Camera(model=name, width=1, height=1, params=[]).params_info.split(","))
    for name in pycolmap.CameraModelId.__members__
    if name not in ("INVALID", "EQUIRECTANGULAR")  # a panorama has no pinhole image
}
MODEL_OF_ID = {pycolmap.CameraModelId.__members__[name].value: name for name in NUM_PARAMS}


@dataclass(frozen=True)
class Lens:
    """A camera model of COLMAP with its parameters (focal lengths and principal point first, in pixels)."""

    model: str
    width_px: int
    height_px: int
    params: tuple[float, ...]

    @property
    def is_pinhole(self) -> bool:
        """Whether images of this lens need no undistortion: a pinhole model, or distortion that is exactly zero."""
        num_focal_and_center = 4 if self._colmap().params_info.startswith("fx") else 3
        return self.model in PINHOLES or ("FISHEYE" not in self.model and not any(self.params[num_focal_and_center:]))

    def _colmap(self) -> pycolmap.Camera:
        return pycolmap.Camera(model=self.model, width=self.width_px, height=self.height_px, params=list(self.params))


@dataclass(frozen=True)
class Pinhole:
    """The undistorted image of a lens: its size and intrinsics, at the scale of the lens."""

    width_px: int
    height_px: int
    fx: float
    fy: float
    cx: float
    cy: float

    @property
    def intrinsics(self) -> Float[ndarray, "3 3"]:
        """``K`` in pixels."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]])


def make_lens(model: str, width_px: float, height_px: float, params: tuple[float, ...], where: str) -> Lens:
    """Make a lens from checked values. ``where`` names file and field in errors.

    Raises:
        ValueError: unknown model, wrong number of parameters, size or focal length that is not positive, not a number.
    """
    if model not in NUM_PARAMS:
        raise ValueError(f"{where}: camera model {model!r} has no pinhole image; wanted one of {', '.join(NUM_PARAMS)}")
    if len(params) != NUM_PARAMS[model]:
        raise ValueError(f"{where}: {len(params)} parameters for {model}; wanted {NUM_PARAMS[model]}")
    if not np.isfinite([width_px, height_px, *params]).all():
        raise ValueError(f"{where}: intrinsics {[width_px, height_px, *params]}; wanted finite numbers")
    if width_px < 1 or height_px < 1 or width_px != int(width_px) or height_px != int(height_px):
        raise ValueError(f"{where}: image size {width_px:g}x{height_px:g}; wanted positive whole numbers")
    lens = Lens(model, int(width_px), int(height_px), tuple(float(p) for p in params))
    focals = params[:2] if lens._colmap().params_info.startswith("fx") else params[:1]
    if min(focals) <= 0:
        raise ValueError(f"{where}: focal length {min(focals):g} px; wanted a positive number")
    return lens


@lru_cache(maxsize=256)
def describe_impossible(lens: Lens) -> str | None:
    """Describe intrinsics that cannot belong to an image of the lens's size, and what to give; None if they can.

    The principal point of a photo is near its middle; one in the outer quarters is that of an image of another size.
    """
    width, height = lens.width_px, lens.height_px
    k = lens._colmap().calibration_matrix()
    fx, fy, cx, cy = (float(k[at]) for at in ((0, 0), (1, 1), (0, 2), (1, 2)))
    seen = f"focal length {fx:g}, {fy:g} and principal point {cx:g}, {cy:g} in an image of {width}x{height}"
    if min(width, height) > 8 and (max(cx, cy) <= 2 or max(fx, fy) <= 4):
        return f"{seen}: normalized; wanted pixels, which are fractions times the width (fx, cx) and height (fy, cy)"
    if not (width / 4 < cx < 3 * width / 4 and height / 4 < cy < 3 * height / 4):
        return f"{seen}; wanted a principal point in its middle half: give the size (w, h) of the image it belongs to"
    least = width / 6 if any(name in lens.model for name in WIDE_MODELS) else width / 3
    if not least <= fx <= 30 * width:
        return (
            f"{seen}; wanted a focal length from {least:.0f} to {30 * width} pixels: give the size (w, h) of the image "
            "it belongs to, and the focal length in pixels"
        )
    if not 1 / MAX_PIXEL_ASPECT <= fx / fy <= MAX_PIXEL_ASPECT:
        return (
            f"{seen}; wanted focal lengths along x and y within a factor of {MAX_PIXEL_ASPECT:g}: is one of them wrong?"
        )
    return None


@lru_cache(maxsize=256)
def compute_pinhole(lens: Lens) -> Pinhole:
    """Compute the largest pinhole image without blank pixels: COLMAP's undistortion with ``blank_pixels = 0``.

    The focal lengths are kept and the image is cropped. If it still has pixels without a source (the distortion of some
    lenses folds back near the corners), it is cropped further about the principal point.

    Raises:
        ValueError: less than a quarter of the width or height would remain.
    """
    if lens.is_pinhole:
        k = lens._colmap().calibration_matrix()
        return Pinhole(lens.width_px, lens.height_px, *(float(v) for v in (k[0, 0], k[1, 1], k[0, 2], k[1, 2])))
    undistorted = pycolmap.undistort_camera(pycolmap.UndistortCameraOptions(), lens._colmap())
    fx, fy, cx, cy = (float(v) for v in undistorted.params)
    for share in np.arange(1.0, 0.0, -0.02):
        x0, x1 = np.ceil(cx - cx * share), np.floor(cx + (undistorted.width - cx) * share)
        y0, y1 = np.ceil(cy - cy * share), np.floor(cy + (undistorted.height - cy) * share)
        cropped = Pinhole(int(x1 - x0), int(y1 - y0), fx, fy, cx - float(x0), cy - float(y0))
        if min(cropped.width_px / lens.width_px, cropped.height_px / lens.height_px) < MIN_KEPT_SHARE:
            break
        if _has_source_everywhere(lens, cropped):
            return cropped
    raise ValueError(
        f"{lens.model} with parameters {list(lens.params)} cannot be undistorted at {lens.width_px}x{lens.height_px}: "
        "its distortion folds back near the middle of the image; wanted parameters as COLMAP estimates them"
    )


def _has_source_everywhere(lens: Lens, image: Pinhole) -> bool:
    """Whether each pixel has a source inside the photo, where the distortion can be inverted."""
    across, down = np.linspace(0, image.width_px, 65), np.linspace(0, image.height_px, 65)
    rays = _rays(image.intrinsics, *np.meshgrid(across, down))
    source = lens._colmap().img_from_cam(rays)
    with np.errstate(invalid="ignore"):
        inside = (source >= -1) & (source <= np.array([lens.width_px, lens.height_px]) + 1)
        back = lens._colmap().cam_from_img(source)
        same = np.abs(back - rays[:, :2]) * max(image.fx, image.fy) < 0.5
    return bool(inside.all() and same.all())


def _rays(intrinsics: Float[ndarray, "3 3"], x: ndarray, y: ndarray) -> Float[ndarray, "N 3"]:
    pixels = np.stack([x, y, np.ones_like(x)], axis=-1).reshape(-1, 3)
    return pixels @ np.linalg.inv(intrinsics).T


def undistort(
    image: Shaped[ndarray, "H W C"],
    lens: Lens,
    width_px: int,
    height_px: int,
    *,
    shrink: Callable[[Shaped[ndarray, "H W C"], int, int], Float[ndarray, "h w D"]] = resize,
) -> Float[ndarray, "h w D"]:
    """Resample a photo through ``lens`` to its pinhole image, at ``width_px x height_px``.

    The photo may have another size than the lens. It is resampled once (bicubic), at its own resolution or at twice the
    wanted one if that is lower, and then averaged over areas. ``shrink`` resizes it before that, to width and height,
    and may add channels.
    """
    height, width = image.shape[:2]
    ideal = compute_pinhole(lens)
    scale = max(width / lens.width_px, height / lens.height_px)
    work_px = min(max(ideal.width_px, ideal.height_px) * scale, 2 * max(width_px, height_px))
    work_width = max(width_px, round(work_px * ideal.width_px / max(ideal.width_px, ideal.height_px)))
    work_height = max(height_px, round(work_px * ideal.height_px / max(ideal.width_px, ideal.height_px)))
    source_scale = work_px / (max(ideal.width_px, ideal.height_px) * scale)
    source = shrink(image, *limit_size(width, height, int(np.ceil(source_scale * max(width, height)))))
    grid = torch.from_numpy(_sampling_grid(lens, work_width, work_height))
    planes = torch.from_numpy(np.ascontiguousarray(source)).permute(2, 0, 1)[None]
    sampled = torch.nn.functional.grid_sample(
        planes, grid[None], mode="bicubic", padding_mode="border", align_corners=False
    )
    return resize(sampled[0].permute(1, 2, 0).clamp(0, 1).numpy(), width_px, height_px)


@lru_cache(maxsize=2)
def _sampling_grid(lens: Lens, width_px: int, height_px: int) -> Float[ndarray, "h w 2"]:
    """Position in the photo of each pixel of the pinhole image, in [-1, 1] from edge to edge."""
    ideal = compute_pinhole(lens)
    x, y = np.meshgrid(np.arange(width_px) + 0.5, np.arange(height_px) + 0.5)
    rays = _rays(ideal.intrinsics, x * (ideal.width_px / width_px), y * (ideal.height_px / height_px))
    source = lens._colmap().img_from_cam(rays) / np.array([lens.width_px, lens.height_px])
    return (2 * source - 1).astype(np.float32).reshape(height_px, width_px, 2)
