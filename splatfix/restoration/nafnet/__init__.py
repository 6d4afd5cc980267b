"""NAFNet restorers: architecture, network, checkpoint, model card and the shipped weights.

This module is what the rest of splatfix opens them by; it imports torch alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from splatfix.restoration.restorer import CheckpointKind, Restorer

SHIPPED_WEIGHTS = Path(__file__).parent / "weights"


@dataclass(frozen=True, kw_only=True)
class NafnetOptions:
    """Options of a NAFNet restorer.

    Attributes:
        strength: share of the correction that is applied, in [0, 1]; None takes the checkpoint's.
        max_correction: bound of the correction of each channel, in sRGB, before the strength applies; None takes the
            checkpoint's.
        calibrated: whether the confidence is that of the error as it was found in validation, in place of the error
            that the network predicts; None takes the checkpoint's.
        tile_px: images with a longer side are repaired in tiles of this size, in pixels; None takes the checkpoint's.
    """

    strength: float | None = None
    max_correction: float | None = None
    calibrated: bool | None = None
    tile_px: int | None = None

    def __post_init__(self) -> None:
        if self.strength is not None and not 0 <= self.strength <= 1:
            raise ValueError(f"strength = {self.strength}: wanted 0 to 1, or null")
        if self.max_correction is not None and not 0 < self.max_correction <= 1:
            raise ValueError(f"max_correction = {self.max_correction}: wanted a number above 0, 1 at most, or null")
        if self.tile_px is not None and self.tile_px < 1:
            raise ValueError(f"tile_px = {self.tile_px}: wanted at least 1 pixel, or null")


def open_checkpoint(place: str | Path, options: NafnetOptions, device: torch.device) -> Restorer:
    """Open the restorer of a checkpoint; ValueError where it cannot be read."""
    from splatfix.restoration.nafnet.restorer import NafnetRestorer

    return NafnetRestorer.open(place, device, options)


def open_shipped(options: NafnetOptions, device: torch.device) -> Restorer:
    """Open the restorer with the shipped weights; ValueError where this installation has none."""
    if not SHIPPED_WEIGHTS.is_dir():
        raise ValueError(
            f"restorer 'nafnet': its weights are not in this installation ({SHIPPED_WEIGHTS}); "
            "train one with `splatfix train` and give its folder instead"
        )
    return open_checkpoint(SHIPPED_WEIGHTS, options, device)


KIND = CheckpointKind(options=NafnetOptions, open=open_checkpoint)
