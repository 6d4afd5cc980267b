"""What comes out of a sweep: the best settings, whether they beat the default, and the tables that show it."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from splatfix.evaluation.results import Results
from splatfix.report.wording import written
from splatfix.sweep.config import SweepConfig
from splatfix.sweep.record import FIGURES, TrialRecord
from splatfix.sweep.space import default_values
from splatfix.views import BANDS

UNITS = {"psnr": " dB", "ssim": ""}
DIGITS = {"psnr": 2, "ssim": 4}


def best_of(records: Sequence[TrialRecord], objective: str) -> TrialRecord | None:
    """The complete trial with the largest first objective; of equal ones the earliest. None without such."""
    done = [record for record in records if record.status == "complete" and record.objective(objective) is not None]
    return max(done, key=lambda record: (record.objective(objective), -record.number), default=None)


@dataclass(frozen=True)
class Verdict:
    """Whether the best beats the default, over reruns with other seeds.

    Attributes:
        beats: True or False where the 95 % interval of the difference excludes 0, else None.
        difference: of ``after``, best less default; mean over the seeds of the means over the captures.
        spread: standard deviation of that over the seeds; None with one seed.
        low, high: 95 % interval of the mean (Student's t); None with one seed.
        sentence: the same in words.
    """

    beats: bool | None
    difference: float
    spread: float | None
    low: float | None
    high: float | None
    sentence: str


def verdict(rows: Sequence[Mapping[str, Any]], who: str, metric: str) -> Verdict | None:
    """The verdict over rows with ``seed`` and ``difference``; None without any. ``who`` names the best."""
    by_seed: dict[int, list[float]] = {}
    by_capture: dict[str, list[float]] = {}
    for row in rows:
        if row["difference"] is not None:
            by_seed.setdefault(row["seed"], []).append(row["difference"])
            by_capture.setdefault(row["capture"], []).append(row["difference"])
    if not by_seed:
        return None
    means = np.array([np.mean(found) for found in by_seed.values()])
    mean, num = float(means.mean()), len(means)
    unit, digits = UNITS[metric], DIGITS[metric]

    def told(value: float) -> str:
        return written(value, digits, signed=True)

    each = [f"{capture} {told(float(np.mean(found)))}" for capture, found in by_capture.items()]
    more = f" By capture: {', '.join(each)}." if len(each) > 1 else ""
    if num < 2:
        sentence = f"{who} differs from the default by {told(mean)}{unit} with one seed: too few to tell."
        return Verdict(None, mean, None, None, None, sentence + more)
    spread = float(means.std(ddof=1))
    half = float(stats.t.ppf(0.975, num - 1)) * spread / num**0.5
    low, high = mean - half, mean + half
    beats = True if low > 0 else False if high < 0 else None
    seeds = f"the spread of {num} seeds (standard deviation {spread:.{digits}f}{unit}"
    seeds += f"; 95 % interval of the mean {told(low)} to {told(high)})"
    if beats:
        sentence = f"{who} beats the default by {told(mean)}{unit}, beyond {seeds}."
    elif beats is False:
        sentence = f"{who} is worse than the default, {told(mean)}{unit}, beyond {seeds}: stay with the default."
    else:
        sentence = f"{who} does not beat the default beyond {seeds}: {told(mean)}{unit} in the mean."
    return Verdict(beats, mean, spread, low, high, sentence + more)


def rerun_row(default: Results, best: Results, metric: str) -> dict[str, Any]:
    """Figures of the default and the best on the same capture and seed,.

    ``gain`` of each is against its own control, which has its own number of steps; ``difference`` is not.
    """
    sides = {"default": _side(default, metric), "best": _side(best, metric)}
    afters = [side["after"] for side in sides.values()]
    return {**sides, "difference": None if None in afters else afters[1] - afters[0]}


def _side(results: Results, metric: str) -> dict[str, Any]:
    summary = results.summary
    arms = {arm: summary.value("all", arm, metric) for arm in ("before", "control", "after", "gain")}
    return {**arms, **{band: summary.value(band, "gain", metric) for band in BANDS}}


def trial_rows(config: SweepConfig, records: Sequence[TrialRecord]) -> list[dict[str, Any]]:
    """The trials as ``sweep.json`` holds them."""
    default = default_values(config.space, config.loop)
    rows = []
    for record in records:
        last = record.rounds[-1] if record.rounds else {}
        rows.append(
            {
                **asdict(record),
                "is_default": record.values == default,
                **{name: last.get(name) for name in FIGURES},
                "cases": record.cases,
                "rounds": [{name: made.get(name) for name in ("round", *FIGURES)} for made in record.rounds],
            }
        )
    return rows


def trials_csv(config: SweepConfig, rows: Sequence[Mapping[str, Any]]) -> str:
    """The trials as a table, one line each."""
    names = [
        "number",
        "status",
        *config.space,
        *FIGURES,
        "num_rounds",
        *(f"{case}.gain" for case in _cases(rows)),
        "error",
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, names)
    writer.writeheader()
    for row in rows:
        cases = {f"{case}.gain": held.get("gain") for case, held in row["cases"].items()}
        held = {**row, **row["values"], **cases, "num_rounds": len(row["rounds"])}
        writer.writerow({name: held.get(name) for name in names})
    return text.getvalue()


def _cases(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(case for row in rows for case in row["cases"]))
