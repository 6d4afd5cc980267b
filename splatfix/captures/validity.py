"""Resample photos of which some pixels are to be ignored: no color of an ignored pixel reaches any other.

The last channel of such an image is the validity: the share of a pixel that is not ignored, in [0, 1].
"""

from __future__ import annotations

import numpy as np
from numpy import ndarray

from splatfix.images import resize
from splatfix.shapes import Float

ROUNDING = 1e-4  # a validity this close to 0 or 1 is meant to be that
GRAY = 0.5  # of an image without a valid pixel


def resize_valid(image: Float[ndarray, "H W C"], width_px: int, height_px: int) -> Float[ndarray, "h w C"]:
    """Shrink an image whose last channel is its validity: the other channels become means over valid pixels alone.

    Pixels without a valid source are filled from those around them (`fill_ignored`), so that a later resampling may
    blend them with others.
    """
    validity = image[..., -1:]
    resized = resize(np.concatenate([image[..., :-1] * validity, validity], axis=2), width_px, height_px)
    validity = resized[..., -1:]
    means = np.clip(resized[..., :-1] / np.maximum(validity, ROUNDING), 0, 1)
    validity = np.where(validity < ROUNDING, 0, np.where(validity > 1 - ROUNDING, 1, validity))
    return fill_ignored(np.concatenate([means, validity], axis=2).astype(np.float32))


def fill_ignored(image: Float[ndarray, "H W C"]) -> Float[ndarray, "H W C"]:
    """Fill pixels of validity 0 smoothly from the valid ones around them: the mean of the nearest at every scale.

    The validity, the last channel, is not changed (pull-push interpolation, Gortler et al. 1996).
    """
    height, width = image.shape[:2]
    is_valid = image[..., -1:] > 0
    if is_valid.all():
        return image
    if not is_valid.any():
        return np.concatenate([np.full_like(image[..., :-1], GRAY), image[..., -1:]], axis=2)
    known = np.concatenate([image[..., :-1], is_valid.astype(np.float32)], axis=2)
    coarse = resize(resize_valid(known, (width + 1) // 2, (height + 1) // 2), width, height)
    return np.concatenate([np.where(is_valid, image, coarse)[..., :-1], image[..., -1:]], axis=2)
