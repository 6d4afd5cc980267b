"""``sweep.html``: what a sweep found, how sure that is, and every trial behind it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from splatfix.files import write_text
from splatfix.report import wording
from splatfix.report.html import page_path, render_page
from splatfix.report.load import number
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
from splatfix.report.sweep.load import SweepFile, load_sweep, value_text
from splatfix.report.sweep.parallel_coordinates import MAX_WIDE_LINES, chart_width, parallel_coordinates
from splatfix.report.sweep.results import PAGE, SWEEP
from splatfix.report.sweep.views import extreme_views, repaired_views

MAX_ROWS = 200
MAX_SLICES = 12
MAX_ERROR_CHARACTERS = 300
ENOUGH_FOR_IMPORTANCE = 30
ORDER = ("complete", "stopped", "running", "failed")


def is_sweep(run: Path) -> bool:
    """Whether a folder is one of a sweep that has something to show."""
    return (Path(run) / SWEEP).is_file()


def write_sweep_page(run: Path, out: Path | None = None) -> Path:
    """Write the page of a sweep, also of one under way; returns the file.

    ``out`` is an HTML file or a folder; by default ``sweep.html`` in the folder of the sweep.

    Raises:
        ValueError: no ``sweep.json`` in the folder, or not one that this splatfix reads.
    """
    sweep = load_sweep(run)
    path = page_path(out, sweep.path, PAGE)
    write_text(path, render_page("sweep.html.j2", _context(sweep)))
    return path


def _context(sweep: SweepFile) -> dict[str, Any]:
    rows = _rows(sweep)
    low, high = shown_range(sweep)
    importance = _importance(sweep)
    seconds = [(name, number(sweep.record, "seconds", name)) for name in sweep.record.get("seconds") or {}]
    return {
        "title": f"{sweep.name}: splatfix sweep",
        "sweep": sweep,
        "facts": _facts(sweep),
        "headline": headline(sweep),
        "settings": _settings(sweep),
        "history": objective_over_time(sweep),
        "parallel": parallel_coordinates(sweep),
        "parallel_width": round(0.8 * chart_width(len(sweep.space))),
        "many_lines": len(sweep.trials) > MAX_WIDE_LINES,
        "present": {kind for trial in sweep.trials for kind in sweep.kinds(trial)},
        "ramp_ends": (sweep.signed(low), sweep.signed(high)),
        "num_below": num_below(sweep),
        "importance": importance,
        "few_trials": len(sweep.complete) < ENOUGH_FOR_IMPORTANCE,
        "slices": _slices(sweep, [row["name"] for row in importance]),
        "cost": gain_against_cost(sweep),
        "has_trade_offs": has_trade_offs(sweep),
        "reruns": _reruns(sweep),
        "views": extreme_views(sweep),
        "repaired": repaired_views(sweep),
        "fields": [str(entry["field"]) for entry in sweep.space],
        "rows": _first(rows),
        "num_rows": len(rows),
        "cases": _cases(sweep),
        "space": [_space_row(entry) for entry in sweep.space],
        "search": _facts_of("", {key: sweep.record.get(key) for key in ("search", "halving", "objectives", "metric")}),
        "seconds": [(name, value) for name, value in seconds if value is not None],
    }


def headline(sweep: SweepFile) -> wording.Headline:
    """The verdict of the reruns; without one, how far the search got."""
    reruns = sweep.record.get("reruns") or {}
    verdict = reruns.get("verdict") or {}
    if not verdict.get("sentence"):
        return _search_headline(sweep, under_way=bool(reruns.get("rows")))
    difference = number(verdict, "difference")
    held_out = (reruns.get("held_out") or {}).get("sentence")
    details = [str(held_out)] if held_out else []
    if (figures := _in_search(sweep)) is not None:
        training = " Longer training counts as gain there." if _searches_steps(sweep) else ""
        details.append(
            f"In the search it had {figures}: the largest of many gains flatters, so the reruns decide.{training}"
        )
    return wording.Headline(
        str(verdict["sentence"]),
        tuple(details),
        sweep.signed(difference) if difference is not None else "",
        f"{sweep.metric.title.partition(',')[0]} gain, best settings minus default, in reruns",
        _tone(verdict),
    )


def _tone(verdict: dict[str, Any]) -> str:
    """Good where the best beats the default and its own baseline, bad where it is worse than one of them."""
    gain_low, gain_high = number(verdict, "gain_low"), number(verdict, "gain_high")
    if verdict.get("beats") is False or (gain_high is not None and gain_high < 0):
        return "bad"
    return "good" if verdict.get("beats") is True and gain_low is not None and gain_low > 0 else "plain"


def _searches_steps(sweep: SweepFile) -> bool:
    """Whether trials train for different numbers of steps."""
    return any(entry["field"] in ("repair.steps", "repair.rounds") for entry in sweep.space)


def _search_headline(sweep: SweepFile, under_way: bool) -> wording.Headline:
    if sweep.best is None:
        so_far = "No trial is complete yet." if sweep.record.get("state") == "running" else "No trial was completed."
        return wording.Headline(so_far, (), "", "", "plain")
    later = "the reruns with other seeds are under way" if under_way else "not rerun with other seeds"
    running = sweep.record.get("state") == "running"
    sentence = f"Best{' so far' if running else ''}: trial {sweep.best['number']}, {_in_search(sweep)}; {later}"
    sentence += " yet." if running and not under_way else "."
    caution = "The largest of many gains flatters; only reruns with other seeds tell whether these settings are better."
    caption = f"{sweep.metric.title.partition(',')[0]} {sweep.objective_title.partition(',')[0]}, best trial"
    return wording.Headline(sentence, (caution,), sweep.signed(sweep.gain(sweep.best)), caption, "plain")


def _in_search(sweep: SweepFile) -> str | None:
    """``gain +0.21 dB against +0.11 dB of the default``, of the best trial."""
    if sweep.best is None:
        return None
    gain = f"{sweep.objective_title.partition(',')[0]} {sweep.signed(sweep.gain(sweep.best))}"
    if sweep.best.get("is_default"):
        return f"{gain}, with the default settings"
    default = sweep.gain(sweep.default) if sweep.default else None
    return gain if default is None else f"{gain} against {sweep.signed(default)} of the default"


def _facts(sweep: SweepFile) -> list[str]:
    """The line under the title."""
    facts = [str(sweep.record.get("state") or "unknown state"), sweep.counts()]
    return [*facts, wording.duration(sweep.seconds)] if sweep.seconds is not None else facts


def _settings(sweep: SweepFile) -> list[dict[str, Any]]:
    """The best trial's setting of each searched field beside the default's."""
    if sweep.best is None:
        return []
    defaults = {str(entry["field"]): entry.get("default") for entry in sweep.space}
    if sweep.default is not None:  # which also tells which fields are not set
        defaults = sweep.default.get("values") or {}
    rows = []
    for entry in sweep.space:
        field, values = str(entry["field"]), sweep.best.get("values") or {}
        best, default = (value_text(v[field]) if field in v else NOT_SET for v in (values, defaults))
        rows.append({"field": field, "best": best, "default": default, "differs": best != default})
    return rows


def _importance(sweep: SweepFile) -> list[dict[str, Any]]:
    """Bars, the largest first."""
    found = [(field, number(sweep.record, "importance", field)) for field in sweep.record.get("importance") or {}]
    known = sorted(((field, share) for field, share in found if share is not None), key=lambda row: -row[1])
    most = max((share for _, share in known), default=0.0) or 1.0
    return [{"name": field, "share": max(0.0, share) / most, "text": f"{share:.2f}"} for field, share in known]


def _slices(sweep: SweepFile, by_importance: list[str]) -> list[dict[str, Any]]:
    rank = {field: k for k, field in enumerate(by_importance)}
    scales = sorted(field_scales(sweep), key=lambda scale: rank.get(scale.field, len(rank)))
    return slices(sweep, scales[:MAX_SLICES])


def _reruns(sweep: SweepFile) -> dict[str, Any] | None:
    reruns = sweep.record.get("reruns") or {}
    rows = reruns.get("rows") or []
    if not rows:
        return None
    captures = [row.get("capture") for row in rows]
    rows = sorted(rows, key=lambda row: (bool(row.get("held_out")), captures.index(row.get("capture"))))
    totals = [("captures of the search", reruns.get("verdict")), ("held-out captures", reruns.get("held_out"))]
    return {
        "rows": rows,
        "totals": [{"name": name, "verdict": verdict} for name, verdict in totals if verdict],
        "chart": differences(sweep, rows),
        "some_held_out": any(row.get("held_out") for row in rows),
    }


def _rows(sweep: SweepFile) -> list[dict[str, Any]]:
    """Every trial: by gain, then those that were stopped, run, failed."""
    rows = []
    for trial in sweep.trials:
        status = str(trial.get("status"))
        values, rounds = trial.get("values") or {}, trial.get("rounds") or []
        error = str(trial["error"]) if trial.get("error") else None
        if error and len(error) > MAX_ERROR_CHARACTERS:
            error = error[: MAX_ERROR_CHARACTERS - 1] + "…"
        rows.append(
            {
                "trial": trial,
                "status": status,
                "gain": sweep.gain(trial),
                "is_best": trial is sweep.best,
                "values": {field: value_text(value) for field, value in values.items()},
                "figures": rounds[-1] if rounds and number(trial, sweep.objective) is None else trial,
                "rounds": rounds,
                "error": error,
            }
        )

    def order(row: dict[str, Any]) -> tuple[int, float, int]:
        rank = ORDER.index(row["status"]) if row["status"] in ORDER else len(ORDER)
        return rank, -row["gain"] if row["gain"] is not None else float("inf"), row["trial"]["number"]

    return sorted(rows, key=order)


def _first(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first rows, and the default's in any case."""
    shown = rows[:MAX_ROWS]
    missing = [row for row in rows[MAX_ROWS:] if row["trial"].get("is_default")]
    return [*shown[: MAX_ROWS - len(missing)], *missing]


