"""Stages of a run: what is said at each, and the time that is left."""

import logging
import time
from dataclasses import replace
from pathlib import Path

import pytest

from splatfix.loop import LoopConfig, RepairConfig
from splatfix.loop.plan import loop_stages
from splatfix.messages import format_bytes, rough_duration
from splatfix.runs import Run
from splatfix.splats.initial_points import InitializationConfig
from splatfix.splats.train import FitConfig
from splatfix.stages import STEP, STEPS_PER_UNIT, TEST_VIEW, Stage, StagePlan


def make_plan() -> StagePlan:
    first, second = Stage("fit", "the fit", {STEP: 100}), Stage("more", "more", {STEP: 50})
    return StagePlan([first, second, Stage("evaluate", "measuring", {})])


def test_stages_are_announced_in_order_with_the_time_left(tmp_path, caplog):
    run = Run(tmp_path, plan=make_plan())
    with caplog.at_level(logging.INFO, logger="splatfix"):
        with run.stage("fit"):
            run.count_steps(100, 200.0)
        with run.stage("unplanned"):
            pass
        with run.stage("more"):
            run.count_steps(50, 100.0)
        with run.stage("evaluate"):
            pass
    assert caplog.messages == [
        "stage 1 of 3: the fit",
        "stage 2 of 3: more; about 2 min left in all",
        "stage 3 of 3: measuring",
    ]


def test_the_estimate_is_refined_by_what_was_measured():
    plan = make_plan()
    assert plan.seconds_left() is None
    plan.enter("fit")
    plan.note(STEP, 40, 40.0)
    assert plan.seconds_left() == pytest.approx(60 + 50)
    plan.skip(STEP, 10)  # done by an earlier process
    assert plan.seconds_left() == pytest.approx(50 + 50)
    plan.enter("more")
    plan.note(STEP, 0, 5.0)  # nothing was left to do
    assert plan.seconds_left() == pytest.approx(50)


def test_a_unit_that_is_not_measured_follows_from_steps():
    plan = StagePlan([Stage("fit", "", {STEP: 10}), Stage("evaluate", "", {TEST_VIEW: 6})])
    plan.enter("fit")
    plan.note(STEP, 10, 20.0)
    assert plan.seconds_left() == pytest.approx(6 * STEPS_PER_UNIT[TEST_VIEW] * 2.0)
    plan.note(TEST_VIEW, 1, 7.0)
    assert plan.seconds_left() == pytest.approx(6 * 7.0)


def test_steps_of_a_stage_that_is_running_count(monkeypatch):
    now = iter(range(1000))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(now)))
    plan = make_plan()
    plan.enter("fit")
    said = [plan.tick() for _ in range(20)]
    assert said[:12] == [None] * 12  # the first steps may compile kernels
    assert said[-1] is not None and said[-1].endswith(" left in all")


def test_first_steps_that_compile_say_nothing_of_the_later_ones(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    plan = make_plan()
    plan.enter("fit")
    for seconds in [50.0, 1.0, *[0.1] * 18]:  # the first two steps compile
        now[0] += seconds
        plan.tick()
    plan.note(STEP, 20, 53.0)
    assert plan.seconds_left() == pytest.approx(0.1 * (80 + 50))


def test_the_stages_of_a_loop_hold_all_its_steps():
    repair = RepairConfig(rounds=3, steps=20, siblings=2, views=5)
    stages = loop_stages(LoopConfig(fit=FitConfig(steps=100), repair=repair), num_train=4, num_test=6)
    names = [stage.name for stage in stages]
    assert names == ["fit", "control", "siblings", *["repair", "retrain"] * 3, "evaluate", "video"]
    assert sum(stage.work.get(STEP, 0) for stage in stages) == 100 + 60 + 2 * 160 + 3 * 20
    config = LoopConfig(fit=FitConfig(steps=100), repair=repair)
    twice = loop_stages(config, num_train=4, num_test=6, repeats_control=True)
    assert [stage.name for stage in twice if stage not in stages] == ["repeat"]
    assert sum(stage.work.get(STEP, 0) for stage in twice) == 100 + 2 * 60 + 2 * 160 + 3 * 20
    untested = loop_stages(LoopConfig(estimate=2, video=False), num_train=4, num_test=0)
    assert untested[-1].name == "estimate" and untested[-1].work[STEP] == 2 * FitConfig().steps
    started = replace(LoopConfig(), initial=InitializationConfig(start=Path("mine.ply")))
    assert loop_stages(started, num_train=4, num_test=6)[0].name == "control"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.3, "under 1 s"),
        (7.4, "7 s"),
        (43, "45 s"),
        (89, "90 s"),
        (200, "3 min"),
        (3900, "1 h 5 min"),
        (2e5, "2.3 days"),
    ],
)
def test_durations_in_units_that_fit(seconds, words):
    assert rough_duration(seconds) == words


@pytest.mark.parametrize(
    ("num", "words"), [(12, "12 bytes"), (3.2e6, "3.2 MB"), (4.56e8, "456 MB"), (1.25e9, "1.2 GB"), (9e15, "9000 TB")]
)
def test_bytes_in_units_that_fit(num, words):
    assert format_bytes(num) == words
