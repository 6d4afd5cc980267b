"""What a sweep writes for people and scripts: ``sweep.json``, ``trials.csv``, ``best.yaml`` and ``sweep.html``."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from splatfix.config import to_tree, to_yaml
from splatfix.evaluation.results import Results
from splatfix.files import write_json, write_text
from splatfix.report.sweep.load import SWEEP
from splatfix.report.sweep.page import PAGE, write_sweep_page
from splatfix.runs import Run
from splatfix.sweep.analysis import best_of, trial_rows, trials_csv, verdict
from splatfix.sweep.cases import Case
from splatfix.sweep.config import SweepConfig
from splatfix.sweep.proposals import importances, pareto
from splatfix.sweep.record import TrialRecord
from splatfix.sweep.reruns import rerun_seeds
from splatfix.sweep.space import apply, field_of

log = logging.getLogger(__name__)

BEST, TRIALS = "best.yaml", "trials.csv"
SHOW_SECONDS, SHOW_SHARE = 60.0, 0.05  # between pages while trials run, and the share of the time that they may take
MAX_LIVE_IMPORTANCE = 100  # complete trials, above which importance is left for the end: it takes seconds


class Output:
    """Writes what is known so far, again and again.

    Attributes:
        references: results of the references, by case.
        reruns: their rows, once there are any.
    """

    def __init__(self, config: SweepConfig, run: Run, cases: Sequence[Case], *, num_trials: int, parallel: int) -> None:
        self._config, self._run, self._cases = config, run, cases
        self.num_trials, self._parallel = num_trials, parallel
        self.references: dict[str, Results] = {}
        self.reruns: list[dict[str, Any]] | None = None
        self._next_show = time.monotonic() + SHOW_SECONDS

    def show(self, records: Sequence[TrialRecord]) -> None:
        """Write all of it, if that was a while ago; no fault in it stops the trials."""
        begun = time.monotonic()
        if begun < self._next_show:
            return
        try:
            self.write(records, state="running")
        except Exception as error:
            log.warning("%s could not be written: %s: %s", PAGE, type(error).__name__, error)
        now = time.monotonic()
        self._next_show = now + max(SHOW_SECONDS, (now - begun) / SHOW_SHARE)

    def write(self, records: Sequence[TrialRecord], *, state: str) -> dict[str, Any]:
        """Write all of it; returns what ``sweep.json`` holds."""
        config, out = self._config, self._run.path
        rows = trial_rows(config, records)
        best = best_of(records, config.objectives[0])
        num_complete = sum(record.status == "complete" for record in records)
        found, reason = None, "is computed at the end"
        if state == "finished" or num_complete <= MAX_LIVE_IMPORTANCE:
            found, reason = importances(config, records)  # type: ignore[assignment]
        results = {
            "schema": 1,
            "name": out.name,
            "state": state,
            "objectives": list(config.objectives),
            "metric": config.metric,
            "num_trials": self.num_trials,
            "search": {**asdict(config.search), "trials": self.num_trials, "parallel": self._parallel},
            "halving": None if config.halving is None else asdict(config.halving),
            "seconds": {name: round(value, 1) for name, value in self._run.seconds.items()},
            "cases": [self._case_row(case) for case in self._cases],
            "space": self._space_rows(),
            "trials": rows,
            "best": None if best is None else best.number,
            "pareto": pareto(records, config.objectives),
            "importance": found,
            "importance_reason": reason,
            "reruns": self._reruns(best),
            "files": {"best": BEST, "trials": TRIALS},
        }
        write_text(out / TRIALS, trials_csv(config, rows))
        write_json(out / SWEEP, results)
        if best is not None:
            self._write_best(best, results)
        write_sweep_page(out)
        return results

    def conclusion(self, results: dict[str, Any]) -> tuple[str, dict[str, float], int | None, list[Path]]:
        """For MLflow: words, figures, the best trial, and files."""
        best, sentences = results["best"], _sentences(results)
        note = f"Best: trial-{best:04d}" if best is not None else "No trial was completed."
        note = "\n\n".join(
            [
                note,
                *sentences,
                f"Under Artifacts: pictures and report of the best trial, the whole page ({PAGE}), and {BEST}.",
            ]
        )
        figures = {"trials": float(len(results["trials"]))}
        for key in ("verdict", "held_out"):
            if told := (results["reruns"] or {}).get(key):
                figures[f"reruns/{key}_difference"] = told["difference"]
        files = [self._run.path / name for name in (PAGE, BEST, TRIALS, SWEEP)]
        return note, figures, best, [path for path in files if path.is_file()]

    def _case_row(self, case: Case) -> dict[str, Any]:
        summary = self.references[case.name].summary
        arms = {arm: summary.value("all", arm, self._config.metric) for arm in ("before", "control")}
        folder = f"references/{case.name}"
        return {"case": case.name, "capture": case.title, "seed": case.seed, "folder": folder, **arms}

    def _space_rows(self) -> list[dict[str, Any]]:
        tree, rows = to_tree(self._config.loop), []
        for name, parameter in self._config.space.items():
            low, high = (None, None) if parameter.choice is not None else parameter.bounds
            choices = None if parameter.choice is None else list(parameter.choice)
            row = {"field": name, "kind": parameter.kind, "low": low, "high": high, "log": parameter.is_log}
            rows.append({**row, "choices": choices, "when": parameter.when, "default": field_of(tree, name)})
        return rows

    def _reruns(self, best: TrialRecord | None) -> dict[str, Any] | None:
        if self.reruns is None or best is None:
            return None
        metric, name = self._config.metric, f"best (trial {best.number})"
        seen = [row for row in self.reruns if not row["held_out"]]
        unseen = [row for row in self.reruns if row["held_out"]]
        told = verdict(seen, f"The {name}", metric)
        held_out = verdict(unseen, f"On captures that no trial saw, the {name}", metric)
        return {
            "seeds": rerun_seeds(self._config),
            "rows": self.reruns,
            "verdict": None if told is None else asdict(told),
            "held_out": None if held_out is None else asdict(held_out),
        }

    def _write_best(self, best: TrialRecord, results: dict[str, Any]) -> None:
        """The best config as `splatfix loop --config` takes it; what is known of it stands above."""
        first = self._config.objectives[0]
        lines = [f"best of the sweep {results['name']}: trial {best.number}, {first} {short(best.objective(first))}"]
        comment = "".join(f"# {' '.join(line.split())}\n" for line in [*lines, *_sentences(results)])
        write_text(self._run.path / BEST, comment + to_yaml(apply(self._config.loop, best.values)))


def _sentences(results: dict[str, Any]) -> list[str]:
    reruns = results["reruns"] or {}
    return [told["sentence"] for key in ("verdict", "held_out") if (told := reruns.get(key))]


def short(value: Any) -> str:
    """A value in a line of text."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
