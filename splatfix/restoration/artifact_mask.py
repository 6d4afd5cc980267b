"""Artifact masks of renders: the pixels that a generative model should repaint.

A Gaussian that a sparse fit has stretched or left floating shows in a novel view as a ridge or blob, brighter or darker
than what is behind it. The Laplacian of Gaussian (LoG) is strongest at the scale of its width: one strong core, with
weak lobes of the opposite sign (45 % of the core for a ridge, 14 % for a round Gaussian). At an edge or a repeated
texture both signs are alike. The core of a Gaussian is also an ellipse; that of a bent contour is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from splatfix.shapes import Bool, Float, Int

Holes = Literal["auto", "all", "enclosed", "none"]
EIGHT = np.ones((3, 3), bool)  # neighbors
BLOB_SIGMA_PX = 3.0  # cores at finer scales have to be elongated: texture is full of small specks
LOBES = 2.5  # distance in scales at which the lobes of a ridge are
OPPOSITE = 0.6  # share of the response of the other sign that is taken off
REPEATED, REPEATED_REACH = 0.15, 8.0  # cores that cover more than this within so many scales are texture
CREST, CREST_REACH = 0.5, 1.5  # a core is at least half as strong as all within so many scales: not the foot of an edge


@dataclass(frozen=True, kw_only=True)
class MaskOptions:
    """Which pixels of a render are artifacts. Defaults were chosen on photos with planted Gaussians.

    Attributes:
        sigmas_px: scales of the LoG in pixels: about the standard deviations of the Gaussians that are found. An
            empty list marks holes alone.
        threshold: response of a core beyond that of the other sign beside it, in [0, 1] sRGB. Lower marks fainter
            artifacts and more texture.
        max_opposite: response of the other sign beside a core relative to its own, on average, at most.
        min_elongation: longest over shortest axis of a core; rounder ones count at scales from 3 px up alone.
        min_fill: share of its ellipse that a core fills, at least; 1 is an ellipse.
        min_area: of a core, in squared scales.
        max_detail: response at any finer scale relative to that of a core, on average, at most. A Gaussian hides what
            is finer than itself.
        extent: how far around a core the mask extends, in scales.
        dilation_px: by how much the whole mask is then dilated, in pixels.
        min_area_px: connected parts of the mask with fewer pixels are dropped, before the dilation.
        alpha_threshold: pixels with less alpha are holes; 0 for none.
        holes: which of them are marked: ``all``, those ``enclosed`` by the image and what is covered, or ``none``;
            ``auto`` marks all, unless half of the image's border is empty, as around an object without a background.
    """

    sigmas_px: tuple[float, ...] = (1.0, 1.5, 2.2, 3.3, 5.0, 7.5)
    threshold: float = 0.02
    max_opposite: float = 0.65
    min_elongation: float = 3.5
    min_fill: float = 0.8
    min_area: float = 5.0
    max_detail: float = 0.7
    extent: float = 1.5
    dilation_px: int = 0
    min_area_px: int = 0
    alpha_threshold: float = 0.5
    holes: Holes = "auto"

    def __post_init__(self) -> None:
        for sigma in self.sigmas_px:
            _require(0.5 <= sigma <= 100, "sigmas_px", list(self.sigmas_px), "scales from 0.5 to 100 px")
        _require(self.threshold > 0, "threshold", self.threshold, "a number above 0")
        for name in ("max_opposite", "extent", "max_detail"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "a number of at least 0")
        _require(self.min_elongation >= 1, "min_elongation", self.min_elongation, "at least 1")
        for name in ("min_fill", "alpha_threshold"):
            _require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "0 to 1")
        for name in ("min_area", "dilation_px", "min_area_px"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "at least 0")


def find_artifacts(
    rgb: Float[Tensor, "H W 3"], alpha: Float[Tensor, "H W"] | None = None, options: MaskOptions | None = None
) -> Bool[Tensor, "H W"]:
    """Mark the artifacts of a render: stretched or floating Gaussians by the LoG, and holes by alpha.

    The LoG is normalized by the squared scale (Lindeberg 1998, section 4), per color channel.

    Args:
        rgb: the render, in [0, 1].
        alpha: its accumulated opacity; None marks no holes.
        options: see `MaskOptions`.

    Returns True where a pixel should be repainted, on the device of ``rgb``.
    """
    from scipy import ndimage

    options = options or MaskOptions()
    image = rgb.detach().float().clamp(0, 1).cpu().numpy()
    mask = np.zeros(image.shape[:2], bool)
    detail = np.zeros(image.shape[:2], np.float32)  # the strongest response at finer scales
    for sigma_px in sorted(options.sigmas_px):
        responses = np.stack([_laplacian(channel, sigma_px) for channel in np.moveaxis(image, -1, 0)])
        cores = _find_cores(responses, detail, sigma_px, options)
        if cores.any():
            mask |= ndimage.distance_transform_edt(~cores) <= options.extent * sigma_px
        detail = np.maximum(detail, np.abs(responses).max(0))
    if alpha is not None:
        mask |= _find_holes(alpha.detach().float().cpu().numpy(), options)
    if options.min_area_px > 1:
        labels, _ = ndimage.label(mask, EIGHT)
        mask &= np.bincount(labels.ravel())[labels] >= options.min_area_px
    if options.dilation_px and mask.any():
        mask = ndimage.distance_transform_edt(~mask) <= options.dilation_px
    return torch.from_numpy(mask).to(rgb.device)


def _find_cores(
    responses: Float[ndarray, "C H W"], detail: Float[ndarray, "H W"], sigma_px: float, options: MaskOptions
) -> Bool[ndarray, "H W"]:
    """The cores of Gaussians about as wide as a scale, of either sign."""
    from scipy import ndimage

    relative_detail = detail / np.maximum(np.abs(responses).max(0), 1e-4)
    beside, near = (2 * round(reach * sigma_px) + 1 for reach in (LOBES, CREST_REACH))
    found = np.zeros(detail.shape, bool)
    for sign in (1, -1):
        excess, ratio = np.zeros_like(detail), np.ones_like(detail)
        for response in responses:  # each pixel takes the channel that shows it most
            core = np.maximum(sign * response, 0)
            other = ndimage.maximum_filter(np.maximum(-sign * response, 0), beside)
            is_crest = core >= CREST * ndimage.maximum_filter(core, near)
            above = np.where(is_crest, core - OPPOSITE * other, 0)
            ratio = np.where(above > excess, other / np.maximum(core, 1e-6), ratio)
            excess = np.maximum(excess, above)
        labels, num = ndimage.label(excess > options.threshold, EIGHT)
        if not num:
            continue
        index = np.arange(1, num + 1)
        area, elongation, fill = _shapes(labels, num)
        kept = ndimage.mean(ratio, labels, index) <= options.max_opposite
        if sigma_px < BLOB_SIGMA_PX:
            kept &= elongation >= options.min_elongation
        kept &= (fill >= options.min_fill) & (area >= options.min_area * sigma_px**2)
        kept &= ndimage.mean(relative_detail, labels, index) <= options.max_detail
        found |= _drop_repeated(np.concatenate([[False], kept])[labels], labels, sigma_px)
    return found


def _drop_repeated(cores: Bool[ndarray, "H W"], labels: Int[ndarray, "H W"], sigma_px: float) -> Bool[ndarray, "H W"]:
    """Drop cores among many of the same kind, as in a striped pattern."""
    from scipy import ndimage

    density = ndimage.uniform_filter(cores.astype(np.float32), round(2 * REPEATED_REACH * sigma_px) + 1, mode="nearest")
    index = np.arange(1, labels.max() + 1)
    dropped = ndimage.mean(density, labels, index) > REPEATED
    return cores & ~np.concatenate([[False], dropped])[labels]


def _laplacian(channel: Float[ndarray, "H W"], sigma_px: float) -> Float[ndarray, "H W"]:
    """The normalized response. The image is continued linearly beyond its border, since a kink there would respond."""
    from scipy import ndimage

    margin = min(int(4 * sigma_px) + 2, min(channel.shape) - 1)
    padded = np.pad(channel, margin, mode="reflect", reflect_type="odd")
    response = sigma_px**2 * ndimage.gaussian_laplace(padded, sigma_px, mode="nearest")
    return response[margin : response.shape[0] - margin, margin : response.shape[1] - margin]


def _shapes(
    labels: Int[ndarray, "H W"], num: int
) -> tuple[Float[ndarray, " N"], Float[ndarray, " N"], Float[ndarray, " N"]]:
    """Area in pixels, elongation (ratio of the axes) and filled share of the ellipse with the same second moments."""
    flat = labels.ravel()
    y, x = np.divmod(np.arange(flat.size, dtype=np.float64), labels.shape[1])

    def total(values: ndarray | None = None) -> ndarray:
        return np.bincount(flat, values, num + 1)[1:].astype(np.float64)

    area = total()
    mean_y, mean_x = total(y) / area, total(x) / area
    yy, xx = (total(a * a) / area - m**2 + 1 / 12 for a, m in ((y, mean_y), (x, mean_x)))
    xy = total(x * y) / area - mean_x * mean_y
    middle, spread = (yy + xx) / 2, np.hypot((yy - xx) / 2, xy)
    longest, shortest = np.sqrt(middle + spread), np.sqrt(np.maximum(middle - spread, 1 / 12))
    return area, longest / shortest, area / (4 * np.pi * longest * shortest)


def _find_holes(alpha: Float[ndarray, "H W"], options: MaskOptions) -> Bool[ndarray, "H W"]:
    """The pixels that the splat leaves empty and should not."""
    from scipy import ndimage

    empty = alpha < options.alpha_threshold
    if options.holes == "none" or not empty.any():
        return np.zeros_like(empty)
    border = np.concatenate([empty[0], empty[-1], empty[1:-1, 0], empty[1:-1, -1]])
    if options.holes == "all" or (options.holes == "auto" and border.mean() < 0.5):
        return empty
    return ndimage.binary_fill_holes(~empty) & empty


def _require(condition: bool, field: str, value: object, wanted: str) -> None:
    from splatfix.config import require  # networks and what they import need no pydantic

    require(condition, field, value, wanted)
