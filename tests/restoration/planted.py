"""Photos with Gaussians planted at known pixels, as a sparse fit leaves them in a novel view."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

VISIBLE = 0.06  # change of a color channel from which a pixel belongs to a planted Gaussian
MIN_CONTRAST = 0.15


@dataclass(frozen=True, kw_only=True)
class Planted:
    """An image with planted Gaussians.

    Attributes:
        rgb: the image, ``[H, W, 3]``.
        masks: the pixels that each has changed visibly, ``[N, H, W]``.
        is_needle: whether each is stretched (the others are floaters), ``[N]``.
    """

    rgb: np.ndarray
    masks: np.ndarray
    is_needle: np.ndarray

    @property
    def truth(self) -> np.ndarray:
        """The pixels that any has changed, ``[H, W]``."""
        return self.masks.any(0)


def plant_gaussians(photo: np.ndarray, rng: np.random.Generator, *, needles: int = 6, floaters: int = 3) -> Planted:
    """Blend stretched Gaussians (0.8 to 2.5 px wide, 8 to 20 times as long) and floaters (4 to 10 px) over a photo.

    Sizes are for a longest side of 320 px and grow with the photo. Colors are of other places of the photo, up to 30 %
    darker or 20 % lighter, and differ from the background.
    """
    height, width = photo.shape[:2]
    y, x = np.mgrid[:height, :width] + 0.5
    unit = max(height, width) / 320
    rgb, masks = photo.astype(np.float64), []
    is_needle = [True] * needles + [False] * floaters
    for needle in is_needle:
        for attempt in range(300):
            short = unit * (rng.uniform(0.8, 2.5) if needle else rng.uniform(4, 10))
            long = short * (rng.uniform(8, 20) if needle else rng.uniform(1, 2.5))
            angle, center_x, center_y = rng.uniform(0, np.pi), rng.uniform(0, width), rng.uniform(0, height)
            cos, sin = np.cos(angle), np.sin(angle)
            along = ((x - center_x) * cos + (y - center_y) * sin) / long
            across = ((y - center_y) * cos - (x - center_x) * sin) / short
            opacity = rng.uniform(0.6, 0.95) * np.exp(-0.5 * (along**2 + across**2))
            color = photo[rng.integers(height), rng.integers(width)] * rng.uniform(0.7, 1.2)
            if attempt > 200:  # a photo of one color
                color = rng.uniform(0, 1, 3)
            blended = rgb + opacity[..., None] * (np.clip(color, 0, 1) - rgb)
            core = opacity > opacity.max() / 2
            mask = np.abs(blended - rgb).max(-1) > VISIBLE
            contrast = np.abs(rgb[core].mean(0) - color).max() if core.any() else 0
            if mask.sum() >= 8 and core.sum() >= 8 and contrast >= MIN_CONTRAST:
                break
        rgb = blended
        masks.append(mask)
    return Planted(rgb=rgb.astype(np.float32), masks=np.array(masks), is_needle=np.array(is_needle))
