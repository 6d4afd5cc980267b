"""The scheduler of a sweep: proposals that depend on the seed alone, resumed and retried trials, halving."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from splatfix.sweep.config import SweepConfig
from splatfix.sweep.proposals import ProposalStudy
from splatfix.sweep.record import AttemptEnd, RoundRecord, TrialRecord
from splatfix.sweep.scheduler import SweepScheduler
from tests.sweep.small import SPACE, gain_of, small


def round_of(values: dict[str, Any], round_number: int, seconds: float = 1.0) -> RoundRecord:
    return round_with(gain_of(values, round_number), round_number, seconds)


def round_with(gain: float, round_number: int = 1, seconds: float = 1.0) -> RoundRecord:
    return RoundRecord(round=round_number, gain=gain, gain_worst=gain - 0.1, seconds=seconds)


COMPLETE = AttemptEnd(outcome="complete")


def create_scheduler(config: SweepConfig, sweep: Path, parallel: int) -> SweepScheduler:
    return SweepScheduler(config, sweep, parallel=parallel, source="test", start_time=time.time())


def run(sweep: Path, order_seed: int, stop_after: int | None = None, **changes: Any) -> list[TrialRecord] | None:
    """Run all trials, with rounds in random order; None if it was interrupted after some events."""
    changes = {"search": {"trials": 20, "startup": 4, "parallel": 3}, "workers": {"attempts": 1000}, **changes}
    config = small(space=SPACE, **changes)
    rng = np.random.default_rng(order_seed)
    scheduler = create_scheduler(config, sweep, config.search.parallel or 1)
    running: dict[int, int] = {}  # trial -> its completed rounds
    for num_events in range(10_000):
        while (record := scheduler.next_trial()) is not None:
            running[record.number] = 0
        if not running:
            return scheduler.records
        if num_events == stop_after:
            return None
        number = int(rng.choice(sorted(running)))
        running[number] += 1
        values = scheduler.records[number].values
        if rng.random() < 0.05:  # its worker dies, and it is handed out again
            scheduler.report(number, AttemptEnd(outcome="error", error="killed"))
            del running[number]
        elif values["repair.probability"] > 0.9 and running[number] == 2:
            scheduler.report(number, AttemptEnd(outcome="failed", error="loss = nan"))
            del running[number]
        elif running[number] > config.loop.repair.rounds:
            scheduler.report(number, COMPLETE)
            del running[number]
        elif not scheduler.report(number, round_of(values, running[number], seconds=values["repair.probability"])):
            del running[number]
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
def test_proposals_and_ends_do_not_depend_on_order_or_interruptions(tmp_path, changes):
    uninterrupted = summary(run(tmp_path / "a", 1, **changes))
    assert len(uninterrupted) == 20
    assert summary(run(tmp_path / "b", 2, **changes)) == uninterrupted
    for stop in (0, 7, 15, 5):
        assert run(tmp_path / "c", 3 + stop, stop_after=stop, **changes) is None
    assert summary(run(tmp_path / "c", 4, **changes)) == uninterrupted
    if "halving" in changes:
        assert {status for _, _, status, _ in uninterrupted} >= {"complete", "stopped"}
    if changes == RANDOM:
        assert {status for _, _, status, _ in uninterrupted} == {"complete", "failed"}


def test_another_seed_gives_other_proposals(tmp_path):
    other = {"search": {"trials": 20, "startup": 4, "parallel": 3, "seed": 1}}
    one, two = summary(run(tmp_path / "a", 1)), summary(run(tmp_path / "b", 1, **other))
    assert one[0][1] == two[0][1] and all(a[1] != b[1] for a, b in zip(one[1:], two[1:], strict=True))


def test_tpe_finds_more_than_random_search(tmp_path):
    search = {"trials": 40, "startup": 8, "parallel": 2}
    best = {
        method: max(r.rounds[-1].gain for r in run(tmp_path / method, 1, search={**search, "method": method}) or [])
        for method in ("tpe", "random")
    }
    assert best["tpe"] > best["random"] and best["tpe"] > 0.7


def test_the_default_is_the_first_trial_if_the_space_contains_it(tmp_path):
    records = run(tmp_path / "a", 1)
    assert records and records[0].values == {
        "repair.weight": 1.0,
        "repair.probability": 0.5,
        "restorer": "warp",
        "repair.outward": 0.5,
    }
    beside = {**SPACE, "repair.weight": {"loguniform": [2.0, 3.0]}}
    assert ProposalStudy(small(space=beside), source="test").ask()["repair.weight"] >= 2.0
    without = {"trials": 3, "with_default": False}
    assert ProposalStudy(small(space=SPACE, search=without), source="test").ask() != records[0].values


def test_a_grid_is_run_once(tmp_path):
    space = {"repair.weight": {"uniform": [0.5, 1.0], "points": 3}, "restorer": {"choice": ["warp", "identity"]}}
    config = small(space=space, search={"method": "grid", "trials": None, "parallel": 2})
    scheduler = create_scheduler(config, tmp_path, 2)
    assert scheduler.num_trials == 6
    while (record := scheduler.next_trial()) is not None:
        scheduler.report(record.number, COMPLETE)
    found = [(r.values["repair.weight"], r.values["restorer"]) for r in scheduler.records]
    assert sorted(found) == sorted((w, r) for w in (0.5, 0.75, 1.0) for r in ("warp", "identity"))


def test_a_trial_waits_for_the_results_that_its_proposal_depends_on(tmp_path):
    scheduler = create_scheduler(small(space=SPACE), tmp_path, 2)
    first, second = scheduler.next_trial(), scheduler.next_trial()
    assert first and second and scheduler.next_trial() is None
    scheduler.report(second.number, AttemptEnd(outcome="failed", error="no"))
    assert scheduler.next_trial() is None  # the next proposal depends on the first
    scheduler.report(first.number, COMPLETE)
    assert scheduler.next_trial() is not None and scheduler.next_trial() is not None and scheduler.next_trial() is None


def test_a_proposal_that_differs_from_the_trial_on_disk_is_refused(tmp_path):
    run(tmp_path, 1, stop_after=10)
    record = TrialRecord(number=1, values={"repair.weight": 7.0}, status="complete")
    record.write(tmp_path / "trials" / "0001")
    with pytest.raises(ValueError, match=r"trials/0001: was proposed as \{'repair.weight': 7.0\}, but now"):
        run(tmp_path, 1)


def test_a_failed_trial_is_marked_and_the_others_run(tmp_path):
    scheduler = create_scheduler(small(space=SPACE, search={"trials": 8}), tmp_path, 1)
    while (record := scheduler.next_trial()) is not None:
        if record.number % 2:
            assert not scheduler.report(record.number, AttemptEnd(outcome="failed", error="loss = nan"))
        else:
            scheduler.report(record.number, round_of(record.values, 1))
            assert not scheduler.report(record.number, COMPLETE)
    assert [r.status for r in scheduler.records] == ["complete", "failed"] * 4
    assert scheduler.records[1].error == "loss = nan"


def test_an_error_costs_an_attempt_and_the_last_one_fails_the_trial(tmp_path):
    config = small(space=SPACE, search={"trials": 2}, workers={"num": 0, "attempts": 3})
    scheduler = create_scheduler(config, tmp_path, 1)
    for reason in ("first", "second", "third"):
        record = scheduler.next_trial()
        assert record is not None and record.number == 0 and scheduler.num_running == 1 and not scheduler.is_finished
        scheduler.report(0, AttemptEnd(outcome="error", error=reason))
    assert scheduler.records[0].status == "failed" and scheduler.records[0].error == "third"
    record = scheduler.next_trial()
    assert record is not None and record.number == 1
    scheduler.report(1, AttemptEnd(outcome="error", error="once"))
    assert scheduler.num_running == 0 and not scheduler.is_finished
    record = scheduler.next_trial()
    assert record is not None and scheduler.next_trial() is None
    scheduler.report(record.number, COMPLETE)
    assert scheduler.is_finished and scheduler.abort_reason is None


def test_the_sweep_aborts_if_the_first_trials_all_fail_and_tries_them_again(tmp_path):
    def drive(end: AttemptEnd) -> SweepScheduler:
        scheduler = create_scheduler(small(space=SPACE, search={"trials": 20}), tmp_path, 2)
        while (record := scheduler.next_trial()) is not None:
            scheduler.report(record.number, end)
        return scheduler

    aborted = drive(AttemptEnd(outcome="failed", error="no such folder"))
    reason = "the first 5 trials failed, the last with: no such folder"
    assert str(aborted.abort_reason) == reason and aborted.is_finished
    proposed = [record.values for record in aborted.records]
    resumed = drive(COMPLETE)
    assert resumed.abort_reason is None and [record.status for record in resumed.records] == ["complete"] * 20
    assert [record.values for record in resumed.records][: len(proposed)] == proposed


def test_a_rung_compares_trials_of_as_many_rounds(tmp_path):
    space = {"repair.weight": {"uniform": [0.0, 1.0]}, "repair.rounds": {"choice": [1, 2]}}
    config = small(space=space, halving={"grace": 1, "factor": 2.0}, search={"method": "random", "trials": 30})
    scheduler = create_scheduler(config, tmp_path, 1)
    stopped = 0
    while (record := scheduler.next_trial()) is not None:
        rounds, gain = record.values["repair.rounds"], 1.0 if record.values["repair.rounds"] == 1 else 0.0
        for number in range(1, rounds + 1):
            assert scheduler.report(record.number, round_with(gain, number)), "all of the same length are equal"
        scheduler.report(record.number, COMPLETE)
        stopped += record.status == "stopped"
    assert stopped == 0 and len({record.values["repair.rounds"] for record in scheduler.records}) == 2


def test_a_trial_that_completed_its_last_round_is_not_stopped(tmp_path):
    config = small(space=SPACE, halving={"grace": 2, "factor": 2.0})
    scheduler = create_scheduler(config, tmp_path, 1)
    for gain in (1.0, -1.0):
        record = scheduler.next_trial()
        assert record is not None
        for number in (1, 2):
            assert scheduler.report(record.number, round_with(gain, number))
        scheduler.report(record.number, COMPLETE)
    assert [r.status for r in scheduler.records] == ["complete", "complete"]


def test_an_error_after_the_end_of_a_trial_changes_nothing(tmp_path, caplog):
    """As Tune reports it where it cannot save a trial that is complete: it was run again, until it had no attempts."""
    scheduler = create_scheduler(small(space=SPACE, search={"trials": 1}), tmp_path, 1)
    record = scheduler.next_trial()
    assert record is not None
    scheduler.report(0, round_of(record.values, 1))
    scheduler.report(0, COMPLETE)
    ended = scheduler.records[0]
    for _ in range(5):
        scheduler.report(0, AttemptEnd(outcome="error", error="cannot set up storage"))
    assert scheduler.is_finished and scheduler.num_running == 0 and scheduler.next_trial() is None
    assert scheduler.records == [ended] and ended.status == "complete"
    assert "trial 0: an error after its end: cannot set up storage" in caplog.text


def test_a_trial_avoids_nodes_that_failed_it_and_those_that_fail_everything(tmp_path, caplog):
    scheduler = create_scheduler(small(space=SPACE, search={"trials": 6}), tmp_path, 6)
    assert all(scheduler.next_trial() for _ in range(3))
    for number in range(3):
        assert scheduler.nodes_to_avoid(number) == set()
        end = AttemptEnd(outcome="error", error="no such folder", traceback="Traceback: ...")
        scheduler.report(number, end, node="bad")
        assert scheduler.nodes_to_avoid(number) == {"bad"}
    assert scheduler.nodes_to_avoid(5) == {"bad"}  # three in a row: whatever is tried there fails
    assert "node bad: 3 attempts in a row failed on it" in caplog.text
    assert "trial 0: attempt 1 of 3 failed on node bad: no such folder" in caplog.text
    traceback = (tmp_path / "trials" / "0000" / "errors.txt").read_text()
    assert traceback.startswith("Attempt 1 on node bad: no such folder") and "Traceback" in traceback
    retried = scheduler.next_trial()
    assert retried is not None and retried.number == 0
    scheduler.report(0, round_of(retried.values, 1), node="bad")
    assert scheduler.nodes_to_avoid(5) == set() and scheduler.nodes_to_avoid(1) == {"bad"}
