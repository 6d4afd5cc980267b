"""Results of a loop on left-out training photos: what `loop.validation` measures and ``results.json`` holds."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class LeftOutLoop:
    """A loop without one training photo, measured on that photo, in dB PSNR.

    Attributes:
        photo: its name.
        before: the sparse fit of the other photos.
        control: the same, trained on as long as all rounds.
        rounds: after each round.
    """

    photo: str
    before: float
    control: float
    rounds: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Validation:
    """The loops without one training photo each, and how many rounds they let the run keep.

    Attributes:
        loops: one for each photo that was left out.
        scale: size of their images, as a share of that of the run.
        margin_db: by which fewer rounds had to be better than all of them.
        kept_rounds: number of rounds that the run was allowed; 0 for none.
    """

    loops: tuple[LeftOutLoop, ...]
    scale: float
    margin_db: float
    kept_rounds: int

    @property
    def num_rounds(self) -> int:
        """Number of rounds that were tried."""
        return len(self.loops[0].rounds)

    @property
    def before(self) -> float:
        """Mean PSNR of the sparse fits, in dB."""
        return statistics.fmean(loop.before for loop in self.loops)

    @property
    def control(self) -> float:
        """Mean PSNR of the controls, in dB."""
        return statistics.fmean(loop.control for loop in self.loops)

    @property
    def rounds(self) -> tuple[float, ...]:
        """Mean PSNR after each round, in dB."""
        return tuple(statistics.fmean(loop.rounds[number] for loop in self.loops) for number in range(self.num_rounds))

    @property
    def unrepaired(self) -> Literal["before", "control"]:
        """The better arm without repaired views."""
        return "control" if self.control >= self.before else "before"


def describe_validation(found: Validation) -> str:
    """What the left-out photos say about the rounds, in a sentence."""
    num, photos = found.num_rounds, f"{len(found.loops)} left-out training photo" + "s" * (len(found.loops) > 1)
    every = {1: "the round", 2: "both rounds"}.get(num, f"all {num} rounds")
    figures = (
        f"In the mean of {photos}, {found.unrepaired} reaches {getattr(found, found.unrepaired):.2f} dB PSNR and "
        f"{every} of repair {found.rounds[-1]:.2f} dB"
    )
    if found.kept_rounds == num:
        return f"{figures}: {'it is' if num == 1 else 'they are'} kept."
    if found.kept_rounds == 0:
        return f"{figures}: no round is kept, and after.ply is {found.unrepaired}.ply."
    reached = f"{found.rounds[found.kept_rounds - 1]:.2f} dB"
    verb = "is" if found.kept_rounds == 1 else "are"
    return f"{figures}, but {reached} after {found.kept_rounds}: {found.kept_rounds} of {num} rounds {verb} kept."
