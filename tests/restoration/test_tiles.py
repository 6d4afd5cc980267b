"""Tiles blend to the result of the whole image."""

from __future__ import annotations

import pytest
import torch

from splatfix.restoration.tiles import apply_in_tiles


@pytest.mark.parametrize("size", [(40, 50), (90, 40), (64, 129)])
def test_tiles_of_a_local_function_make_the_whole(size):
    inputs = torch.rand(1, 3, *size)

    def blur(x):
        return torch.nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)

    blended = apply_in_tiles(blur, inputs, tile_px=48, overlap_px=16)
    whole = blur(inputs)
    assert blended.shape == whole.shape
    assert (blended - whole).abs().max() < 0.15  # tile borders see one pixel less, at small weight
    assert (blended - whole).abs().mean() < 2e-3
    torch.testing.assert_close(apply_in_tiles(lambda x: x, inputs, 48, 16), inputs)
