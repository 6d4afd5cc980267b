"""Validation of the rounds: which are kept, and what a run does without any."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import pytest
import torch

from splatfix.config import build_config
from splatfix.evaluation.results import Summary, read_results
from splatfix.evaluation.validation import LeftOutLoop, Validation, describe_validation
from splatfix.files import read_json
from splatfix.gaussians import read_splat
from splatfix.loop import LoopConfig, run_loop, validation
from splatfix.loop.plan import loop_stages
from splatfix.loop.validation import choose_rounds
from splatfix.report import write_report
from splatfix.report.load import load_runs
from splatfix.report.terminal import describe_verdict
from splatfix.report.wording import recommended_arm
from splatfix.restoration import RESTORERS, Repaired, RestorerFactory
from splatfix.sample import sample_path


@dataclass(frozen=True, kw_only=True)
class NoOptions:
    """Options of the restorer of these tests."""


class PaintsMagenta:
    """A restorer that ruins every view."""

    def repair(self, views, *, seed):  # noqa: ARG002
        return [Repaired(torch.tensor([1.0, 0.0, 1.0]).expand(view.rgb.shape).clone()) for view in views]


@pytest.fixture
def magenta(monkeypatch):
    factory = RestorerFactory(options=NoOptions, open=lambda _options, _device: PaintsMagenta())
    monkeypatch.setitem(RESTORERS, "magenta", factory)
    return "magenta"


def small_config(restorer: str, **changes) -> LoopConfig:
    tree = {
        "restorer": restorer,
        "video": False,
        "views": {"size_px": 48, "num_train": 4, "max_test": 2},
        "initial": {"num_random": 150},
        "fit": {"steps": 30},
        "repair": {"rounds": 2, "views": 4, "steps": 20, "siblings": 0},
        "validate": {"photos": 2},
        **changes,
    }
    return build_config(LoopConfig, tree, source="test")


def left_out(before: float, control: float, *rounds: float) -> LeftOutLoop:
    return LeftOutLoop(photo="a.jpg", before=before, control=control, rounds=rounds)


@pytest.mark.parametrize(
    ("loops", "kept"),
    [
        ([left_out(20.0, 20.1, 20.2, 20.4)], 2),
        ([left_out(20.0, 20.1, 20.07, 20.06)], 2),  # worse within the margin
        ([left_out(20.0, 20.1, 20.05, 20.04)], 0),
        ([left_out(20.1, 20.0, 20.04, 20.03)], 0),  # before counts, too
        ([left_out(20.0, 20.1, 20.5, 20.2)], 1),
        ([left_out(20.0, 20.1, 19.0, 19.0), left_out(10.0, 10.1, 11.5, 11.5)], 2),  # the mean decides
    ],
)
def test_fewer_rounds_are_kept_where_they_are_better_on_the_left_out_photos(loops, kept):
    assert choose_rounds(loops, margin_db=0.05) == kept


def test_repairs_that_ruin_the_splat_are_not_used(magenta, tmp_path):
    results = run_loop(sample_path(), tmp_path / "run", small_config(magenta))
    found = results.validation
    assert found.kept_rounds == 0 and found.rounds[-1] < found.control - 0.3
    assert read_results(tmp_path / "run").validation == found
    after, arm = (read_splat(tmp_path / "run" / f"{name}.ply") for name in ("after", found.unrepaired))
    assert torch.equal(after.gaussians.means, arm.gaussians.means)
    assert not (tmp_path / "run" / "rounds").exists()
    assert not (tmp_path / "run" / "validation").exists()
    [run] = load_runs([tmp_path / "run"])
    text = " ".join(" ".join(describe_verdict(run, tmp_path)).split())
    assert f"no round is kept, and after.ply is {found.unrepaired}.ply" in text
    page = write_report([tmp_path / "run"]).read_text()
    assert "Rounds on left-out training photos" in page and found.loops[0].photo in page
    untested = replace(results, views=(), summary=Summary(all=None, near=None, mid=None, far=None))
    assert recommended_arm(untested) == found.unrepaired
    kept = replace(untested, validation=replace(found, kept_rounds=2))
    assert recommended_arm(kept) == "after"


def test_without_validation_the_same_repairs_ruin_the_splat(magenta, tmp_path):
    results = run_loop(sample_path(), tmp_path / "run", small_config(magenta, validate={"photos": 0}))
    assert results.validation is None
    assert results.summary.value("all", "gain", "psnr") < -0.3


def test_validation_resumes_after_the_loops_that_are_finished(magenta, tmp_path, monkeypatch):
    whole = run_loop(sample_path(), tmp_path / "whole", small_config(magenta))
    real = validation._run_left_out
    ran: list[int] = []

    def stop_at_the_second(run, small, index, *rest):
        if len(ran) == 1:
            raise KeyboardInterrupt
        ran.append(index)
        return real(run, small, index, *rest)

    monkeypatch.setattr(validation, "_run_left_out", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        run_loop(sample_path(), tmp_path / "run", small_config(magenta))
    assert len(read_json(tmp_path / "run" / "validation.json")["loops"]) == 1

    monkeypatch.setattr(validation, "_run_left_out", lambda *given: ran.append(given[2]) or real(*given))
    results = run_loop(sample_path(), tmp_path / "run", small_config(magenta))
    assert len(ran) == 2
    assert results.validation == whole.validation


def test_too_few_photos_for_a_validation_are_said(tmp_path, caplog):
    config = small_config("warp", views={"size_px": 32, "num_train": 3, "max_test": 2})
    with caplog.at_level(logging.WARNING):
        results = run_loop(sample_path(), tmp_path / "run", config)
    assert results.validation is None
    assert "no validation of the rounds: 3 training photos; wanted 4 or more" in caplog.text


def test_the_stages_of_rounds_that_are_not_kept_are_left_out():
    names = [stage.name for stage in loop_stages(small_config("warp"), num_train=6, num_test=2, num_rounds=1)]
    assert names == ["fit", "validate", "control", "repair", "retrain", "evaluate"]
    names = [stage.name for stage in loop_stages(small_config("warp"), num_train=6, num_test=2, num_rounds=0)]
    assert names == ["fit", "validate", "control", "evaluate"]


@pytest.mark.parametrize(
    ("kept", "rounds", "end"),
    [
        (1, (20.5,), "control reaches 20.20 dB PSNR and the round of repair 20.50 dB: it is kept."),
        (2, (20.4, 20.5), "control reaches 20.20 dB PSNR and both rounds of repair 20.50 dB: they are kept."),
        (1, (20.6, 20.3), "both rounds of repair 20.30 dB, but 20.60 dB after 1: 1 of 2 rounds is kept."),
        (0, (19.6, 19.3), "19.30 dB: no round is kept, and after.ply is control.ply."),
    ],
)
def test_the_validation_in_words(kept, rounds, end):
    loops = (LeftOutLoop(photo="a.jpg", before=20.0, control=20.2, rounds=rounds),)
    text = describe_validation(Validation(loops=loops, scale=0.5, margin_db=0.05, kept_rounds=kept))
    assert text.startswith("In the mean of 1 left-out training photo,") and text.endswith(end)
