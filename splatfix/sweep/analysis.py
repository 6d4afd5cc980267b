"""What a sweep found: the best trial, the trade-offs, the importance of each field, and the verdict of the reruns."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from scipy import stats

from splatfix.report.sweep.results import RerunRow, Verdict
from splatfix.report.wording import format_number
from splatfix.sweep.config import SweepConfig
from splatfix.sweep.parameter import Parameter
from splatfix.sweep.proposals import MINIMIZED
from splatfix.sweep.record import TrialRecord

MIN_TRIALS_FOR_IMPORTANCE = 4
UNITS = {"psnr": " dB", "ssim": ""}
DIGITS = {"psnr": 2, "ssim": 4}


def best_trial(records: Sequence[TrialRecord], objective: str) -> TrialRecord | None:
    """The complete trial with the largest first objective, the earliest of equal ones; None without such."""
    return max(
        complete_trials(records, objective),
        key=lambda record: (record.figure(objective), -record.number),
        default=None,
    )


def complete_trials(records: Sequence[TrialRecord], objective: str) -> list[TrialRecord]:
    """The complete trials that have the objective."""
    return [record for record in records if record.status == "complete" and record.figure(objective) is not None]


def pareto_front(records: Sequence[TrialRecord], objectives: Sequence[str]) -> list[int]:
    """Numbers of the complete trials that no other one equals or beats in all objectives and beats in one."""
    points: dict[int, list[float]] = {}
    for record in records:
        values = [(name, value) for name in objectives if (value := record.figure(name)) is not None]
        if record.status == "complete" and len(values) == len(objectives):
            points[record.number] = [-value if name in MINIMIZED else value for name, value in values]
    return [
        number for number, point in points.items() if not any(_dominates(other, point) for other in points.values())
    ]


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a >= b for a, b in zip(one, other, strict=True)) and list(one) != list(other)


def field_importances(
    config: SweepConfig, records: Sequence[TrialRecord]
) -> tuple[dict[str, float] | None, str | None]:
    """Share of the spread of the first objective that each field explains (fANOVA, Hutter et al. 2014), or why not.

    Conditional fields are left out: they are not set in all trials.
    """
    objective = config.objectives[0]
    complete = complete_trials(records, objective)
    fields = {field: parameter for field, parameter in config.space.items() if not parameter.when}
    if len(complete) < MIN_TRIALS_FOR_IMPORTANCE or len({record.figure(objective) for record in complete}) < 2:
        return None, f"needs at least {MIN_TRIALS_FOR_IMPORTANCE} complete trials that differ"
    if not fields:
        return None, "every field is conditional"
    study = optuna.create_study(direction="maximize")
    for record in complete:
        study.add_trial(
            optuna.trial.create_trial(
                params={field: record.values[field] for field in fields},
                distributions={field: _distribution(parameter) for field, parameter in fields.items()},
                value=record.figure(objective),
            )
        )
    try:
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=config.search.seed)
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator, params=list(fields))
    except (RuntimeError, ValueError, ZeroDivisionError) as error:
        return None, f"could not be computed: {error}"
    return {field: float(shares[field]) for field in sorted(shares, key=lambda field: -shares[field])}, None


def _distribution(parameter: Parameter) -> optuna.distributions.BaseDistribution:
    if parameter.choice is not None:
        return optuna.distributions.CategoricalDistribution(parameter.choice)
    low, high = parameter.bounds
    if parameter.integer is not None:
        return optuna.distributions.IntDistribution(int(low), int(high), log=parameter.log)
    return optuna.distributions.FloatDistribution(low, high, log=parameter.is_log)


@dataclass(frozen=True)
class _SeedMean:
    """Mean over seeds, their standard deviation, and the 95 % interval of the mean; None with one seed."""

    mean: float
    num: int
    spread: float | None = None
    low: float | None = None
    high: float | None = None


def _average(by_seed: Mapping[int, Sequence[float]]) -> _SeedMean:
    """The mean over the seeds of the means of their values."""
    means = np.array([np.mean(values) for values in by_seed.values()])
    mean, num = float(means.mean()), len(means)
    if num < 2:
        return _SeedMean(mean, num)
    spread = float(means.std(ddof=1))
    half = float(stats.t.ppf(0.975, num - 1)) * spread / num**0.5
    return _SeedMean(mean, num, spread, mean - half, mean + half)


def compare_reruns(rows: Sequence[RerunRow], subject: str, metric: str) -> Verdict | None:
    """The verdict of some reruns; None without any difference. ``subject`` names the best config in the sentence."""
    differences, gains = defaultdict[int, list[float]](list), defaultdict[int, list[float]](list)
    by_capture = defaultdict[str, list[float]](list)
    for row in rows:
        if row.difference is not None and row.best.gain is not None:
            differences[row.seed].append(row.difference)
            gains[row.seed].append(row.best.gain)
            by_capture[row.capture].append(row.difference)
    if not differences:
        return None
    difference, gain = _average(differences), _average(gains)
    sentences = [
        _describe_difference(difference, subject, metric),
        _describe_captures(by_capture, metric),
        _describe_gain(gain, metric),
    ]
    return Verdict(
        beats=_excludes_zero(difference),
        difference=difference.mean,
        spread=difference.spread,
        low=difference.low,
        high=difference.high,
        gain=gain.mean,
        gain_low=gain.low,
        gain_high=gain.high,
        sentence=" ".join(filter(None, sentences)),
    )


def _excludes_zero(value: _SeedMean) -> bool | None:
    """True where the interval is above 0, False where it is below, else None."""
    if value.low is None or value.high is None:
        return None
    return True if value.low > 0 else False if value.high < 0 else None


def _describe_difference(difference: _SeedMean, subject: str, metric: str) -> str:
    mean = _signed(difference.mean, metric) + UNITS[metric]
    if difference.spread is None:
        return f"{subject} differs from the default by {mean} in gain with one seed: too few to tell."
    deviation = f"{difference.spread:.{DIGITS[metric]}f}{UNITS[metric]}"
    seeds = f"the spread of {difference.num} seeds (standard deviation {deviation}"
    seeds += f"; 95 % interval of the mean {_interval(difference, metric)})"
    beats = _excludes_zero(difference)
    if beats:
        return f"{subject} beats the default: its gain is larger by {mean}, beyond {seeds}."
    if beats is False:
        return f"{subject} is worse than the default: its gain differs by {mean}, beyond {seeds}. Keep the default."
    return f"{subject} does not beat the default beyond {seeds}: its gain differs by {mean} in the mean."


def _describe_captures(by_capture: Mapping[str, Sequence[float]], metric: str) -> str | None:
    if len(by_capture) < 2:
        return None
    each = (f"{capture} {_signed(float(np.mean(values)), metric)}" for capture, values in by_capture.items())
    return f"By capture: {', '.join(each)}."


def _describe_gain(gain: _SeedMean, metric: str) -> str:
    mean, baseline = _signed(gain.mean, metric) + UNITS[metric], "its own baseline, the better of before and control"
    if gain.spread is None:
        return f"Its gain over {baseline}, is {mean}."
    interval = f"(95 % interval {_interval(gain, metric)})"
    beats = _excludes_zero(gain)
    if beats:
        return f"It beats {baseline}, by {mean} {interval}."
    if beats is False:
        return f"It is worse than {baseline}: {mean} {interval}, so that the repair does not help."
    return f"It does not beat {baseline}, beyond the spread: {mean} in the mean {interval}."


def _interval(value: _SeedMean, metric: str) -> str:
    assert value.low is not None and value.high is not None
    return f"{_signed(value.low, metric)} to {_signed(value.high, metric)}"


def _signed(value: float, metric: str) -> str:
    return format_number(value, DIGITS[metric], signed=True)
