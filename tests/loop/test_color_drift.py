"""The loop with repairs whose colors drift: the color fit takes the drift back."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from splatfix.captures import open_capture
from splatfix.config import build_config
from splatfix.evaluation.repairs import read_repairs
from splatfix.gaussians import read_splat
from splatfix.loop import LoopConfig, RepairConfig, run_loop
from splatfix.loop.repaired_views import make_training_views, prepare_repairs
from splatfix.rendering import render
from splatfix.restoration import RESTORERS, Repaired, RestorerFactory
from splatfix.sample import sample_path
from tests.restoration.scenery import flawed_view
from tests.test_warping import painted


@dataclass(frozen=True, kw_only=True)
class NoOptions:
    """Options of the restorers of these tests."""


def gain_of(name: str) -> torch.Tensor:
    """The gain of a frame, from 0.75 to 1 per channel."""
    return torch.from_numpy(np.random.default_rng(zlib.crc32(name.encode())).uniform(0.75, 1.0, 3)).float()


def test_colors_are_scaled_back_before_training_and_the_map_is_kept():
    views = [flawed_view(seed, width_px=96, height_px=72, num_references=3) for seed in range(2)]
    views = [replace(view, alpha=torch.ones_like(view.alpha)) for view in views]
    clean = [painted(view.camera) for view in views]
    drifting = [Repaired(rgb * gain_of(view.camera.name)) for rgb, view in zip(clean, views, strict=True)]
    errors = {}
    for form in ("gain", None):
        prepared = prepare_repairs(views, drifting, RepairConfig(color_fit=form))
        trained_on = make_training_views(prepared, 1.0)
        errors[form] = max(float((view.rgb - rgb).abs().mean()) for view, rgb in zip(trained_on, clean, strict=True))
        assert all((each.color_fit is None) == (form is None) for each in prepared)
    assert errors["gain"] < 0.006
    assert errors[None] > 0.02


def small_loop(tmp_path: Path, **repair) -> Path:
    tree = {
        "restorer": "warp",
        "video": False,
        "views": {"size_px": 32, "num_train": 3, "max_test": 2},
        "initial": {"num_random": 100},
        "fit": {"steps": 20},
        "choose": {"enabled": False},
        "repair": {"rounds": 2, "views": 3, "steps": 5, "siblings": 0, **repair},
    }
    run_loop(sample_path(), tmp_path, build_config(LoopConfig, tree, source="test"))
    return tmp_path


def test_a_run_records_the_color_map_and_the_trust_of_every_repaired_view(tmp_path):
    records = read_repairs(small_loop(tmp_path / "a", color_fit="gain", quality_scale=0.1))
    assert {record.round for record in records} == {1, 2}
    for record in records:
        assert record.color is not None and len(record.color.gain) == 3
        assert 0 <= record.confidence <= 1
    assert read_repairs(small_loop(tmp_path / "b")) == ()


@pytest.mark.slow
def test_a_loop_with_the_color_fit_loses_little_to_drift(scenes, tmp_path, monkeypatch):
    """Clean views of a reference splat with known gains: the fit costs less than 0.1 dB, no fit clearly more."""
    place = scenes / "splat_playbot"
    background = open_capture(place, longest_side_px=96).background

    class Clean:
        def __init__(self, drifts: bool) -> None:
            self.splat = replace(read_splat(next(place.glob("*.ply"))), background=background)
            self.drifts = drifts

        def repair(self, views, *, seed):  # noqa: ARG002
            repaired = []
            for view in views:
                with torch.no_grad():
                    rgb = render(self.splat, [view.camera]).rgb[0].clamp(0, 1)
                repaired.append(Repaired((rgb * gain_of(view.camera.name)).clamp(0, 1) if self.drifts else rgb))
            return repaired

    for name, drifts in (("clean", False), ("drifting", True)):
        factory = RestorerFactory(options=NoOptions, open=lambda _options, _device, drifts=drifts: Clean(drifts))
        monkeypatch.setitem(RESTORERS, name, factory)
    psnr = {}
    for restorer, color_fit in (("clean", None), ("drifting", None), ("drifting", "gain")):
        tree = {
            "restorer": restorer,
            "video": False,
            "views": {"size_px": 96, "max_test": 12},
            "fit": {"steps": 600},
            "repair": {"rounds": 1, "views": 16, "steps": 300, "siblings": 0, "color_fit": color_fit},
        }
        results = run_loop(place, tmp_path / f"{restorer}-{color_fit}", build_config(LoopConfig, tree, source="test"))
        psnr[restorer, color_fit] = results.summary.value("all", "after", "psnr")
    print(psnr)
    clean = psnr["clean", None]
    assert clean - psnr["drifting", "gain"] < 0.1
    assert clean - psnr["drifting", None] > 0.3
