"""Phases of a fit: checkpoints, and stop signals between steps."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from splatfix.process import stop_on_signals
from splatfix.runs import Run
from splatfix.splats.densify import DensifyConfig
from splatfix.splats.phases import TrainingPhase, checkpoint_path, train_phase
from splatfix.splats.scene import SparseScene
from splatfix.splats.train import Fit, FitConfig
from tests.splats.scene import photos_of, random_gaussians, ring_cameras

CONFIG = FitConfig(steps=30, densify=DensifyConfig(strategy="none"))
PHASE = TrainingPhase(name="before", title="sparse fit", last_step=30, seed=0, identity="this fit")


@pytest.fixture(scope="module")
def scene() -> SparseScene:
    cameras = ring_cameras(3)
    photos = tuple(view.rgb for view in photos_of(random_gaussians(100, seed=0), cameras))
    return SparseScene(tuple(cameras), photos, (None,) * 3, (None,) * 3, None, None, 4.0)


def new_fit() -> Fit:
    return Fit(random_gaussians(60, seed=1, sh_rest=3), CONFIG, scene_scale=4.0, num_photos=3)


def train(folder: Path, scene: SparseScene) -> Fit:
    fit = new_fit()
    train_phase(Run(folder), fit, scene, PHASE, checkpoint_seconds=1000.0)
    return fit


def test_a_stop_signal_saves_the_state_after_the_step_and_the_fit_goes_on_from_there(
    scene, tmp_path, monkeypatch, capfd, caplog
):
    whole = train(tmp_path / "whole", scene)
    real = Fit.gaussians
    calls = [0]

    def interrupt(self: Fit) -> Any:
        calls[0] += 1
        if calls[0] == 12:
            signal.raise_signal(signal.SIGINT)  # within step 12
        return real(self)

    stop_on_signals("splatfix loop")
    with monkeypatch.context() as patched:
        patched.setattr(Fit, "gaussians", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "stopped", scene)
    assert "stopping after this step; Ctrl-C again stops at once" in capfd.readouterr().err
    stop_on_signals("splatfix loop")
    caplog.set_level("INFO")
    resumed = train(tmp_path / "stopped", scene)
    assert "sparse fit: resuming at step 12 from" in caplog.text
    for name, value in whole.params.items():
        assert torch.equal(value, resumed.params[name]), name
    assert checkpoint_path(Run(tmp_path / "stopped"), "before").is_file()
