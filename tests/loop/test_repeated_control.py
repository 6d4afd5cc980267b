"""The run-to-run spread: the control trained again. On the CPU it is exactly 0; a stand-in makes runs differ."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from splatfix.evaluation.results import Results, read_results
from splatfix.files import read_json, write_json
from splatfix.fit import FitRunConfig, prepare_run
from splatfix.loop import LoopConfig, RepairConfig, baselines, config, run_loop
from splatfix.loop.case_rounds import CASE_FILES, run_case
from splatfix.loop.cases import baseline_folder, configure_case, find_cases, fit_baseline
from splatfix.rendering import is_repeatable
from splatfix.restoration import open_restorer
from splatfix.sample import sample_path
from splatfix.splats.initial_points import InitializationConfig
from splatfix.splats.train import FitConfig
from splatfix.views import ViewsConfig

CONFIG = LoopConfig(
    restorer="identity",
    video=False,
    device="cpu",
    views=ViewsConfig(size_px=32, num_train=4, max_test=2),
    initial=InitializationConfig(num_random=300, num_stereo=0),
    fit=FitConfig(steps=20),
    repair=RepairConfig(rounds=1, views=2, steps=6, siblings=0),
)


def run(folder: Path, **changes) -> Results:
    return run_loop(sample_path(), folder, replace(CONFIG, **changes))


@pytest.fixture
def unrepeatable(monkeypatch) -> None:
    """A device on which no two runs are the same: the second control is a little brighter than the first."""

    def train_brighter(run, fit, scene, phase, **more):
        train_phase(run, fit, scene, phase, **more)
        if phase.name == baselines.AGAIN:
            with torch.no_grad():
                fit.params["sh0"] += 0.05

    train_phase = baselines.train_phase
    monkeypatch.setattr(baselines, "train_phase", train_brighter)
    monkeypatch.setattr(config, "is_repeatable", lambda _device: False)


def test_only_the_cpu_repeats_exactly():
    assert is_repeatable(torch.device("cpu")) and not is_repeatable(torch.device("cuda", 1))
    for device, wanted in (("cpu", (False, True, False)), ("cuda", (True, True, False))):
        settings = [replace(CONFIG, repeat_control=name) for name in ("auto", "always", "never")]
        assert tuple(each.repeats_control(torch.device(device)) for each in settings) == wanted
    assert not hasattr(FitRunConfig(), "repeat_control")  # a fit has no control


def test_on_the_cpu_the_spread_is_0_and_not_measured_unless_asked_for(tmp_path):
    plain = run(tmp_path)
    assert plain.spread is None and not list(tmp_path.glob("checkpoints/control_again.*"))
    assert run(tmp_path, repeat_control="never") == plain  # a finished run is returned as it is
    asked = run(tmp_path, repeat_control="always")  # the same run, completed by the spread
    assert asked.spread == {"psnr": 0.0, "ssim": 0.0, **{name: asked.spread[name] for name in asked.spread}}
    assert {value for value in asked.spread.values() if value is not None} == {0.0}
    assert replace(asked, spread=None, seconds=plain.seconds) == plain
    assert read_results(tmp_path) == asked and run(tmp_path, repeat_control="always") == asked
    older = read_json(tmp_path / "results.json")
    del older["spread"]
    write_json(tmp_path / "results.json", older)
    assert read_results(tmp_path).spread is None


@pytest.mark.usefixtures("unrepeatable")
def test_where_runs_differ_the_difference_of_the_controls_is_measured(tmp_path):
    results = run(tmp_path)
    assert results.spread is not None and results.spread["psnr"] > 0.01 and results.spread["ssim"] > 0
    assert "repeat" in results.seconds
    assert run(tmp_path / "never", repeat_control="never").spread is None
    assert sorted(path.name for path in tmp_path.glob("*.ply")) == ["after.ply", "before.ply", "control.ply"]


@pytest.mark.usefixtures("unrepeatable")
def test_the_loops_of_a_sweep_share_the_spread_of_their_baseline(tmp_path):
    [case] = find_cases([str(sample_path())], [0])
    known = fit_baseline(case, CONFIG, tmp_path, command="compare")
    assert known.spread is not None and known.spread["psnr"] > 0.01
    assert read_results(baseline_folder(tmp_path, case)) == known
    own = configure_case(CONFIG, case)
    prepared = prepare_run(case.capture, tmp_path / "trial", own, command="sweep", files=CASE_FILES)
    list(run_case(tmp_path, case, own, open_restorer("identity", device=torch.device("cpu")), prepared))
    assert read_results(tmp_path / "trial").spread == known.spread
