"""A trained network as a restorer: from a folder or a run, at its strength."""

from __future__ import annotations

import torch

from splatfix.restoration import open_restorer
from splatfix.restoration.nafnet.checkpoint import CheckpointConfig, save_checkpoint
from tests.restoration.networks import SMALL, random_network
from tests.restoration.scenery import flawed_view


def test_a_trained_restorer_repairs_from_its_folder_or_its_run(checkpoint):
    views = [flawed_view(0), flawed_view(1, 37, 51)]
    first = open_restorer(checkpoint, "cpu").repair(views, seed=0)
    again = open_restorer(str(checkpoint.parent), "cpu").repair(views, seed=1)
    for view, a, b in zip(views, first, again, strict=True):
        assert a.rgb.shape == view.rgb.shape
        assert a.confidence.shape == view.alpha.shape
        assert (a.rgb - view.rgb.clamp(0, 1)).abs().max() > 1e-3
        torch.testing.assert_close(a.rgb, b.rgb)


def test_strength_zero_is_the_render(tmp_path):
    save_checkpoint(tmp_path / "a", random_network(), CheckpointConfig(network=SMALL, strength=0.0))
    (repaired,) = open_restorer(tmp_path / "a", "cpu").repair([flawed_view(0)], seed=0)
    torch.testing.assert_close(repaired.rgb, flawed_view(0).rgb.clamp(0, 1))
