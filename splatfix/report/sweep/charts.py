"""Charts of a sweep: gain over trials, per field, against cost, and how reruns differ."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup, escape

from splatfix.report.charts import Axis, Frame, grid, labels, level, svg
from splatfix.report.sweep.axes import NOT_SET, FieldScale
from splatfix.report.sweep.load import LoadedSweep, value_text
from splatfix.report.sweep.results import RerunRow, TrialResult
from splatfix.views import pick_evenly

MAX_SLICE_MARKS = 500
WIDE = Frame(width=940.0, height=330.0, left=66.0)
HISTORY = Frame(width=940.0, height=330.0, left=66.0, right=76.0)  # with room for what the level at its end means
SLICE = Frame(width=300.0, height=190.0, left=50.0, right=12.0, top=10.0, bottom=28.0)
CHARACTER_PX = 6.4  # of the charts' type, on average
FEW_TRIALS = 8  # below it no gain is called an outlier
NUM_RAMP = 8  # colours from the smallest to the largest gain


def shown_range(sweep: LoadedSweep) -> tuple[float, float]:
    """The gains that charts cover: all, but for outliers far below the rest; (0, 0) without any gain.

    A gain more than three interquartile ranges below the quartiles is left out (Tukey 1977), unless it is the
    default's: a wrecked trial should not flatten the differences between all others. Charts draw it at their edge.
    """
    gains = [gain for trial in sweep.trials if (gain := sweep.gain(trial)) is not None]
    if len(gains) >= FEW_TRIALS:
        lower, _, upper = statistics.quantiles(gains, n=4)
        default = sweep.gain(sweep.default) if sweep.default else None
        gains = [gain for gain in gains if gain >= lower - 3 * (upper - lower) or gain == default]
    return (min(gains), max(gains)) if gains else (0.0, 0.0)


def gain_axis(sweep: LoadedSweep, start_px: float, end_px: float, margin: float = 0.05) -> Axis:
    """The axis of the gains; at least as long as a change that is called one, so that noise does not look large."""
    low, high = shown_range(sweep)
    short = max(0.0, sweep.metric.noticeable - (high - low)) / 2
    return Axis([low - short, high + short], start_px, end_px, margin=margin)


def num_below(sweep: LoadedSweep) -> int:
    """How many trials gained less than the charts cover."""
    low, _ = shown_range(sweep)
    return sum(gain < low for trial in sweep.trials if (gain := sweep.gain(trial)) is not None)


def ramp_level(gain: float, shown: tuple[float, float]) -> int:
    """The colour of a gain among those that the charts cover, from 0 for the smallest to ``NUM_RAMP - 1``."""
    low, high = shown
    share = (gain - low) / (high - low) if high > low else 1.0
    return min(NUM_RAMP - 1, max(0, math.floor(share * NUM_RAMP)))


def best_so_far(sweep: LoadedSweep) -> list[tuple[int, float]]:
    """(number, largest gain up to it) of each complete trial."""
    reached: list[tuple[int, float]] = []
    for trial in sweep.complete:
        gain = sweep.gain(trial)
        assert gain is not None
        reached.append((trial.number, max(gain, reached[-1][1]) if reached else gain))
    return reached


def objective_over_time(sweep: LoadedSweep) -> Markup | None:
    """Each trial's gain against its number, with the largest so far; None without any gain."""
    measured = [(trial, gain) for trial in sweep.trials if (gain := sweep.gain(trial)) is not None]
    if not measured:
        return None
    numbers = [trial.number for trial in sweep.trials]
    left, right = HISTORY.x_px
    x_axis = Axis([min(numbers), max(numbers)], left + 12, right - 12, whole=True)
    y_axis = gain_axis(sweep, *HISTORY.y_px)
    parts = [grid(x_axis, y_axis, HISTORY), labels("trial", sweep.objective_title, HISTORY)]
    if y_axis.low < 0 < y_axis.high:
        parts.append(level(y_axis.at(0.0), HISTORY))
    parts.append(_default_level(sweep, y_axis))
    reached = best_so_far(sweep)
    if reached:
        places = [(x_axis.at(reached[0][0]), y_axis.at(reached[0][1]))]
        for trial_number, gain in [*reached[1:], (max(numbers), reached[-1][1])]:
            x, y = x_axis.at(trial_number), y_axis.at(gain)
            places += [(x, places[-1][1]), (x, y)]
        parts.append(f'<polyline class="reached" points="{_points(places)}"><title>best so far</title></polyline>')
    size = 5.0 if len(numbers) <= 150 else 3.2
    for trial, gain in sorted(measured, key=lambda pair: len(sweep.kinds(pair[0]))):  # best and default on top
        parts.append(trial_mark(sweep, trial, x_axis.at(trial.number), y_axis, gain, size))
    for trial in sweep.trials:
        if trial.status == "failed" and sweep.gain(trial) is None:
            parts.append(_failed_mark(sweep, trial, x_axis.at(trial.number), y_axis.start_px - 5))
    return svg(parts, f"The {sweep.objective_title} of each trial", HISTORY.width, HISTORY.height)


