"""Losses see only what the mask shows."""

from __future__ import annotations

import torch

from splatfix.training.losses import LOSSES, edge_loss
from tests.restoration.scenery import random_mask


def test_losses_ignore_what_the_mask_hides():
    a, b = torch.rand(2, 3, 30, 40), torch.rand(2, 3, 30, 40)
    weight = random_mask().expand(2, 1, 30, 40)
    hidden = torch.where(weight > 0, a, torch.rand_like(a))
    for loss in (*LOSSES.values(), edge_loss):
        torch.testing.assert_close(loss(a, b, weight), loss(hidden, b, weight))
        assert loss(b, b, weight) < loss(a, b, weight)
