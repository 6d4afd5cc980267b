"""What a sweep found: the best trial, the trade-offs, the importance of each field, and the verdict of the reruns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import optuna
from scipy import stats

from splatfix.report.sweep.results import RerunRow, Verdict
from splatfix.report.wording import written
from splatfix.sweep.config import SweepConfig
from splatfix.sweep.proposals import MINIMIZED
from splatfix.sweep.record import TrialRecord
from splatfix.sweep.space import Parameter

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


def compare_reruns(rows: Sequence[RerunRow], subject: str, metric: str) -> Verdict | None:
    """The verdict of some reruns; None without any difference. ``subject`` names the best config in the sentence."""
    by_seed: dict[int, list[float]] = {}
    by_capture: dict[str, list[float]] = {}
    for row in rows:
        if row.difference is not None:
            by_seed.setdefault(row.seed, []).append(row.difference)
            by_capture.setdefault(row.capture, []).append(row.difference)
    if not by_seed:
        return None
    means = np.array([np.mean(differences) for differences in by_seed.values()])
    mean, num = float(means.mean()), len(means)
    unit, digits = UNITS[metric], DIGITS[metric]

    def signed(value: float) -> str:
        return written(value, digits, signed=True)

    each = [f"{capture} {signed(float(np.mean(differences)))}" for capture, differences in by_capture.items()]
    more = f" By capture: {', '.join(each)}." if len(each) > 1 else ""
    if num < 2:
        sentence = f"{subject} differs from the default by {signed(mean)}{unit} with one seed: too few to tell."
        return Verdict(beats=None, difference=mean, spread=None, low=None, high=None, sentence=sentence + more)
    spread = float(means.std(ddof=1))
    half = float(stats.t.ppf(0.975, num - 1)) * spread / num**0.5
    low, high = mean - half, mean + half
    beats = True if low > 0 else False if high < 0 else None
    seeds = f"the spread of {num} seeds (standard deviation {spread:.{digits}f}{unit}"
    seeds += f"; 95 % interval of the mean {signed(low)} to {signed(high)})"
    if beats:
        sentence = f"{subject} beats the default by {signed(mean)}{unit}, beyond {seeds}."
    elif beats is False:
        sentence = f"{subject} is worse than the default, {signed(mean)}{unit}, beyond {seeds}: stay with the default."
    else:
        sentence = f"{subject} does not beat the default beyond {seeds}: {signed(mean)}{unit} in the mean."
    return Verdict(beats=beats, difference=mean, spread=spread, low=low, high=high, sentence=sentence + more)
