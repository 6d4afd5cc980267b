"""``sweep.html``: what a sweep found, how sure that is, and every trial behind it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from splatfix.files import write_text
from splatfix.report import wording
from splatfix.report.html import page_path, render_page
from splatfix.report.sweep.axes import NOT_SET, field_scales
from splatfix.report.sweep.charts import (
    differences,
    gain_against_cost,
    has_trade_offs,
    num_below,
    objective_over_time,
    shown_range,
    slices,
)
from splatfix.report.sweep.headline import sweep_headline
from splatfix.report.sweep.load import LoadedSweep, format_setting, load_sweep
from splatfix.report.sweep.parallel_coordinates import MAX_WIDE_LINES, chart_width, parallel_coordinates
from splatfix.report.sweep.results import PAGE, SWEEP, SearchedField, TrialResult
from splatfix.report.sweep.views import extreme_views, repaired_views

MAX_ROWS = 200
MAX_SLICES = 12
MAX_ERROR_CHARACTERS = 300
ENOUGH_FOR_IMPORTANCE = 30
ORDER = ("complete", "stopped", "running", "failed")


def is_sweep(run: Path) -> bool:
    """Whether a folder holds a sweep that has results to show."""
    return (Path(run) / SWEEP).is_file()


def write_sweep_page(run: Path, out: Path | None = None) -> Path:
    """Write the page of a sweep, finished or running; returns the file.

    ``out`` is an HTML file or a folder; by default ``sweep.html`` in the folder of the sweep.

    Raises:
        ValueError: no ``sweep.json`` in the folder, or not one that this splatfix reads.
    """
    sweep = load_sweep(run)
    path = page_path(out, sweep.path, PAGE)
    write_text(path, render_page("sweep.html.j2", _context(sweep)))
    return path


def _context(sweep: LoadedSweep) -> dict[str, Any]:
    """The variables of the template."""
    results = sweep.results
    facts = [results.state, sweep.counts()]
    if sweep.seconds is not None:
        facts.append(wording.format_duration(sweep.seconds))
    search = {name: getattr(results, name) for name in ("search", "halving", "objectives", "metric")}
    return {
        "title": f"{sweep.name}: splatfix sweep",
        "sweep": sweep,
        "facts": facts,
        "headline": sweep_headline(sweep),
        "settings": _compare_settings(sweep),
        "present": {kind for trial in sweep.trials for kind in sweep.kinds(trial)},
        "few_trials": len(sweep.complete) < ENOUGH_FOR_IMPORTANCE,
        "reruns": _reruns(sweep),
        "views": extreme_views(sweep),
        "repaired": repaired_views(sweep),
        "fields": [searched.field for searched in sweep.space],
        "cases": _cases(sweep),
        "space": [_describe_field(searched) for searched in sweep.space],
        "search": _flatten(search),
        "seconds": list(results.seconds.items()),
        **_charts(sweep),
        **_table(sweep),
    }


def _charts(sweep: LoadedSweep) -> dict[str, Any]:
    low, high = shown_range(sweep)
    importance = _importance(sweep)
    rank = {bar["name"]: position for position, bar in enumerate(importance)}
    scales = sorted(field_scales(sweep), key=lambda scale: rank.get(scale.field, len(rank)))
    return {
        "history": objective_over_time(sweep),
        "parallel": parallel_coordinates(sweep),
        "parallel_width": round(0.8 * chart_width(len(sweep.space))),
        "many_lines": len(sweep.trials) > MAX_WIDE_LINES,
        "ramp_ends": (sweep.signed(low), sweep.signed(high)),
        "num_below": num_below(sweep),
        "importance": importance,
        "slices": slices(sweep, scales[:MAX_SLICES]),
        "cost": gain_against_cost(sweep),
        "has_trade_offs": has_trade_offs(sweep),
    }


def _importance(sweep: LoadedSweep) -> list[dict[str, Any]]:
    """The bars of the fields, the largest first."""
    shares = sorted((sweep.results.importance or {}).items(), key=lambda item: -item[1])
    most = max((share for _, share in shares), default=0.0) or 1.0
    return [{"name": field, "share": max(0.0, share) / most, "text": f"{share:.2f}"} for field, share in shares]


def _compare_settings(sweep: LoadedSweep) -> list[dict[str, Any]]:
    """The best trial's setting of each searched field beside the default's."""
    if sweep.best is None:
        return []
    defaults = {searched.field: searched.default for searched in sweep.space}
    if sweep.default is not None:  # it also lacks the fields that are not set
        defaults = sweep.default.values
    rows = []
    for field in (searched.field for searched in sweep.space):
        best, default = (format_setting(v[field]) if field in v else NOT_SET for v in (sweep.best.values, defaults))
        rows.append({"field": field, "best": best, "default": default, "differs": best != default})
    return rows


def _reruns(sweep: LoadedSweep) -> dict[str, Any] | None:
    """Rows by capture, those of the search first, with the mean differences; None without any."""
    reruns = sweep.results.reruns
    if reruns is None or not reruns.rows:
        return None
    captures = [row.capture for row in reruns.rows]
    rows = sorted(reruns.rows, key=lambda row: (row.held_out, captures.index(row.capture)))
    names = {"verdict": "captures of the search", "held_out": "held-out captures"}
    return {
        "rows": rows,
        "num_seeds": len(reruns.seeds),
        "totals": [{"name": names[key], "verdict": verdict} for key, verdict in reruns.verdicts.items()],
        "chart": differences(sweep, rows),
        "some_held_out": any(row.held_out for row in rows),
    }


def _table(sweep: LoadedSweep) -> dict[str, Any]:
    """The rows of the first trials by gain, with the default in any case, and the number of all."""
    trials = sorted(sweep.trials, key=lambda trial: _order(sweep, trial))
    shown = trials[:MAX_ROWS]
    missing = [trial for trial in trials[MAX_ROWS:] if trial.is_default]
    shown = [*shown[: MAX_ROWS - len(missing)], *missing]
    return {"rows": [_trial_row(sweep, trial) for trial in shown], "num_rows": len(trials)}


def _order(sweep: LoadedSweep, trial: TrialResult) -> tuple[int, float, int]:
    gain = sweep.gain(trial)
    return ORDER.index(trial.status), -gain if gain is not None else float("inf"), trial.number


def _trial_row(sweep: LoadedSweep, trial: TrialResult) -> dict[str, Any]:
    error = trial.error
    if error and len(error) > MAX_ERROR_CHARACTERS:
        error = error[: MAX_ERROR_CHARACTERS - 1] + "…"
    return {
        "trial": trial,
        "is_best": trial is sweep.best,
        "settings": {field: format_setting(value) for field, value in trial.values.items()},
        "error": error,
    }


def _cases(sweep: LoadedSweep) -> list[dict[str, Any]]:
    """The baseline of each case, with the gains of the default and of the best trial there."""

    def gain(trial: TrialResult | None, case: str) -> float | None:
        return trial.cases[case].gain if trial is not None and case in trial.cases else None

    return [
        {"case": case, "default": gain(sweep.default, case.case), "best": gain(sweep.best, case.case)}
        for case in sweep.cases
    ]


def _describe_field(searched: SearchedField) -> dict[str, str]:
    """A searched field in words."""
    if searched.choices is not None:
        values = format_setting(searched.choices)
    else:
        values = f"{format_setting(searched.low)} to {format_setting(searched.high)}"
    when = [f"{other} is {format_setting(wanted)}" for other, wanted in (searched.when or {}).items()]
    return {
        "field": searched.field,
        "kind": searched.kind + (", log" if searched.log and "log" not in searched.kind else ""),
        "values": values,
        "when": " and ".join(when),
        "default": format_setting(searched.default),
    }


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """The values of nested settings in words, by their names with points."""
    facts = []
    for key, value in tree.items():
        if isinstance(value, dict):
            facts += _flatten(value, f"{prefix}{key}.")
        else:
            facts.append((f"{prefix}{key}", "none" if value is None else format_setting(value)))
    return facts