def _cases(sweep: SweepFile) -> list[dict[str, Any]]:
    """What every trial was measured against, with the gains of the default and of the best trial there."""
    return [
        {
            "case": case,
            "default": number(sweep.default, "cases", str(case["case"]), "gain"),
            "best": number(sweep.best, "cases", str(case["case"]), "gain"),
        }
        for case in sweep.cases
    ]


def _space_row(entry: dict[str, Any]) -> dict[str, str]:
    """A searched field in words."""
    kind = str(entry.get("kind"))
    if kind == "choice":
        values = value_text(entry.get("choices") or [])
    else:
        values = f"{value_text(entry.get('low'))} to {value_text(entry.get('high'))}"
    when = [f"{other} is {value_text(wanted)}" for other, wanted in (entry.get("when") or {}).items()]
    return {
        "field": str(entry["field"]),
        "kind": kind + (", log" if entry.get("log") and "log" not in kind else ""),
        "values": values,
        "when": " and ".join(when),
        "default": value_text(entry.get("default")),
    }


def _facts_of(prefix: str, tree: dict[str, Any]) -> list[tuple[str, str]]:
    """The leaves of nested settings, by their names with points."""
    facts = []
    for key, value in tree.items():
        if isinstance(value, dict):
            facts += _facts_of(f"{prefix}{key}.", value)
        else:
            facts.append((f"{prefix}{key}", "none" if value is None else value_text(value)))
    return facts
