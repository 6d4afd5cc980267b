"""Previews of a training: pairs of held-out groups before and after repair, as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy import ndarray

from splatfix.images import resize, write_image
from splatfix.pairs import Pair
from splatfix.shapes import Float
from splatfix.training.validation import Repair

MAX_ROWS = 8
ERROR_GAIN = 4.0
HEIGHT_PX = 160


def draw_preview(repair: Repair, pairs: Sequence[Pair]) -> Float[ndarray, "H W 3"]:
    """Draw a row for the first pair of each scene: render, repaired, clean, and both errors, four times as bright.

    The repaired image has the whole correction, whatever strength was validated. All rows have the same height.
    """
    first: dict[str, Pair] = {}
    for pair in pairs:
        first.setdefault(pair.scene, pair)
    rows = []
    for pair in list(first.values())[:MAX_ROWS]:
        conditioning, (clean, weight) = pair.conditioning(), pair.target()
        images = [conditioning.rgb, repair(conditioning).rgb.clamp(0, 1), clean]
        images += [(ERROR_GAIN * weight[..., None] * (image - clean).abs()).clamp(0, 1) for image in images[:2]]
        row = torch.cat(images, dim=1).numpy()
        rows.append(resize(row, max(1, round(row.shape[1] * HEIGHT_PX / len(row))), HEIGHT_PX))
    width = max(row.shape[1] for row in rows)
    return np.concatenate([np.pad(row, ((0, 4), (0, width - row.shape[1]), (0, 0))) for row in rows])


def save_preview(path: Path, repair: Repair, pairs: Sequence[Pair]) -> None:
    """Write the picture of `draw_preview` as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, draw_preview(repair, pairs))
