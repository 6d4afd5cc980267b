"""The verdict of the reruns, against figures worked out by hand."""

from __future__ import annotations

import pytest

from splatfix.evaluation.results import Results, ViewResult
from splatfix.sweep.analysis import best_of, rerun_row, verdict
from splatfix.sweep.record import TrialRecord
from tests.report.make_run import make_results


def rows(*by_seed: tuple[float, ...]) -> list[dict]:
    return [
        {"seed": seed, "capture": f"c{k}", "difference": value}
        for seed, values in enumerate(by_seed)
        for k, value in enumerate(values)
    ]


def test_a_difference_beyond_the_spread_beats():
    told = verdict(rows((0.1, 0.3), (0.2, 0.2), (0.2, 0.4)), "It", "psnr")
    assert told is not None and told.beats is True
    assert told.difference == pytest.approx(0.7 / 3)
    assert told.spread == pytest.approx(0.057735, abs=1e-6)  # of 0.2, 0.2, 0.3
    half = 4.302653 * 0.057735 / 3**0.5  # Student's t for two degrees of freedom
    assert (told.low, told.high) == pytest.approx((0.7 / 3 - half, 0.7 / 3 + half), abs=1e-5)
    assert told.sentence == (
        "It beats the default by +0.23 dB, beyond the spread of 3 seeds (standard deviation 0.06 dB; 95 % interval of "
        "the mean +0.09 to +0.38). By capture: c0 +0.17, c1 +0.30."
    )


def test_a_difference_within_the_spread_does_not():
    told = verdict(rows((0.3,), (-0.1,), (0.1,)), "It", "psnr")
    assert told is not None and told.beats is None and told.low is not None and told.low < 0
    assert told.sentence.startswith("It does not beat the default beyond the spread of 3 seeds")


def test_worse_is_said():
    told = verdict(rows((-0.3,), (-0.31,), (-0.29,)), "It", "ssim")
    assert told is not None and told.beats is False
    assert told.sentence.startswith("It is worse than the default, −0.3000, beyond") and "stay with" in told.sentence


def test_one_seed_is_too_few_and_none_is_nothing():
    told = verdict(rows((0.5, 0.7)), "It", "psnr")
    assert told is not None and told.beats is None and told.spread is None and "too few" in told.sentence
    assert verdict([], "It", "psnr") is None
    assert verdict([{"seed": 1, "capture": "a", "difference": None}], "It", "psnr") is None


def test_the_difference_is_of_after_alone():
    def results(after: float, control: float) -> Results:
        arms = {"before": {"psnr": 19.0}, "control": {"psnr": control}, "after": {"psnr": after}, "post": None}
        return make_results([ViewResult(name="a", band="far", distance=0.1, **arms)])

    row = rerun_row(results(20.0, 19.5), results(20.4, 20.1), "psnr")
    assert row["difference"] == pytest.approx(0.4)
    assert (row["default"]["gain"], row["best"]["gain"]) == pytest.approx((0.5, 0.3))
    assert row["best"]["near"] is None


def test_the_best_is_complete_and_the_earliest_of_equal_ones():
    def record(number: int, status: str, gain: float | None) -> TrialRecord:
        rounds = [{"round": 1, "gain": gain, "cases": {}}]
        return TrialRecord(number=number, values={}, status=status, rounds=rounds)  # type: ignore[arg-type]

    records = [record(0, "complete", 0.1), record(1, "stopped", 0.9), record(2, "complete", 0.3)]
    records += [record(3, "complete", 0.3), record(4, "complete", None), record(5, "failed", 0.8)]
    found = best_of(records, "gain")
    assert found is not None and found.number == 2
    assert best_of(records[1:2], "gain") is None
