"""Images too large for one pass: overlapping tiles, blended by linear ramps."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from splatfix.shapes import Float

TILE_PX, TILE_OVERLAP_PX = 1024, 64  # default size of a tile, and of the part that neighbors share


def apply_in_tiles(
    function: Callable[[Tensor], Tensor], inputs: Float[Tensor, "B C H W"], tile_px: int, overlap_px: int
) -> Float[Tensor, "B D H W"]:
    """Compute ``function(inputs)``, tile by tile where a side is longer than ``tile_px``."""
    height, width = inputs.shape[2:]
    if max(height, width) <= tile_px:
        return function(inputs)
    total: Tensor | None = None
    weights = inputs.new_zeros(height, width)
    for top in _tile_starts(height, tile_px, overlap_px):
        for left in _tile_starts(width, tile_px, overlap_px):
            window = (slice(top, top + tile_px), slice(left, left + tile_px))
            tile = function(inputs[..., window[0], window[1]])
            ramp = _ramp(tile.shape[-2], overlap_px, tile)[:, None] * _ramp(tile.shape[-1], overlap_px, tile)
            if total is None:
                total = tile.new_zeros(*tile.shape[:2], height, width)
            total[..., window[0], window[1]] += tile * ramp
            weights[window] += ramp
    assert total is not None
    return total / weights


def _tile_starts(length_px: int, tile_px: int, overlap_px: int) -> list[int]:
    """First pixels of the tiles: evenly spaced, the last flush with the end, neighbors sharing at least the overlap."""
    if length_px <= tile_px:
        return [0]
    num = -(-(length_px - overlap_px) // (tile_px - overlap_px))
    return [round(i * (length_px - tile_px) / (num - 1)) for i in range(num)]


def _ramp(length_px: int, overlap_px: int, like: Tensor) -> Float[Tensor, " L"]:
    """Blending weights along a side, with the device and dtype of ``like``: 1, falling linearly towards both ends."""
    position = torch.arange(length_px, device=like.device, dtype=like.dtype) + 0.5
    return torch.minimum(position, length_px - position).clamp(max=overlap_px / 2) / max(overlap_px / 2, 0.5)