def _default_level(sweep: LoadedSweep, y_axis: Axis) -> str:
    gain = sweep.gain(sweep.default) if sweep.default else None
    if gain is None:
        return ""
    y, x = y_axis.at(gain), HISTORY.x_px[1] + 7
    above, below = (f'x="{x}" y="{y + shift:.1f}"' for shift in (-3, 13))
    text = f'<text class="name" {above}>default</text><text class="tick" {below}>{sweep.signed(gain)}</text>'
    return level(y, HISTORY, "level") + text


def slices(sweep: LoadedSweep, scales: Sequence[FieldScale]) -> list[dict[str, Any]]:
    """Gain against the value of each of these fields: ``{"field", "chart"}``. Only complete trials."""
    trials = sorted(sweep.complete, key=lambda trial: len(sweep.kinds(trial)))
    if not trials:
        return []
    trials = [*pick_evenly(trials[:-2], MAX_SLICE_MARKS), *trials[-2:]]  # the best and the default stand last
    y_axis = gain_axis(sweep, *SLICE.y_px)
    return [{"field": scale.field, "chart": _slice(sweep, scale, trials, y_axis)} for scale in scales]


def _slice(sweep: LoadedSweep, scale: FieldScale, trials: Sequence[TrialResult], y_axis: Axis) -> Markup:
    left, right = SLICE.left + 14, SLICE.width - SLICE.right - 8

    def at(share: float) -> float:
        return left + share * (right - left)

    parts = []
    for value, label in y_axis.ticks():
        y = y_axis.at(value)
        parts.append(level(y, SLICE, "grid"))
        parts.append(f'<text class="tick" x="{SLICE.left - 7}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    ticks = scale.ticks()
    gap = min((at(b[0]) - at(a[0]) for a, b in itertools.pairwise(ticks)), default=right - left)
    room = max(3, int(gap / CHARACTER_PX)) if scale.choices is not None else 9
    for share, label in ticks:
        place = f'x="{at(share):.1f}" y="{SLICE.height - SLICE.bottom + 17}" text-anchor="middle"'
        parts.append(f'<text class="tick" {place}>{escape(cut(label, room))}<title>{escape(label)}</title></text>')
    size = 4.2 if len(trials) <= 150 else 2.6
    for trial in trials:
        gain, values = sweep.gain(trial), trial.values
        assert gain is not None
        piled = scale.choices is not None or scale.field not in values  # many trials at one place: beside each other
        aside = (trial.number * 0.618 % 1 - 0.5) * min(16.0, gap / 3) if piled else 0.0
        setting = value_text(values[scale.field]) if scale.field in values else NOT_SET
        parts.append(trial_mark(sweep, trial, at(scale.at(values)) + aside, y_axis, gain, size, f"{setting}: "))
    return svg(parts, f"{sweep.objective_title} against {scale.field}", SLICE.width, SLICE.height)


def gain_against_cost(sweep: LoadedSweep) -> Markup | None:
    """Gain of the complete trials against their seconds, the trade-offs joined; None with fewer than two."""
    points = {
        trial.number: (trial, seconds, gain)
        for trial in sweep.complete
        if (seconds := trial.seconds) is not None and seconds > 0 and (gain := sweep.gain(trial)) is not None
    }
    if len(points) < 2:
        return None
    times = [seconds for _, seconds, _ in points.values()]
    log = max(times) > 8 * min(times)

    def place(seconds: float) -> float:
        return math.log10(seconds) if log else seconds

    x_axis = Axis([place(seconds) for seconds in times], *WIDE.x_px, logarithmic=log)
    y_axis = gain_axis(sweep, *WIDE.y_px)
    parts = [grid(x_axis, y_axis, WIDE), labels("seconds of a loop", sweep.objective_title, WIDE)]
    if has_trade_offs(sweep):
        front = sorted(points[n][1:] for n in sweep.results.pareto if n in points)
        places = [(x_axis.at(place(seconds)), y_axis.at(max(gain, y_axis.low))) for seconds, gain in front]
        parts.append(f'<polyline class="pareto" points="{_points(places)}"/>')
    for trial, seconds, gain in sorted(points.values(), key=lambda point: len(sweep.kinds(point[0]))):
        x = x_axis.at(place(seconds))
        parts.append(trial_mark(sweep, trial, x, y_axis, gain, 5.0 if len(points) <= 150 else 3.2))
        names = [name for name in sweep.kinds(trial) if name != "complete"]
        if names:
            side, anchor = (-10, "end") if x > WIDE.width / 2 else (10, "start")
            at = f'x="{x + side:.1f}" y="{y_axis.at(max(gain, y_axis.low)) + 4:.1f}" text-anchor="{anchor}"'
            parts.append(f'<text class="over name" {at}>{escape(", ".join(names))}</text>')
    return svg(parts, f"{sweep.objective_title} of each trial against its seconds", WIDE.width, WIDE.height)


def has_trade_offs(sweep: LoadedSweep) -> bool:
    """Whether the best trades of gain for seconds were searched for."""
    return list(sweep.results.objectives) == [sweep.objective, "seconds"] and len(sweep.results.pareto) > 0


def differences(sweep: LoadedSweep, rows: Sequence[RerunRow]) -> Markup | None:
    """Best minus default of each rerun, a row of dots per capture with a tick at their mean; None without any."""
    by_capture: dict[tuple[bool, str], list[tuple[float, str]]] = {}
    for row in sorted(rows, key=lambda row: row.held_out):
        if (value := row.difference) is not None:
            text = f"{row.capture}, seed {row.seed}: {sweep.signed(value)}"
            key = row.held_out, row.capture
            by_capture.setdefault(key, []).append((value, text))
    if not by_capture:
        return None
    height, top = 34.0, 12.0
    frame = Frame(width=430.0, height=top + height * len(by_capture) + 44, left=132.0, top=top, bottom=44.0)
    every = [value for found in by_capture.values() for value, _ in found]
    x_axis = Axis(every, *frame.x_px, include=0.0)
    bottom = frame.y_px[0]
    parts = []
    for value, label in x_axis.ticks():
        x = x_axis.at(value)
        kind = "grid" if value else "zero"
        parts.append(f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 17}" text-anchor="middle">{label}</text>')
    for k, ((held_out, capture), found) in enumerate(by_capture.items()):
        y = top + height * (k + 0.5)
        name = escape(cut(capture, 17))
        parts.append(f'<text class="name" x="2" y="{y + (0 if held_out else 4):.1f}">{name}</text>')
        if held_out:
            parts.append(f'<text class="tick" x="2" y="{y + 14:.1f}">held out</text>')
        mean = x_axis.at(statistics.fmean(value for value, _ in found))
        parts.append(f'<line class="mean" x1="{mean:.1f}" x2="{mean:.1f}" y1="{y - 11:.1f}" y2="{y + 11:.1f}"/>')
        for value, text in found:
            kind = "rerun held" if held_out else "rerun"
            place = f'cx="{x_axis.at(value):.1f}" cy="{y:.1f}"'
            parts.append(f'<circle class="{kind}" {place} r="5"><title>{escape(text)}</title></circle>')
    middle = sum(frame.x_px) / 2
    axis = escape(f"best minus default, {sweep.metric.title}")
    parts.append(f'<text class="axis" x="{middle:.1f}" y="{frame.height - 6:.1f}" text-anchor="middle">{axis}</text>')
    return svg(parts, "Best minus default of each rerun", frame.width, frame.height)


def trial_mark(
    sweep: LoadedSweep, trial: TrialResult, x: float, y_axis: Axis, gain: float, size: float, prefix: str = ""
) -> str:
    """A trial in a chart; shape and colour both tell what it is: a diamond the default, a ring one that was stopped.

    A triangle at the lower edge stands for a gain below what the chart covers.
    """
    kinds = sweep.kinds(trial)
    y = y_axis.at(max(gain, y_axis.low))
    size *= 1.35 if len(kinds) > 1 else 1.0
    what = f'class="trial {escape(" ".join(kinds))}" data-trial="{trial.number:d}"'
    title = f"<title>{escape(prefix + sweep.trial_title(trial))}</title>"
    if gain < y_axis.low:
        corners = [(x - size, y - size), (x + size, y - size), (x, y + size * 0.7)]
        return f'<polygon {what} points="{_points(corners)}">{title}</polygon>'
    if "default" in kinds:
        corners = [(x, y - size * 1.2), (x + size * 1.2, y), (x, y + size * 1.2), (x - size * 1.2, y)]
        return f'<polygon {what} points="{_points(corners)}">{title}</polygon>'
    return f'<circle {what} cx="{x:.1f}" cy="{y:.1f}" r="{size:.1f}">{title}</circle>'


def _failed_mark(sweep: LoadedSweep, trial: TrialResult, x: float, y: float) -> str:
    title = escape(f"{sweep.trial_title(trial)}: {cut(str(trial.error), 200)}")
    return (
        f'<path class="trial failed" data-trial="{trial.number:d}" d="M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8">'
        f"<title>{title}</title></path>"
    )


def cut(text: str, room: int) -> str:
    """At most so many characters, the last one an ellipsis where something is left out."""
    return text if len(text) <= room else text[: room - 1] + "…"


def _points(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
