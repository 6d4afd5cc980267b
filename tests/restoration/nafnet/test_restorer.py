"""A trained network as a restorer: from a folder or a run, at its strength."""

from __future__ import annotations

import pytest
import torch

from splatfix.restoration import RestorerChoice, open_restorer
from splatfix.restoration.nafnet.checkpoint import CheckpointConfig, save_checkpoint
from splatfix.restoration.nafnet.network import ERROR_SCALE
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


def test_the_correction_is_bounded_before_the_strength_applies(tmp_path):
    network, view = random_network(), flawed_view(0)
    changes = {}
    for name, settings in {"free": {}, "bounded": {"max_correction": 0.01}}.items():
        save_checkpoint(tmp_path / name, network, CheckpointConfig(network=SMALL, strength=0.5, **settings))
        (repaired,) = open_restorer(tmp_path / name, "cpu").repair([view], seed=0)
        changes[name] = repaired.rgb - view.rgb.clamp(0, 1)
    assert changes["free"].abs().max() > 0.01
    torch.testing.assert_close(changes["bounded"], changes["free"].clamp(-0.005, 0.005), atol=1e-6, rtol=0)
    choice = RestorerChoice(name=str(tmp_path / "free"), options={"max_correction": 0.01})
    (repaired,) = open_restorer(choice, "cpu").repair([view], seed=0)
    torch.testing.assert_close(repaired.rgb - view.rgb.clamp(0, 1), changes["bounded"])


def test_the_confidence_follows_the_calibrated_error(tmp_path):
    network, view = random_network(), flawed_view(0)
    found = {}
    gains = {"psnr_gain": 0.1, "ssim_gain": 0.0, "by_scene": {"one": {"psnr_gain": 0.1}}}
    validation = {"strength": 1.0, "num_pairs": 1, "by_strength": {"1.0": gains}}
    validation["calibration"] = {"scale": 2.0, "power": 1.5, "deciles": [{"expected": 0.05, "found": 0.022}]}
    save_checkpoint(tmp_path / "raw", network, CheckpointConfig(network=SMALL, provenance={"validation": validation}))
    assert "| 0.0500 | 0.0224 | 0.0220 |" in (tmp_path / "raw/README.md").read_text()
    for name, options in {"raw": {}, "calibrated": {"calibrated": True}}.items():
        choice = RestorerChoice(name=str(tmp_path / "raw"), options=options)
        found[name] = open_restorer(choice, "cpu").repair([view], seed=0)[0].confidence
    error = -ERROR_SCALE * found["raw"].log()
    torch.testing.assert_close(found["calibrated"], torch.exp(-2.0 * error**1.5 / ERROR_SCALE), atol=1e-4, rtol=1e-3)


def test_a_restorer_that_was_not_calibrated_says_so(checkpoint):
    with pytest.raises(
        ValueError, match=r"calibrated = True: wanted false: this restorer was trained without validation"
    ):
        open_restorer(RestorerChoice(name=str(checkpoint), options={"calibrated": True}), "cpu")
