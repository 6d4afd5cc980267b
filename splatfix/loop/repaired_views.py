"""Repaired views as the loop keeps them: one form for checkpoints and for training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from splatfix.cameras import Camera
from splatfix.color_fit import ColorFit
from splatfix.evaluation.repairs import ColorCorrection, RepairRecord
from splatfix.flawed import FlawedView
from splatfix.loop.config import RepairConfig
from splatfix.restoration import Repaired
from splatfix.restoration.color_match import match_color
from splatfix.restoration.quality import compute_quality
from splatfix.shapes import Float, UInt8
from splatfix.splats.losses import TrainingView


@dataclass(frozen=True, eq=False)
class RepairedView:
    """A repaired novel view in 8 bits. Training starts from these, so a resumed run sees the same pixels.

    Attributes:
        camera: where it was rendered.
        rgb: the repaired image, ``[H, W, 3]``.
        confidence: how far each pixel is trusted, 255 is fully, ``[H, W]``; None trusts all.
        color_fit: the color map that was applied to it; None for none.
    """

    camera: Camera
    rgb: UInt8[Tensor, "H W 3"]
    confidence: UInt8[Tensor, "H W"] | None
    color_fit: ColorFit | None = None

    def to_state(self) -> dict[str, Any]:
        """The values that a checkpoint holds."""
        return {
            **self.camera.to_json(),
            "rgb": self.rgb,
            "confidence": self.confidence,
            "color_fit": None if self.color_fit is None else dict(vars(self.color_fit)),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> RepairedView:
        """Inverse of `to_state`."""
        fitted = state.get("color_fit")  # checkpoints of earlier versions have none
        color_fit = None if fitted is None else ColorFit(**fitted)
        return cls(Camera.from_json(state), state["rgb"], state["confidence"], color_fit)


def prepare_repairs(
    views: Sequence[FlawedView], repaired: Sequence[Repaired], config: RepairConfig
) -> list[RepairedView]:
    """Prepare repaired views for training: map their colors, weigh their pixels, round to 8 bits.

    Colors are scaled to those of the photos where ``config.color_fit`` asks for it (`restoration.color_match`). The
    confidence is the product of the restorer's own, the agreement of the fits (``exp(-spread / spread_scale)``) and the
    agreement with the photos (`restoration.quality`), as far as each exists and ``config`` asks for it.
    """
    prepared = []
    for view, repair in zip(views, repaired, strict=True):
        color_fit = None
        if config.color_fit is not None:
            repair, color_fit = match_color(view, repair)
        factors = [] if repair.confidence is None else [repair.confidence]
        if view.spread is not None and config.spread_scale is not None:
            factors.append(torch.exp(-view.spread / config.spread_scale))
        if config.quality_scale is not None:
            factors.append(compute_quality(view, repair.rgb, scale=config.quality_scale, unseen=config.unseen_trust))
        confidence = _to_8_bits(math.prod(factors[1:], start=factors[0])) if factors else None
        prepared.append(RepairedView(view.camera, _to_8_bits(repair.rgb), confidence, color_fit))
    return prepared


def record_repairs(views: Sequence[RepairedView], round_number: int) -> list[RepairRecord]:
    """Describe the repaired views of a round for ``repairs.json``."""
    return [
        RepairRecord(
            round=round_number,
            name=view.camera.name,
            color=None if view.color_fit is None else _record_color(view.color_fit),
            confidence=1.0 if view.confidence is None else float(view.confidence.float().mean()) / 255,
        )
        for view in views
    ]


def make_training_views(views: Sequence[RepairedView], weight: float) -> list[TrainingView]:
    """Training views of repaired views; ``weight`` is the factor of their loss."""
    return [
        TrainingView(
            view.camera,
            view.rgb.float() / 255,
            weight,
            None if view.confidence is None else view.confidence.float() / 255,
        )
        for view in views
    ]


def _record_color(fit: ColorFit) -> ColorCorrection:
    return ColorCorrection(form=fit.form, gain=fit.gain, bias=fit.bias, inlier_share=fit.inlier_share)


def _to_8_bits(image: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
    return (image.clamp(0, 1) * 255).round().to(torch.uint8)
