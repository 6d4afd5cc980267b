"""Enlarging, padding and cropping views for a model."""

from __future__ import annotations

import pytest
import torch

from splatfix.restoration.flux.options import SizeOptions
from splatfix.restoration.flux.sizes import ModelFrame, fit_to


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 3), (41, 50), (48, 64), (33, 17)])
@pytest.mark.parametrize("multiple", [8, 16, 64])
def test_padding_is_cropped_exactly(height: int, width: int, multiple: int) -> None:
    frame = ModelFrame.choose(height, width, multiple, SizeOptions(min_side_px=0))
    images = torch.rand(2, 3, height, width)
    enclosed = frame.enclose(images)
    assert enclosed.shape[2] % multiple == enclosed.shape[3] % multiple == 0
    assert enclosed.shape[2] - height < multiple and enclosed.shape[3] - width < multiple
    assert torch.equal(frame.extract(enclosed), images)


def test_padding_reflects_without_repeating_the_edge() -> None:
    frame = ModelFrame.choose(2, 3, 8, SizeOptions(min_side_px=0))
    row = frame.enclose(torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])[None, None])[0, 0, 0]
    assert row.tolist() == pytest.approx([0.1, 0.2, 0.3, 0.2, 0.1, 0.2, 0.3, 0.2])


@pytest.mark.parametrize(("height", "width", "scaled"), [(30, 41, (60, 82)), (90, 70, (90, 70)), (60, 200, (48, 160))])
def test_small_views_are_enlarged_and_large_ones_reduced(height: int, width: int, scaled: tuple[int, int]) -> None:
    frame = ModelFrame.choose(height, width, 16, SizeOptions(min_side_px=60, max_side_px=160))
    assert (frame.scaled_height_px, frame.scaled_width_px) == scaled
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    ramp = torch.stack([y, x, 1 - x])[None]
    back = frame.extract(frame.enclose(ramp))
    assert back.shape == ramp.shape
    assert (back - ramp).abs().max() < 0.03


def test_other_sizes_are_scaled_to_that_of_the_model() -> None:
    frame = ModelFrame.choose(20, 30, 16, SizeOptions(min_side_px=0))
    assert fit_to(torch.rand(1, 3, 64, 96), frame).shape == (1, 3, 32, 32)
