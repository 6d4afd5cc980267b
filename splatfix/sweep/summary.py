"""The summary of a sweep, as ``sweep.json`` holds it, from the records of its trials and the reruns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Literal

from splatfix.evaluation.results import Results
from splatfix.loop.cases import BASELINES, Case
from splatfix.report.sweep.results import (
    FIGURES,
    CaseResult,
    RerunRow,
    Reruns,
    RoundFigures,
    SearchedField,
    SweepFiles,
    SweepResults,
    TrialResult,
)
from splatfix.sweep.analysis import best_trial, compare_reruns, field_importances, pareto_front
from splatfix.sweep.config import SweepConfig
from splatfix.sweep.record import TrialRecord
from splatfix.sweep.reruns import rerun_seeds
from splatfix.sweep.settings import default_value, default_values

BEST, TRIALS = "best.yaml", "trials.csv"
MAX_LIVE_IMPORTANCE = 100  # complete trials, above which importance waits for the end: it takes seconds


def summarize_sweep(
    config: SweepConfig,
    cases: Sequence[Case],
    baselines: Mapping[str, Results],
    records: Sequence[TrialRecord],
    reruns: Sequence[RerunRow] | None,
    *,
    name: str,
    state: Literal["running", "finished"],
    num_trials: int,
    parallel: int,
    seconds: Mapping[str, float],
) -> SweepResults:
    """Everything that is known of a sweep.

    Args:
        baselines: results of each case's baseline, by case name.
        reruns: None before the first of them.
        name: of the sweep.
        num_trials: of the whole search.
        parallel: trials that may run at once.
        seconds: by stage.
    """
    best = best_trial(records, config.objectives[0])
    importance, reason = None, "is computed at the end"
    if state == "finished" or sum(record.status == "complete" for record in records) <= MAX_LIVE_IMPORTANCE:
        importance, reason = field_importances(config, records)  # type: ignore[assignment]
    return SweepResults(
        name=name,
        state=state,
        objectives=config.objectives,
        metric=config.metric,
        num_trials=num_trials,
        search={**asdict(config.search), "trials": num_trials, "parallel": parallel},
        halving=None if config.halving is None else asdict(config.halving),
        seconds={stage: round(value, 1) for stage, value in seconds.items()},
        cases=tuple(_case_result(case, baselines[case.name], config.metric) for case in cases),
        space=_searched_fields(config),
        trials=_trial_results(config, records),
        best=None if best is None else best.number,
        pareto=tuple(pareto_front(records, config.objectives)),
        importance=importance,
        importance_reason=reason,
        reruns=None if reruns is None or best is None else _summarize_reruns(config, best, reruns),
        files=SweepFiles(best=BEST, trials=TRIALS),
    )


def _case_result(case: Case, baseline: Results, metric: str) -> CaseResult:
    return CaseResult(
        case=case.name,
        capture=case.title,
        seed=case.seed,
        folder=f"{BASELINES}/{case.name}",
        before=baseline.summary.value("all", "before", metric),
        control=baseline.summary.value("all", "control", metric),
    )


def _searched_fields(config: SweepConfig) -> tuple[SearchedField, ...]:
    searched = []
    for name, parameter in config.space.items():
        low, high = (None, None) if parameter.choice is not None else parameter.bounds
        searched.append(
            SearchedField(
                field=name,
                kind=parameter.kind,
                low=low,
                high=high,
                log=parameter.is_log,
                choices=parameter.choice,
                when=parameter.when,
                default=default_value(config.loop, name),
            )
        )
    return tuple(searched)


def _trial_results(config: SweepConfig, records: Sequence[TrialRecord]) -> tuple[TrialResult, ...]:
    default = default_values(config.space, config.loop)
    return tuple(
        TrialResult(
            number=record.number,
            values=record.values,
            status=record.status,
            rounds=tuple(
                RoundFigures(**{field.name: getattr(round_, field.name) for field in fields(RoundFigures)})
                for round_ in record.rounds
            ),
            error=record.error,
            elapsed=record.elapsed,
            is_default=record.values == default,
            **{name: record.figure(name) for name in FIGURES},
            cases=record.cases,
        )
        for record in records
    )


def _summarize_reruns(config: SweepConfig, best: TrialRecord, rows: Sequence[RerunRow]) -> Reruns:
    subject = f"best (trial {best.number})"
    searched = [row for row in rows if not row.held_out]
    held_out = [row for row in rows if row.held_out]
    return Reruns(
        seeds=tuple(rerun_seeds(config)),
        rows=tuple(rows),
        verdict=compare_reruns(searched, f"The {subject}", config.metric),
        held_out=compare_reruns(held_out, f"On captures that no trial saw, the {subject}", config.metric),
    )
