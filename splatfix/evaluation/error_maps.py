"""Error maps: absolute error as colors, and their legend."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy import ndarray
from torch import Tensor

from splatfix.shapes import Float

IGNORED_GRAY = 0.5
ERROR_MAX = 0.3  # mean absolute error that takes the hottest color; the same for every arm and view


def error_map(
    render: Float[Tensor, "H W 3"] | ndarray,
    photo: Float[Tensor, "H W 3"] | ndarray,
    vmax: float = ERROR_MAX,
    *,
    validity: Float[Tensor, "H W"] | Float[ndarray, "H W"] | None = None,
) -> Float[ndarray, "H W 3"]:
    """Absolute error, mean over the channels, as colors: black is none, hotter is larger, ``vmax`` and more is palest.

    Pixels that the ``validity`` of the photo ignores are gray.

    The color map is matplotlib's perceptually uniform "inferno". Returns float32 RGB in [0, 1].
    """
    error = np.abs(_array(render) - _array(photo)).mean(axis=-1) / vmax
    index = np.clip(np.nan_to_num(error, nan=1.0) * 255 + 0.5, 0, 255).astype(np.uint8)
    colors = _inferno()[index]
    return colors if validity is None else mark_ignored(colors, validity)


def mark_ignored(
    image: Float[ndarray, "H W 3"], validity: Float[Tensor, "H W"] | Float[ndarray, "H W"]
) -> Float[ndarray, "H W 3"]:
    """Paint the ignored pixels of an image gray."""
    share = _array(validity)[..., None]
    return share * image + (1 - share) * np.float32(IGNORED_GRAY)


def error_legend(num_stops: int = 9) -> list[str]:
    """Colors of `error_map` from 0 to ``ERROR_MAX``, evenly spaced, as ``#rrggbb`` (for a legend)."""
    table = _inferno()[np.linspace(0, 255, num_stops).round().astype(int)]
    return ["#" + "".join(f"{round(float(channel) * 255):02x}" for channel in row) for row in table]


@lru_cache(maxsize=1)
def _inferno() -> Float[ndarray, "256 3"]:
    import matplotlib

    return matplotlib.colormaps["inferno"](np.arange(256))[:, :3].astype(np.float32)


def _array(image: Tensor | ndarray) -> ndarray:
    if isinstance(image, Tensor):
        image = image.detach().cpu().numpy()
    return np.asarray(image, np.float32)
