"""The desk: proposals that follow the seed alone, trials that go on where they were, rungs."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from splatfix.sweep.config import HalvingConfig
from splatfix.sweep.proposals import Search, goes_on, importances, pareto
from splatfix.sweep.record import TrialRecord
from splatfix.sweep.scheduler import Desk
from tests.sweep.small import small

SPACE = {
    "repair.weight": {"loguniform": [0.1, 2.0]},
    "repair.probability": {"uniform": [0.0, 1.0]},
    "restorer": {"choice": ["warp", "identity"]},
    "repair.outward": {"uniform": [0.0, 1.0], "when": {"restorer": "warp"}},
}


def gain_of(values: dict[str, Any], round_number: int) -> float:
    """A landscape with its top at weight 0.5, probability 0.3 and warp."""
    gain = 1 - math.log(values["repair.weight"] / 0.5) ** 2 - (values["repair.probability"] - 0.3) ** 2
    return gain - (values["restorer"] == "identity") - 0.5 / round_number


def figures(values: dict[str, Any], round_number: int, seconds: float = 1.0) -> dict[str, Any]:
    gain = gain_of(values, round_number)
    return {"round": round_number, "gain": gain, "gain_worst": gain - 0.1, "seconds": seconds, "cases": {}}


def run(sweep: Path, order_seed: int, stop_after: int | None = None, **changes: Any) -> list[TrialRecord] | None:
    """Run all trials, whichever of those under way goes on next by chance; None where it was broken off on the way."""
    changes = {"search": {"trials": 20, "startup": 4, "parallel": 3}, "workers": {"attempts": 1000}, **changes}
    config = small(space=SPACE, **changes)
    rng = np.random.default_rng(order_seed)
    desk = Desk(config, sweep, parallel=config.search.parallel or 1, source="test", begun=time.time())
    under_way: dict[int, int] = {}
    for num_events in range(10_000):
        while (record := desk.next()) is not None:
            under_way[record.number] = 0
        if not under_way:
            return desk.records
        if num_events == stop_after:
            return None
        number = int(rng.choice(sorted(under_way)))
        under_way[number] += 1
        values = desk.records[number].values
        if rng.random() < 0.05:  # its worker dies, and it is handed out again
            desk.take(number, {"end": "error", "error": "killed"})
            del under_way[number]
        elif values["repair.probability"] > 0.9 and under_way[number] == 2:
            desk.take(number, {"end": "failed", "error": "loss = nan"})
            del under_way[number]
        elif under_way[number] > config.loop.repair.rounds:
            desk.take(number, {"end": "complete"})
            del under_way[number]
        elif not desk.take(number, figures(values, under_way[number], seconds=values["repair.probability"])):
            del under_way[number]
    raise AssertionError("it does not end")


def summary(records: list[TrialRecord] | None) -> list[tuple]:
    assert records is not None
    return [(r.number, r.values, r.status, r.rounds) for r in records]


HALVING = {"halving": {"grace": 1, "factor": 2.0}, "loop": {"repair": {"rounds": 4}}}
SEVERAL = {
    "objectives": ["gain", "seconds"],
    "search": {"method": "nsga2", "trials": 20, "population": 5, "parallel": 3},
}
RANDOM = {"search": {"method": "random", "trials": 20, "parallel": 3}}


@pytest.mark.parametrize("changes", [{}, HALVING, SEVERAL, RANDOM], ids=["tpe", "halving", "nsga2", "random"])
def test_proposals_and_ends_do_not_depend_on_who_is_first_or_on_breaks(tmp_path, changes):
    unbroken = summary(run(tmp_path / "a", 1, **changes))
    assert len(unbroken) == 20
    assert summary(run(tmp_path / "b", 2, **changes)) == unbroken
    for stop in (0, 7, 15, 5):
        assert run(tmp_path / "c", 3 + stop, stop_after=stop, **changes) is None
    assert summary(run(tmp_path / "c", 4, **changes)) == unbroken
    if "halving" in changes:
        assert {status for _, _, status, _ in unbroken} >= {"complete", "stopped"}
    if changes == RANDOM:
        assert {status for _, _, status, _ in unbroken} == {"complete", "failed"}


def test_another_seed_proposes_otherwise(tmp_path):
    other = {"search": {"trials": 20, "startup": 4, "parallel": 3, "seed": 1}}
    one, two = summary(run(tmp_path / "a", 1)), summary(run(tmp_path / "b", 1, **other))
    assert one[0][1] == two[0][1] and all(a[1] != b[1] for a, b in zip(one[1:], two[1:], strict=True))


def test_the_estimator_finds_more_than_chance(tmp_path):
    search = {"trials": 40, "startup": 8, "parallel": 2}
    best = {
        method: max(r.rounds[-1]["gain"] for r in run(tmp_path / method, 1, search={**search, "method": method}) or [])
        for method in ("tpe", "random")
    }
    assert best["tpe"] > best["random"] and best["tpe"] > 0.7


def test_the_default_is_the_first_where_it_lies_in_the_space(tmp_path):
    records = run(tmp_path / "a", 1)
    assert records and records[0].values == {
        "repair.weight": 1.0,
        "repair.probability": 0.5,
        "restorer": "warp",
        "repair.outward": 0.5,
    }
    beside = {**SPACE, "repair.weight": {"loguniform": [2.0, 3.0]}}
    assert Search(small(space=beside), source="test").ask()["repair.weight"] >= 2.0
    without = {"trials": 3, "with_default": False}
    assert Search(small(space=SPACE, search=without), source="test").ask() != records[0].values


def test_a_grid_is_gone_through_once(tmp_path):
    space = {"repair.weight": {"uniform": [0.5, 1.0], "points": 3}, "restorer": {"choice": ["warp", "identity"]}}
    config = small(space=space, search={"method": "grid", "trials": None, "parallel": 2})
    desk = Desk(config, tmp_path, parallel=2, source="test", begun=0.0)
    assert desk.num_trials == 6
    while (record := desk.next()) is not None:
        desk.take(record.number, {"end": "complete"})
    found = [(r.values["repair.weight"], r.values["restorer"]) for r in desk.records]
    assert sorted(found) == sorted((w, r) for w in (0.5, 0.75, 1.0) for r in ("warp", "identity"))


def test_a_trial_waits_for_the_one_that_it_follows(tmp_path):
    desk = Desk(small(space=SPACE), tmp_path, parallel=2, source="test", begun=0.0)
    first, second = desk.next(), desk.next()
    assert first and second and desk.next() is None
    desk.take(second.number, {"end": "failed", "error": "no"})
    assert desk.next() is None  # what comes next may look at the first
    desk.take(first.number, {"end": "complete"})
    assert desk.next() is not None and desk.next() is not None and desk.next() is None


def test_another_proposal_than_on_disk_is_refused(tmp_path):
    run(tmp_path, 1, stop_after=10)
    record = TrialRecord(number=1, values={"repair.weight": 7.0}, status="complete")
    record.write(tmp_path / "trials" / "0001")
    with pytest.raises(ValueError, match=r"trials/0001: was proposed as \{'repair.weight': 7.0\}, and is proposed as"):
        run(tmp_path, 1)


def test_a_failed_trial_is_marked_and_the_others_go_on(tmp_path):
    desk = Desk(small(space=SPACE, search={"trials": 8}), tmp_path, parallel=1, source="test", begun=time.time())
    while (record := desk.next()) is not None:
        if record.number % 2:
            assert not desk.take(record.number, {"end": "failed", "error": "loss = nan"})
        else:
            desk.take(record.number, figures(record.values, 1))
            assert not desk.take(record.number, {"end": "complete"})
    assert [r.status for r in desk.records] == ["complete", "failed"] * 4
    assert desk.records[1].error == "loss = nan"


def test_an_error_costs_an_attempt_and_the_last_one_fails_the_trial(tmp_path):
    config = small(space=SPACE, search={"trials": 2}, workers={"num": 0, "attempts": 3})
    desk = Desk(config, tmp_path, parallel=1, source="test", begun=0.0)
    for reason in ("first", "second", "third"):
        record = desk.next()
        assert record is not None and record.number == 0 and desk.num_running == 1 and not desk.is_over
        desk.take(0, {"end": "error", "error": reason})
    assert desk.records[0].status == "failed" and desk.records[0].error == "third"
    record = desk.next()
    assert record is not None and record.number == 1
    desk.take(1, {"end": "error", "error": "once"})
    assert desk.num_running == 0 and not desk.is_over
    record = desk.next()
    assert record is not None and desk.next() is None
    desk.take(record.number, {"end": "complete"})
    assert desk.is_over and desk.hopeless is None


def test_where_the_first_trials_all_fail_it_ends_and_they_may_be_tried_again(tmp_path):
    def drive(made: dict) -> Desk:
        desk = Desk(small(space=SPACE, search={"trials": 20}), tmp_path, parallel=2, source="test", begun=0.0)
        while (record := desk.next()) is not None:
            desk.take(record.number, made)
        return desk

    lost = drive({"end": "failed", "error": "no such folder"})
    assert str(lost.hopeless) == "the first 5 trials failed, the last with: no such folder" and lost.is_over
    proposed = [record.values for record in lost.records]
    mended = drive({"end": "complete"})
    assert mended.hopeless is None and [record.status for record in mended.records] == ["complete"] * 20
    assert [record.values for record in mended.records][: len(proposed)] == proposed


def test_a_rung_compares_trials_of_as_many_rounds(tmp_path):
    space = {"repair.weight": {"uniform": [0.0, 1.0]}, "repair.rounds": {"choice": [1, 2]}}
    config = small(space=space, halving={"grace": 1, "factor": 2.0}, search={"method": "random", "trials": 30})
    desk = Desk(config, tmp_path, parallel=1, source="test", begun=0.0)
    stopped = 0
    while (record := desk.next()) is not None:
        rounds, gain = record.values["repair.rounds"], 1.0 if record.values["repair.rounds"] == 1 else 0.0
        for number in range(1, rounds + 1):
            assert desk.take(record.number, {**figures_of(gain), "round": number}), "the longer ones are all alike"
        desk.take(record.number, {"end": "complete"})
        stopped += record.status == "stopped"
    assert stopped == 0 and len({record.values["repair.rounds"] for record in desk.records}) == 2


def figures_of(gain: float) -> dict[str, Any]:
    return {"round": 1, "gain": gain, "gain_worst": gain, "seconds": 1.0, "cases": {}}


def test_rungs_stop_what_falls_behind():
    config = HalvingConfig(grace=1, factor=3.0)
    others = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]  # a third of them is above 3.33
    assert goes_on(1, 3.4, others, config) and not goes_on(1, 3.3, others, config)
    assert goes_on(2, -9.0, others, config)  # no rung
    assert goes_on(3, 3.4, others, config) and not goes_on(3, 3.3, others, config)
    assert goes_on(1, -9.0, [], config)  # nobody to compare with
    assert not goes_on(1, None, [], config)
    assert goes_on(1, -9.0, others, HalvingConfig(grace=2))


def test_a_trial_that_ended_its_last_round_is_complete(tmp_path):
    config = small(space=SPACE, halving={"grace": 2, "factor": 2.0})
    desk = Desk(config, tmp_path, parallel=1, source="test", begun=0.0)
    for gain in (1.0, -1.0):
        record = desk.next()
        assert record is not None
        for number in (1, 2):
            assert desk.take(record.number, {**figures(record.values, number), "gain": gain})
        desk.take(record.number, {"end": "complete"})
    assert [r.status for r in desk.records] == ["complete", "complete"]


def test_importance_names_the_field_that_matters(tmp_path):
    records = run(tmp_path, 1, search={"method": "random", "trials": 60, "parallel": 3})
    found, reason = importances(small(space=SPACE), records or [])
    assert reason is None and found is not None
    assert next(iter(found)) == "repair.weight" and sum(found.values()) == pytest.approx(1.0)
    assert "repair.outward" not in found  # conditional
    few = importances(small(space=SPACE), (records or [])[:3])
    assert few == (None, "needs at least 4 complete trials that differ")


def test_the_pareto_trials_are_those_that_none_beats():
    points = [(0.1, 10.0), (0.2, 20.0), (0.2, 15.0), (0.05, 30.0), (0.1, 10.0)]
    records = [
        TrialRecord(number=k, values={}, status="complete", rounds=[{"round": 1, "gain": g, "seconds": s}])
        for k, (g, s) in enumerate(points)
    ]
    records.append(TrialRecord(number=9, values={}, status="stopped", rounds=[{"round": 1, "gain": 9, "seconds": 1.0}]))
    assert pareto(records, ["gain", "seconds"]) == [0, 2, 4]
    assert pareto(records, ["gain"]) == [1, 2]
