"""Resample photos of which some pixels are to be ignored: no color of an ignored pixel reaches any other."""

from __future__ import annotations

import numpy as np
from numpy import ndarray

from splatfix.images import resize
from splatfix.shapes import Bool, Float, Shaped

ROUNDING = 1e-4  # a validity this close to 0 or 1 is meant to be that
GRAY = 0.5  # of an image without a valid pixel


def resize_valid(
    image: Shaped[ndarray, "H W C"], width_px: int, height_px: int, *, is_valid: Bool[ndarray, "H W"]
) -> Float[ndarray, "h w D"]:
    """Shrink an image (uint8, uint16 or float): pixels become means over their valid parts alone.

    Those without a valid part are filled smoothly from those around them, so that a later resampling may blend them
    with others: with the mean of the nearest valid ones at every scale (pull-push, Gortler et al. 1996).

    Returns the channels of the image as floats, and the validity as one more: the share of each pixel that is valid.
    """
    validity = resize(is_valid.astype(np.uint8) * np.uint8(255), width_px, height_px)[..., None]
    kept = resize(image * is_valid[..., None], width_px, height_px)
    means = np.clip(kept / np.maximum(validity, ROUNDING), 0, 1)
    validity = np.where(validity < ROUNDING, 0, np.where(validity > 1 - ROUNDING, 1, validity))
    return np.concatenate([_fill(means, validity[..., 0] > 0), validity], axis=2, dtype=np.float32)


def _fill(image: Float[ndarray, "H W C"], is_valid: Bool[ndarray, "H W"]) -> Float[ndarray, "H W C"]:
    """Fill the other pixels of an image from the valid ones."""
    height, width = is_valid.shape
    if is_valid.all():
        return image
    if not is_valid.any():
        return np.full_like(image, GRAY)
    coarse = resize_valid(image, (width + 1) // 2, (height + 1) // 2, is_valid=is_valid)[..., :-1]
    return np.where(is_valid[..., None], image, resize(coarse, width, height))
