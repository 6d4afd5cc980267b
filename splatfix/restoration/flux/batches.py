"""Views in batches for a pipeline, each with its own noise."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from splatfix.flawed import FlawedView
from splatfix.shapes import Float


def batches_of_one_size(views: Sequence[FlawedView], batch_views: int) -> Iterator[list[int]]:
    """Indices of views that go through a pipeline together: at most ``batch_views``, all of one size."""
    by_size: dict[tuple[int, int], list[int]] = {}
    for index, view in enumerate(views):
        by_size.setdefault((view.rgb.shape[0], view.rgb.shape[1]), []).append(index)
    for indices in by_size.values():
        for first in range(0, len(indices), batch_views):
            yield indices[first : first + batch_views]


def noise_generator(view: FlawedView, seed: int, noise: Literal["per-view", "shared"]) -> torch.Generator:
    """The source of a view's noise. It does not depend on the other views, nor on the device.

    Args:
        view: the view; its camera's name chooses the noise.
        seed: of the repair.
        noise: ``shared`` gives all views the same noise.
    """
    text = f"{seed}" if noise == "shared" else f"{seed} {view.camera.name}"
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
    return torch.Generator("cpu").manual_seed(number)


def stack_renders(views: Sequence[FlawedView]) -> Float[Tensor, "B 3 H W"]:
    """The renders of views of one size, in [0, 1]."""
    return torch.stack([view.rgb.detach().float().clamp(0, 1).permute(2, 0, 1) for view in views])
