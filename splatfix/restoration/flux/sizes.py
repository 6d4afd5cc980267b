"""Sizes that a model takes: views are enlarged and padded for it, and brought back exactly."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from splatfix.restoration.flux.options import SizeOptions
from splatfix.shapes import Bool, Float

COVERED = 0.1  # masked share from which a scaled pixel is repainted: above the overshoot of bicubic scaling


@dataclass(frozen=True, kw_only=True)
class ModelFrame:
    """How images of one size are brought to a size that a model takes, and back.

    Attributes:
        height_px, width_px: of the view.
        scaled_height_px, scaled_width_px: of the view as the model sees it, without padding.
        model_height_px, model_width_px: with padding at the bottom and the right; multiples of what the model takes.
    """

    height_px: int
    width_px: int
    scaled_height_px: int
    scaled_width_px: int
    model_height_px: int
    model_width_px: int

    @classmethod
    def choose(cls, height_px: int, width_px: int, multiple_px: int, size: SizeOptions) -> ModelFrame:
        """The frame for views of a size, for a model that takes multiples of ``multiple_px``."""
        scale = max(1.0, size.min_side_px / min(height_px, width_px))
        if size.max_side_px is not None:
            scale = min(scale, size.max_side_px / max(height_px, width_px))
        height, width = (max(1, round(scale * side)) for side in (height_px, width_px))
        return cls(
            height_px=height_px,
            width_px=width_px,
            scaled_height_px=height,
            scaled_width_px=width,
            model_height_px=-(-height // multiple_px) * multiple_px,
            model_width_px=-(-width // multiple_px) * multiple_px,
        )

    def enclose(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H2 W2"]:
        """Scale images of the view's size (bicubic, in [0, 1]) and pad them by reflection to the model's size."""
        images = _resized(images, self.scaled_height_px, self.scaled_width_px)
        images = _padded(images, self.model_height_px - self.scaled_height_px, dim=2)
        return _padded(images, self.model_width_px - self.scaled_width_px, dim=3)

    def extract(self, images: Float[Tensor, "B C H2 W2"]) -> Float[Tensor, "B C H W"]:
        """Undo `enclose`: crop the padding, then scale to the view's size. Exact where the scale is 1."""
        images = images[:, :, : self.scaled_height_px, : self.scaled_width_px]
        return _resized(images, self.height_px, self.width_px)


def fit_to(images: Float[Tensor, "B C H W"], frame: ModelFrame) -> Float[Tensor, "B C H2 W2"]:
    """Scale what a pipeline returned to the model's size, for pipelines that choose their own."""
    return _resized(images, frame.model_height_px, frame.model_width_px)


def _resized(images: Float[Tensor, "B C H W"], height_px: int, width_px: int) -> Float[Tensor, "B C H2 W2"]:
    if images.shape[2:] == (height_px, width_px):
        return images
    resized = F.interpolate(images, size=(height_px, width_px), mode="bicubic", antialias=True, align_corners=False)
    return resized.clamp(0, 1)


def _padded(images: Float[Tensor, "B C H W"], amount_px: int, dim: int) -> Float[Tensor, "B C H2 W2"]:
    """Reflect without repeating the edge; where the image is narrower than the padding, back and forth."""
    if not amount_px:
        return images
    side = images.shape[dim]
    period = max(2 * side - 2, 1)
    index = torch.arange(side + amount_px, device=images.device) % period
    return images.index_select(dim, torch.where(index < side, index, period - index))


def enclose_mask(mask: Bool[Tensor, "H W"], frame: ModelFrame) -> Float[Tensor, "1 H2 W2"]:
    """A mask at the size of the model: 1 where any part of a pixel that is masked is."""
    return (frame.enclose(mask.float()[None, None])[0] > COVERED).float()
