"""The best trial, the trade-offs, importance, and the verdict of the reruns against figures worked out by hand."""

from __future__ import annotations

import pytest

from splatfix.report.sweep.results import RerunFigures, RerunRow
from splatfix.sweep.analysis import best_trial, compare_reruns, field_importances, pareto_front
from splatfix.sweep.proposals import ProposalStudy
from splatfix.sweep.record import RoundRecord, TrialRecord
from tests.sweep.small import SPACE, gain_of, small


def rows(*by_seed: tuple[float, ...], default_gain: float = 0.1) -> list[RerunRow]:
    """Reruns with these differences of the gains."""
    return [
        RerunRow(
            seed=seed,
            capture=f"c{k}",
            default=RerunFigures(gain=default_gain),
            best=RerunFigures(gain=default_gain + value),
            difference=value,
        )
        for seed, values in enumerate(by_seed)
        for k, value in enumerate(values)
    ]


def test_a_difference_beyond_the_spread_beats():
    verdict = compare_reruns(rows((0.1, 0.3), (0.2, 0.2), (0.2, 0.4)), "It", "psnr")
    assert verdict is not None and verdict.beats is True
    assert verdict.difference == pytest.approx(0.7 / 3)
    assert verdict.spread == pytest.approx(0.057735, abs=1e-6)  # of 0.2, 0.2, 0.3
    half = 4.302653 * 0.057735 / 3**0.5  # Student's t for two degrees of freedom
    assert (verdict.low, verdict.high) == pytest.approx((0.7 / 3 - half, 0.7 / 3 + half), abs=1e-5)
    assert verdict.sentence == (
        "It beats the default: its gain is larger by +0.23 dB, beyond the spread of 3 seeds (standard deviation "
        "0.06 dB; 95 % interval of the mean +0.09 to +0.38). By capture: c0 +0.17, c1 +0.30. It beats its own "
        "baseline, the better of before and control, by +0.33 dB (95 % interval +0.19 to +0.48)."
    )
    assert verdict.gain == pytest.approx(0.1 + verdict.difference)
    assert (verdict.gain_low, verdict.gain_high) == pytest.approx((0.1 + verdict.low, 0.1 + verdict.high))


def test_a_config_that_beats_the_default_may_be_worse_than_its_own_baseline():
    verdict = compare_reruns(rows((0.1,), (0.11,), (0.12,), default_gain=-0.4), "It", "psnr")
    assert verdict is not None and verdict.beats is True and verdict.gain_high is not None and verdict.gain_high < 0
    assert "It is worse than its own baseline, the better of before and control: −0.29 dB" in verdict.sentence
    assert verdict.sentence.endswith("so that the repair does not help.")


def test_a_gain_within_the_spread_is_no_proof_of_the_repair():
    verdict = compare_reruns(rows((0.3,), (-0.3,), (0.1,)), "It", "psnr")
    assert verdict is not None and "It does not beat its own baseline" in verdict.sentence


def test_a_difference_within_the_spread_does_not_beat():
    verdict = compare_reruns(rows((0.3,), (-0.1,), (0.1,)), "It", "psnr")
    assert verdict is not None and verdict.beats is None and verdict.low is not None and verdict.low < 0
    assert verdict.sentence.startswith("It does not beat the default beyond the spread of 3 seeds")


def test_a_worse_config_is_reported_as_worse():
    verdict = compare_reruns(rows((-0.3,), (-0.31,), (-0.29,)), "It", "ssim")
    assert verdict is not None and verdict.beats is False
    assert verdict.sentence.startswith("It is worse than the default: its gain differs by −0.3000, beyond")
    assert "Keep the default." in verdict.sentence


def test_one_seed_is_too_few_and_without_a_difference_there_is_no_verdict():
    verdict = compare_reruns(rows((0.5, 0.7)), "It", "psnr")
    assert verdict is not None and verdict.beats is None and verdict.spread is None and "too few" in verdict.sentence
    assert verdict.sentence.endswith("Its gain over its own baseline, the better of before and control, is +0.70 dB.")
    assert compare_reruns([], "It", "psnr") is None
    assert compare_reruns([RerunRow(seed=1, capture="a", error="loss = nan")], "It", "psnr") is None


def test_the_best_is_complete_and_the_earliest_of_equal_ones():
    def record(number: int, status: str, gain: float | None) -> TrialRecord:
        return TrialRecord(number=number, values={}, status=status, rounds=(RoundRecord(round=1, gain=gain),))

    records = [record(0, "complete", 0.1), record(1, "stopped", 0.9), record(2, "complete", 0.3)]
    records += [record(3, "complete", 0.3), record(4, "complete", None), record(5, "failed", 0.8)]
    best = best_trial(records, "gain")
    assert best is not None and best.number == 2
    assert best_trial(records[1:2], "gain") is None


def test_importance_names_the_field_that_matters():
    study = ProposalStudy(small(space=SPACE, search={"method": "random", "trials": 60}), source="test")
    proposals = [study.ask() for _ in range(60)]
    records = [
        TrialRecord(number=k, values=values, status="complete", rounds=(RoundRecord(round=1, gain=gain_of(values, 1)),))
        for k, values in enumerate(proposals)
    ]
    shares, reason = field_importances(small(space=SPACE), records)
    assert reason is None and shares is not None
    assert next(iter(shares)) == "repair.weight" and sum(shares.values()) == pytest.approx(1.0)
    assert "repair.outward" not in shares  # conditional
    assert field_importances(small(space=SPACE), records[:3]) == (None, "needs at least 4 complete trials that differ")


def test_the_pareto_front_holds_the_trials_that_none_beats():
    points = [(0.1, 10.0), (0.2, 20.0), (0.2, 15.0), (0.05, 30.0), (0.1, 10.0)]
    records = [
        TrialRecord(number=k, values={}, status="complete", rounds=(RoundRecord(round=1, gain=gain, seconds=seconds),))
        for k, (gain, seconds) in enumerate(points)
    ]
    stopped = RoundRecord(round=1, gain=9.0, seconds=1.0)
    records.append(TrialRecord(number=9, values={}, status="stopped", rounds=(stopped,)))
    assert pareto_front(records, ["gain", "seconds"]) == [0, 2, 4]
    assert pareto_front(records, ["gain"]) == [1, 2]
