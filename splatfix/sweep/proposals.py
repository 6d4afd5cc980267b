"""Proposals: the settings of each trial, from an Optuna study that a seed makes repeatable."""

from __future__ import annotations

import math
import warnings
from typing import Any

import optuna

from splatfix.sweep.config import SweepConfig
from splatfix.sweep.parameter import Parameter, is_active
from splatfix.sweep.record import TrialRecord
from splatfix.sweep.settings import default_values
from splatfix.sweep.space import grid_points, sort_fields

DEFAULT_TRIALS = 32
MINIMIZED = frozenset({"seconds"})

optuna.logging.set_verbosity(optuna.logging.WARNING)


class ProposalStudy:
    """Proposes the settings of each trial from the results of earlier ones, by Optuna.

    `ask` and `tell` are each called in the order of the trials' numbers, from 0: so the seed fixes all proposals.

    Attributes:
        num_trials: proposals of the whole search.

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
        elif search.with_default and all(self._space[field].contains(value) for field, value in self._default.items()):
            points = [self._default]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study = optuna.create_study(
                directions=["minimize" if name in MINIMIZED else "maximize" for name in config.objectives],
                sampler=_create_sampler(config),
                pruner=optuna.pruners.NopPruner(),
            )
        for point in points[: self.num_trials]:
            self._study.enqueue_trial(point)
        self._trials: list[optuna.Trial] = []
        self._num_results = 0

    def ask(self) -> dict[str, Any]:
        """The settings of the next trial: searched field -> value, of the fields that are active."""
        trial = self._study.ask()
        self._trials.append(trial)
        values: dict[str, Any] = {}
        for field in sort_fields(self._space):
            if is_active(self._space[field], {**self._default, **values}):
                values[field] = _suggest(trial, field, self._space[field])
        return {field: values[field] for field in self._space if field in values}

    def tell(self, record: TrialRecord) -> None:
        """Pass the result of the next trial on, which has ended."""
        trial = self._trials[self._num_results]
        self._num_results += 1
        objectives = self._config.objectives
        values = [record.figure(name) for name in objectives]
        finite = [value for value in values if value is not None and math.isfinite(value)]
        if record.status == "complete" and len(finite) == len(values):
            self._study.tell(trial, finite)
        elif record.status == "stopped" and len(values) == 1:
            for round_ in record.rounds:
                if (value := getattr(round_, objectives[0])) is not None:
                    trial.report(value, round_.round)
            self._study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)


def _create_sampler(config: SweepConfig) -> optuna.samplers.BaseSampler:
    search = config.search
    if search.method == "tpe":
        return optuna.samplers.TPESampler(
            seed=search.seed, n_startup_trials=search.startup, multivariate=True, group=True, constant_liar=True
        )
    if search.method == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=search.seed, population_size=search.population)
    return optuna.samplers.RandomSampler(seed=search.seed)


def _suggest(trial: optuna.Trial, field: str, parameter: Parameter) -> Any:
    if parameter.choice is not None:
        return trial.suggest_categorical(field, parameter.choice)
    low, high = parameter.bounds
    if parameter.integer is not None:
        return trial.suggest_int(field, int(low), int(high), log=parameter.log)
    return trial.suggest_float(field, low, high, log=parameter.is_log)
