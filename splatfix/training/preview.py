"""An early look at a training: pairs of held-out groups before and after repair, as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy import ndarray

from splatfix.images import resize, write_image
from splatfix.pairs import Pair
from splatfix.restoration.nafnet.network import GuidedNet
from splatfix.restoration.nafnet.restorer import repair_whole
from splatfix.shapes import Float

MAX_ROWS = 8
ERROR_GAIN = 4.0
HEIGHT_PX = 160


def preview(network: GuidedNet, pairs: Sequence[Pair]) -> Float[ndarray, "H W 3"]:
    """One row for the first pair of each scene: render, repaired, clean, and the errors of both, four times as bright.

    What is shown is the whole correction, not the strength that is validated. All rows get the same height.
    """
    first: dict[str, Pair] = {}
    for pair in pairs:
        first.setdefault(pair.scene, pair)
    rows = []
    for pair in list(first.values())[:MAX_ROWS]:
        guidance, (clean, _) = pair.guidance(), pair.target()
        made = repair_whole(network, guidance).rgb[0].permute(1, 2, 0)
        images = [guidance.rgb, made.clamp(0, 1), clean]
        images += [(ERROR_GAIN * (image - clean).abs()).clamp(0, 1) for image in images[:2]]
        row = torch.cat(images, dim=1).numpy()
        rows.append(resize(row, max(1, round(row.shape[1] * HEIGHT_PX / len(row))), HEIGHT_PX))
    width = max(row.shape[1] for row in rows)
    return np.concatenate([np.pad(row, ((0, 4), (0, width - row.shape[1]), (0, 0))) for row in rows])


def save_preview(path: Path, network: GuidedNet, pairs: Sequence[Pair]) -> None:
    """Write the `preview` as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, preview(network, pairs))
