"""What a restorer is: flawed views in, repaired views out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from splatfix.flawed import FlawedView
from splatfix.shapes import Float


@dataclass(frozen=True, eq=False)
class Repaired:
    """A repaired view.

    Attributes:
        rgb: float32 in [0, 1], on the device of the flawed view, ``[H, W, 3]``.
        confidence: how far each pixel can be trusted, in [0, 1], ``[H, W]``; None where the restorer cannot say.
    """

    rgb: Float[Tensor, "H W 3"]
    confidence: Float[Tensor, "H W"] | None = None


@runtime_checkable
class Restorer(Protocol):
    """Anything that repairs flawed views."""

    def repair(self, views: Sequence[FlawedView], *, seed: int) -> list[Repaired]:
        """One repaired view per flawed view, in order, at its size. The same seed gives the same result."""
        ...
