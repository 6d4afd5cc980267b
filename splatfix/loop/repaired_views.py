"""Repaired views as the loop keeps them: one form for checkpoints and for training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from splatfix.cameras import Camera
from splatfix.flawed import FlawedView
from splatfix.restoration import Repaired
from splatfix.shapes import Float, UInt8
from splatfix.splats.train import TrainingView


@dataclass(frozen=True, eq=False)
class RepairedView:
    """A repaired novel view in 8 bits. Training starts from these, so a resumed run sees the same pixels.

    Attributes:
        camera: where it was rendered.
        rgb: the repaired image, ``[H, W, 3]``.
        confidence: how far each pixel is trusted, 255 is fully, ``[H, W]``; None trusts all.
    """

    camera: Camera
    rgb: UInt8[Tensor, "H W 3"]
    confidence: UInt8[Tensor, "H W"] | None

    def to_state(self) -> dict[str, Any]:
        """The values that a checkpoint holds."""
        camera = self.camera
        return {
            "name": camera.name,
            "width_px": camera.width_px,
            "height_px": camera.height_px,
            "intrinsics": camera.intrinsics.tolist(),
            "camera_from_world": camera.camera_from_world.tolist(),
            "rgb": self.rgb,
            "confidence": self.confidence,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> RepairedView:
        """Inverse of `to_state`."""
        camera = Camera(
            state["name"],
            state["width_px"],
            state["height_px"],
            np.array(state["intrinsics"]),
            np.array(state["camera_from_world"]),
        )
        return cls(camera, state["rgb"], state["confidence"])


def quantize_repairs(
    views: Sequence[FlawedView], repaired: Sequence[Repaired], *, spread_scale: float | None
) -> list[RepairedView]:
    """Round repaired views to 8 bits, with a confidence per pixel.

    It is the restorer's, where it gives one, times ``exp(-spread / spread_scale)`` of the fits, where ``spread_scale``
    is given and there are several.
    """
    quantized = []
    for view, repair in zip(views, repaired, strict=True):
        confidence = repair.confidence
        if view.spread is not None and spread_scale is not None:
            agreement = torch.exp(-view.spread / spread_scale)
            confidence = agreement if confidence is None else confidence * agreement
        quantized.append(
            RepairedView(view.camera, _to_8_bits(repair.rgb), None if confidence is None else _to_8_bits(confidence))
        )
    return quantized


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


def _to_8_bits(image: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
    return (image.clamp(0, 1) * 255).round().to(torch.uint8)
