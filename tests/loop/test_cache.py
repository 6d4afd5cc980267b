"""Fits that runs share: each stretch is trained once, and equals the fit of a run that shares nothing."""

from __future__ import annotations

import pytest
import torch

from splatfix.gaussians import read_ply
from splatfix.loop import LoopConfig, RepairConfig
from splatfix.loop.baselines import fit_control, fit_siblings
from splatfix.loop.cache import SharedFits, delete_excess_stops, list_stops
from splatfix.runs import Run
from splatfix.splats.initial_points import InitializationConfig
from splatfix.splats.phases import TrainingPhase, train_phase
from splatfix.splats.scene import start_fit
from splatfix.splats.train import FitConfig
from tests.splats.scene import small_scene

CONFIG = LoopConfig(
    initial=InitializationConfig(sources=("random",), num_random=60, num_backdrop=0, sh_degree=0),
    fit=FitConfig(steps=12),
    repair=RepairConfig(rounds=1, steps=4, siblings=2),
)
STEPS = 6


@pytest.fixture(scope="module")
def scene():
    return small_scene()


def test_shared_fits_equal_those_of_a_run(scene, tmp_path):
    run = Run(tmp_path / "alone")
    run.path.mkdir()
    before = start_fit(scene, CONFIG.fit, CONFIG.initial, seed=CONFIG.seed)
    phase = TrainingPhase(name="before", title="", last_step=STEPS, seed=CONFIG.seed, identity="before")
    train_phase(run, before, scene, phase, checkpoint_seconds=60)
    control = fit_control(run, scene, before, CONFIG)
    siblings = fit_siblings(run, scene, before, CONFIG)

    fits = SharedFits(tmp_path / "shared", Run(tmp_path / "other"), scene, CONFIG)
    for fit, shared in ((before, fits.before(STEPS)), (control, fits.control(STEPS))):
        assert fit.step == shared.step
        assert torch.equal(fit.params["means"], shared.params["means"])
    for sibling, shared in zip(siblings, fits.siblings(STEPS), strict=True):
        assert torch.equal(sibling.gaussians.means, shared.params["means"])
    assert torch.equal(read_ply(run.path / "control.ply").means, control.params["means"])
    assert before.step == STEPS and control.step == STEPS + 4
    assert not torch.equal(siblings[0].gaussians.means, siblings[1].gaussians.means)


def test_what_one_run_has_trained_another_finds(scene, tmp_path, monkeypatch):
    first = SharedFits(tmp_path / "shared", Run(tmp_path / "a"), scene, CONFIG).control(STEPS)
    trained = []
    monkeypatch.setattr("splatfix.loop.cache.train_phase", lambda *_, **__: trained.append(1))
    again = SharedFits(tmp_path / "shared", Run(tmp_path / "b"), scene, CONFIG).control(STEPS)
    assert not trained
    assert torch.equal(first.params["means"], again.params["means"])
    assert not list((tmp_path / "a" / "checkpoints").iterdir())


def test_excess_stops_are_deleted(tmp_path):
    for stop in (20, 30, 32, 40, 60, 80, 81, 100, 150, 400):
        (tmp_path / f"{stop}.pt").touch()
    delete_excess_stops(tmp_path)
    assert list_stops(tmp_path) == [20, 30, 40, 60, 80, 100, 150, 400]
