"""The results of a sweep as files: ``sweep.json``, ``trials.csv``, ``best.yaml`` and ``sweep.html``."""

from __future__ import annotations

import csv
import io
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import yaml

from splatfix.config import changed_fields
from splatfix.evaluation.results import Results
from splatfix.files import write_text
from splatfix.loop.cases import Case
from splatfix.report.sweep.page import write_sweep_page
from splatfix.report.sweep.results import FIGURES, PAGE, SWEEP, RerunRow, SweepResults, TrialResult, write_sweep
from splatfix.runs import Run
from splatfix.sweep.config import SweepConfig
from splatfix.sweep.record import TrialRecord
from splatfix.sweep.settings import flatten_fields, nest_settings
from splatfix.sweep.summary import BEST, TRIALS, summarize_sweep

log = logging.getLogger(__name__)

OUTPUT_FILES = (SWEEP, PAGE, BEST, TRIALS)
UPDATE_SECONDS, UPDATE_SHARE = 60.0, 0.05  # between updates while trials run; share of the time that they may take


class SweepWriter:
    """Writes what is known of a sweep so far, again and again.

    Attributes:
        reruns: None before the first of them.
    """

    def __init__(
        self,
        config: SweepConfig,
        run: Run,
        cases: Sequence[Case],
        baselines: Mapping[str, Results],
        *,
        num_trials: int,
        parallel: int,
    ) -> None:
        self._config, self._run = config, run
        self._cases, self._baselines = cases, baselines
        self._num_trials, self._parallel = num_trials, parallel
        self.reruns: list[RerunRow] | None = None
        self._next_update = time.monotonic() + UPDATE_SECONDS

    def update(self, records: Sequence[TrialRecord]) -> None:
        """Write all files, if the last time is a while ago. A fault in it is logged, and does not stop the trials."""
        start = time.monotonic()
        if start < self._next_update:
            return
        try:
            self.write(records, state="running")
        except Exception as error:
            log.warning("%s could not be written: %s: %s", PAGE, type(error).__name__, error)
        end = time.monotonic()
        self._next_update = end + max(UPDATE_SECONDS, (end - start) / UPDATE_SHARE)

    def write(self, records: Sequence[TrialRecord], *, state: Literal["running", "finished"]) -> SweepResults:
        """Write all files; returns what ``sweep.json`` holds."""
        folder = self._run.path
        results = summarize_sweep(
            self._config,
            self._cases,
            self._baselines,
            records,
            self.reruns,
            name=folder.name,
            state=state,
            num_trials=self._num_trials,
            parallel=self._parallel,
            seconds=self._run.seconds,
        )
        write_text(folder / results.files.trials, format_csv(results))
        write_sweep(folder, results)
        if results.best is not None:
            write_text(folder / results.files.best, format_best(results, self._config))
        write_sweep_page(folder)
        return results


def format_csv(results: SweepResults) -> str:
    """The trials as a table, one line each."""
    cases = list(dict.fromkeys(case for trial in results.trials for case in trial.cases))
    names = [
        *("number", "status"),
        *(field.field for field in results.space),
        *(*FIGURES, "num_rounds"),
        *(f"{case}.gain" for case in cases),
        "error",
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, names)
    writer.writeheader()
    writer.writerows(_csv_row(trial, names) for trial in results.trials)
    return text.getvalue()


def _csv_row(trial: TrialResult, names: Sequence[str]) -> dict[str, Any]:
    gains = {f"{case}.gain": figures.gain for case, figures in trial.cases.items()}
    cells = {**vars(trial), **trial.values, **gains, "num_rounds": len(trial.rounds)}
    return {name: cells.get(name) for name in names}


def format_best(results: SweepResults, config: SweepConfig) -> str:
    """The best values of the searched fields as `splatfix loop --config` reads them, below comments about them.

    Other settings of the search are only named in a comment: a search runs on small images for few steps, which a user
    of the result does not want.
    """
    objective = results.objectives[0]
    best = next(trial for trial in results.trials if trial.number == results.best)
    figure = format_value(getattr(best, objective))
    lines = [f"best trial of {results.name}: {best.number}{' (the default)' * best.is_default}, {objective} {figure}"]
    if results.reruns is not None:
        lines += [verdict.sentence for verdict in results.reruns.verdicts.values()]
    if others := [f"{name} {value}" for name, value in _other_settings(config)]:
        lines.append(f"the search had further settings, which are not in this file: {', '.join(others)}")
    comment = "".join(f"# {' '.join(line.split())}\n" for line in lines)
    return comment + yaml.safe_dump(nest_settings(config.loop, best.values), sort_keys=False, allow_unicode=True)


def _other_settings(config: SweepConfig) -> list[tuple[str, Any]]:
    """The settings of the sweep's loop that are not searched, and differ from those of `splatfix loop`."""
    changed = flatten_fields(changed_fields(config.loop))
    if any(name.startswith("restorer") for name in config.space):  # it is written with all its options
        changed = {name: value for name, value in changed.items() if not name.startswith("restorer")}
    return [(name, value) for name, value in changed.items() if name not in config.space]


def format_value(value: Any) -> str:
    """A value in a line of text."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
