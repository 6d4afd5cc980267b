"""The contents of ``history.json``: a record per segment of a training, as typed values for its page."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from splatfix.files import read_json
from splatfix.records import parse_record

REMEDY = "run the same splatfix train again, which writes it from the saved state"


@dataclass(frozen=True, kw_only=True)
class Gains:
    """Mean gains over the unrepaired renders: PSNR in dB, and SSIM; None where one is not a number."""

    psnr_gain: float | None
    ssim_gain: float | None


@dataclass(frozen=True, kw_only=True)
class StrengthGains(Gains):
    """Gains with a share of the correction: over scenes, of each held-out scene, and of each band of distance.

    ``psnr_gain_good`` and ``psnr_gain_bad`` are over pixels where the render was good, and over the others; None where
    they were not measured.
    """

    psnr_gain_good: float | None = None
    psnr_gain_bad: float | None = None
    by_scene: dict[str, Gains] = field(default_factory=dict)
    by_band: dict[str, Gains] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Validation(Gains):
    """A validation: the gains at the best strength, and at every strength.

    Attributes:
        strength: share of the correction at which the PSNR gain is largest.
        num_pairs: pairs that were measured.
        by_strength: gains by strength.
    """

    strength: float
    num_pairs: int
    by_strength: dict[str, StrengthGains] = field(default_factory=dict)

    @property
    def best(self) -> StrengthGains:
        """The gains at the best strength."""
        found = self.by_strength.get(str(self.strength))
        return found or StrengthGains(psnr_gain=self.psnr_gain, ssim_gain=self.ssim_gain)


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A segment of a training.

    Attributes:
        step: at its end.
        loss: mean over its steps; None where it is not finite.
        seconds: training time until its end, in seconds.
        step_seconds: median time of a step, in seconds.
        data_wait: share of the time of its steps that was spent waiting for data.
        validation: at its end; None where it was not due.
    """

    step: int
    loss: float | None
    seconds: float = 0.0
    step_seconds: float | None = None
    data_wait: float | None = None
    validation: Validation | None = None


@dataclass(frozen=True)
class _History:
    segments: tuple[Segment, ...]


def read_segments(path: Path) -> tuple[Segment, ...]:
    """Read ``history.json``; empty where it does not exist.

    Raises:
        ValueError: the file is broken.
    """
    if not path.is_file():
        return ()
    return parse_record(_History, {"segments": read_json(path)}, source=str(path), remedy=REMEDY).segments
