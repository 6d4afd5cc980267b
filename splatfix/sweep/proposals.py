"""Proposals: an Optuna study that is asked and told in the order of the trials, so that a seed fixes all of them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna

from splatfix.sweep.config import HalvingConfig, SweepConfig
from splatfix.sweep.record import TrialRecord
from splatfix.sweep.space import Parameter, default_values, grid_points, in_order, is_active

DEFAULT_TRIALS = 32
LESS_IS_BETTER = frozenset({"seconds"})

optuna.logging.set_verbosity(optuna.logging.WARNING)


class Search:
    """Proposes settings. `ask` and `tell` are called in the order of the trials' numbers, each from 0.

    Raises:
        ValueError: a grid over a range without points; the message names ``source``.
    """

    def __init__(self, config: SweepConfig, *, source: str) -> None:
        self._config = config
        search, self._space = config.search, config.space
        self._default = default_values(self._space, config.loop)
        self.num_trials = search.trials or DEFAULT_TRIALS
        points: list[dict[str, Any]] = []
        if search.method == "grid":
            points = list(grid_points(self._space, source=source))
            self.num_trials = min(search.trials or len(points), len(points))
        elif search.with_default and all(self._space[field].holds(value) for field, value in self._default.items()):
            points = [self._default]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study = optuna.create_study(
                directions=["minimize" if name in LESS_IS_BETTER else "maximize" for name in config.objectives],
                sampler=_sampler(config),
                pruner=optuna.pruners.NopPruner(),
            )
        for point in points[: self.num_trials]:
            self._study.enqueue_trial(point)
        self._asked: list[optuna.Trial] = []
        self._num_told = 0

    def ask(self) -> dict[str, Any]:
        """The settings of the next trial: the fields that are active, and their values."""
        trial = self._study.ask()
        self._asked.append(trial)
        values: dict[str, Any] = {}
        for field in in_order(self._space):
            if is_active(self._space[field], {**self._default, **values}):
                values[field] = _suggested(trial, field, self._space[field])
        return {field: values[field] for field in self._space if field in values}

    def tell(self, record: TrialRecord) -> None:
        """How the next one of the asked trials ended."""
        trial = self._asked[self._num_told]
        self._num_told += 1
        values = [record.objective(name) for name in self._config.objectives]
        known = [value for value in values if value is not None and math.isfinite(value)]
        if record.status == "complete" and len(known) == len(values):
            self._study.tell(trial, known)
        elif record.status == "stopped" and len(values) == 1:
            for made in record.rounds:
                if (value := made.get(self._config.objectives[0])) is not None:
                    trial.report(value, made["round"])
            self._study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)


def _sampler(config: SweepConfig) -> optuna.samplers.BaseSampler:
    search = config.search
    if search.method == "tpe":
        return optuna.samplers.TPESampler(
            seed=search.seed, n_startup_trials=search.startup, multivariate=True, group=True, constant_liar=True
        )
    if search.method == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=search.seed, population_size=search.population)
    return optuna.samplers.RandomSampler(seed=search.seed)


def _suggested(trial: optuna.Trial, field: str, parameter: Parameter) -> Any:
    if parameter.choice is not None:
        return trial.suggest_categorical(field, parameter.choice)
    low, high = parameter.bounds
    if parameter.integer is not None:
        return trial.suggest_int(field, int(low), int(high), log=parameter.log)
    return trial.suggest_float(field, low, high, log=parameter.is_log)


def goes_on(round_number: int, value: float | None, earlier: Sequence[float], config: HalvingConfig) -> bool:
    """Whether a trial goes on after a round, by successive halving.

    Args:
        round_number: the round that it ended, from 1.
        value: what it reached there; more is better. None stops it at a rung.
        earlier: what other trials reached in that round.

    The trial stops at a rung where it is below the upper ``1 / factor`` of the others (as in ASHA; the very first one
    goes on).
    """
    rung = float(config.grace)
    while rung < round_number:
        rung *= config.factor
    if math.floor(rung + 1e-9) != round_number:
        return True
    if value is None:
        return False
    return not earlier or value >= float(np.percentile(earlier, 100 * (1 - 1 / config.factor)))


def importances(config: SweepConfig, records: Sequence[TrialRecord]) -> tuple[dict[str, float] | None, str | None]:
    """How much of the spread of the first objective each field explains (fANOVA, Hutter et al. 2014), or why not.

    Conditional fields are left out: they are not set in all trials.
    """
    name = config.objectives[0]
    done = [record for record in records if record.status == "complete" and record.objective(name) is not None]
    fields = {field: parameter for field, parameter in config.space.items() if not parameter.when}
    if len(done) < 4 or len({record.objective(name) for record in done}) < 2:
        return None, "needs at least 4 complete trials that differ"
    if not fields:
        return None, "every field is conditional"
    study = optuna.create_study(direction="maximize")
    for record in done:
        study.add_trial(
            optuna.trial.create_trial(
                params={field: record.values[field] for field in fields},
                distributions={field: _distribution(parameter) for field, parameter in fields.items()},
                value=record.objective(name),
            )
        )
    try:
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=config.search.seed)
        found = optuna.importance.get_param_importances(study, evaluator=evaluator, params=list(fields))
    except (RuntimeError, ValueError, ZeroDivisionError) as error:
        return None, f"could not be computed: {error}"
    return {field: float(found[field]) for field in sorted(found, key=lambda f: -found[f])}, None


def _distribution(parameter: Parameter) -> optuna.distributions.BaseDistribution:
    if parameter.choice is not None:
        return optuna.distributions.CategoricalDistribution(parameter.choice)
    low, high = parameter.bounds
    if parameter.integer is not None:
        return optuna.distributions.IntDistribution(int(low), int(high), log=parameter.log)
    return optuna.distributions.FloatDistribution(low, high, log=parameter.is_log)


def pareto(records: Sequence[TrialRecord], objectives: Sequence[str]) -> list[int]:
    """Numbers of the complete trials that no other one equals or beats in all objectives and beats in one."""
    points: dict[int, list[float]] = {}
    for record in records:
        values = [(name, value) for name in objectives if (value := record.objective(name)) is not None]
        if record.status == "complete" and len(values) == len(objectives):
            points[record.number] = [-value if name in LESS_IS_BETTER else value for name, value in values]
    return [n for n, mine in points.items() if not any(_beats(other, mine) for other in points.values())]


def _beats(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a >= b for a, b in zip(one, other, strict=True)) and list(one) != list(other)
