"""The interface of restorers, flawed views in and repaired views out, and how a restorer is opened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from splatfix.flawed import FlawedView
from splatfix.shapes import Bool, Float


@dataclass(frozen=True, eq=False)
class Repaired:
    """A repaired view.

    Attributes:
        rgb: float32 in [0, 1], on the device of the flawed view, ``[H, W, 3]``.
        confidence: how far each pixel can be trusted, in [0, 1], ``[H, W]``; None where the restorer cannot say.
        mask: which pixels were repainted, ``[H, W]``; None where the restorer uses no mask.
    """

    rgb: Float[Tensor, "H W 3"]
    confidence: Float[Tensor, "H W"] | None = None
    mask: Bool[Tensor, "H W"] | None = None


@runtime_checkable
class Restorer(Protocol):
    """Anything that repairs flawed views.

    One that takes several views at a time may say how many by an attribute ``batch_views`` (`repair_cache`).
    """

    def repair(self, views: Sequence[FlawedView], *, seed: int) -> list[Repaired]:
        """Repair views: one result per flawed view, in order, at its size. The same seed gives the same result."""
        ...


@dataclass(frozen=True, kw_only=True)
class RestorerFactory:
    """How a restorer is opened: a value of `RESTORERS`, and of the entry points in the group ``splatfix.restorers``.

    Attributes:
        options: the frozen dataclass of its options: each has a default and is checked in ``__post_init__``.
        open: the restorer with such options, on a device. Heavy libraries are imported when it is called.
        identify: what decides its results besides the options, as text: the content of files that they name.
    """

    options: type[Any]
    open: Callable[[Any, torch.device], Restorer]
    identify: Callable[[Any], str] = lambda _options: ""


@dataclass(frozen=True, kw_only=True)
class CheckpointKind:
    """How the checkpoints of one family are opened: a value of `KINDS`.

    Attributes:
        options: as in `RestorerFactory`.
        open: the restorer of a checkpoint (a folder, a training run or hf:USER/NAME) with such options, on a device.
    """

    options: type[Any]
    open: Callable[[str | Path, Any, torch.device], Restorer]


def blend_correction(
    render: Float[Tensor, "H W 3"], repaired: Float[Tensor, "H W 3"], strength: float, bound: float = 1.0
) -> Float[Tensor, "H W 3"]:
    """Apply a share of the correction, bounded per channel, to the render; the result is in [0, 1]."""
    return (render + strength * (repaired - render).clamp(-bound, bound)).clamp(0, 1)
