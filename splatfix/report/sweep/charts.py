"""Charts of a sweep: gain over trials, per field, against cost, and how reruns differ."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from splatfix.report.svg import (
    CHARACTER_PX,
    circle,
    css_color,
    cut,
    element,
    new_axes,
    page_style,
    pixels,
    polygon,
    span,
    text,
    to_svg,
    use_log_ticks,
)
from splatfix.report.sweep.axes import NOT_SET, FieldScale
from splatfix.report.sweep.load import LoadedSweep, value_text
from splatfix.report.sweep.results import RerunRow, TrialResult
from splatfix.views import pick_evenly

MAX_SLICE_MARKS = 500
WIDTH, HEIGHT = 940.0, 330.0
SLICE_WIDTH, SLICE_HEIGHT, SLICE_MARGINS = 300.0, 190.0, (50.0, 20.0, 10.0, 28.0)
ROW_PX = 34.0  # of a capture in the chart of the reruns
FEW_TRIALS = 8  # below it no gain is called an outlier
NUM_RAMP = 8  # colors from the smallest to the largest gain


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


def gain_limits(sweep: LoadedSweep, margin: float = 0.05) -> tuple[float, float]:
    """Limits of the axis of gains: at least as long as a noticeable change, so that noise does not look large."""
    low, high = shown_range(sweep)
    short = max(0.0, sweep.metric.noticeable - (high - low)) / 2
    return span([low - short, high + short], margin)


def num_below(sweep: LoadedSweep) -> int:
    """How many trials gained less than the charts cover."""
    low, _ = shown_range(sweep)
    return sum(gain < low for trial in sweep.trials if (gain := sweep.gain(trial)) is not None)


def ramp_level(gain: float, shown: tuple[float, float]) -> int:
    """The color of a gain among those that the charts cover, from 0 for the smallest to ``NUM_RAMP - 1``."""
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


@page_style
def objective_over_time(sweep: LoadedSweep) -> Markup | None:
    """Each trial's gain against its number, with the largest so far; None without any gain."""
    measured = [(trial, gain) for trial in sweep.trials if (gain := sweep.gain(trial)) is not None]
    if not measured:
        return None
    numbers = [trial.number for trial in sweep.trials]
    axes = new_axes(WIDTH, HEIGHT, margins=(66.0, 76.0, 14.0, 40.0))  # on the right is room for a label
    limits = gain_limits(sweep)
    axes.set(xlabel="trial", ylabel=sweep.objective_title, ylim=limits)
    axes.set_xlim(span([min(numbers), max(numbers)], margin=0.015))
    axes.locator_params(axis="x", integer=True)
    if limits[0] < 0 < limits[1]:
        axes.axhline(0, color=css_color("soft"), linewidth=1.2)
    default = sweep.gain(sweep.default) if sweep.default else None
    if default is not None:
        axes.axhline(default, color=css_color("ink"), linewidth=1.2, linestyle=(0, (5, 4)))
    if reached := best_so_far(sweep):
        steps = [*reached, (max(numbers), reached[-1][1])]
        axes.step(*zip(*steps, strict=True), where="post", color=css_color("accent"), linewidth=1.8, alpha=0.75)
    at, size = pixels(axes), _mark_size(len(numbers))
    marks = [
        trial_mark(sweep, trial, *at(trial.number, max(gain, limits[0])), size, below=gain < limits[0])
        for trial, gain in sorted(measured, key=lambda pair: len(sweep.kinds(pair[0])))  # best and default on top
    ]
    if default is not None:
        x, y = at(axes.get_xlim()[1], default)
        marks += [text("name", x + 7, y - 3, "default"), text("tick", x + 7, y + 13, sweep.signed(default))]
    for trial in sweep.trials:
        if trial.status == "failed" and sweep.gain(trial) is None:
            marks.append(_failed_mark(sweep, trial, *at(trial.number, limits[0])))
    return to_svg(axes, f"The {sweep.objective_title} of each trial", marks)


@page_style
def slices(sweep: LoadedSweep, scales: Sequence[FieldScale]) -> list[dict[str, Any]]:
    """Gain against the value of each of these fields: ``{"field", "chart"}``. Only complete trials."""
    trials = sorted(sweep.complete, key=lambda trial: len(sweep.kinds(trial)))
    if not trials:
        return []
    trials = [*pick_evenly(trials[:-2], MAX_SLICE_MARKS), *trials[-2:]]  # the best and the default come last
    limits = gain_limits(sweep)
    return [{"field": scale.field, "chart": _slice(sweep, scale, trials, limits)} for scale in scales]


def _slice(sweep: LoadedSweep, scale: FieldScale, trials: Sequence[TrialResult], limits: tuple[float, float]) -> Markup:
    axes = new_axes(SLICE_WIDTH, SLICE_HEIGHT, SLICE_MARGINS)
    axes.set(xlim=(-0.06, 1.02), ylim=limits)
    at, ticks = pixels(axes), scale.ticks()
    gap = min((at(b[0], 0)[0] - at(a[0], 0)[0] for a, b in itertools.pairwise(ticks)), default=SLICE_WIDTH)
    room = max(3, int(gap / CHARACTER_PX)) if scale.choices is not None else 9
    axes.set_xticks([share for share, _ in ticks], [cut(label, room) for _, label in ticks])
    size, marks = 0.84 * _mark_size(len(trials)), []
    for trial in trials:
        gain, values = sweep.gain(trial), trial.values
        assert gain is not None
        piled = scale.choices is not None or scale.field not in values  # many trials at one place: beside each other
        aside = (trial.number * 0.618 % 1 - 0.5) * min(16.0, gap / 3) if piled else 0.0
        setting = value_text(values[scale.field]) if scale.field in values else NOT_SET
        x, y = at(scale.at(values), max(gain, limits[0]))
        marks.append(trial_mark(sweep, trial, x + aside, y, size, below=gain < limits[0], prefix=f"{setting}: "))
    return to_svg(axes, f"{sweep.objective_title} against {scale.field}", marks)


@page_style
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
    axes = new_axes(WIDTH, HEIGHT, margins=(66.0, 14.0, 14.0, 40.0))
    limits = gain_limits(sweep)
    axes.set(xlabel="seconds of a loop", ylabel=sweep.objective_title, ylim=limits, xlim=span(times))
    if max(times) > 8 * min(times):
        use_log_ticks(axes, "x")
        axes.set_xlim(min(times) / 1.2, max(times) * 1.2)
    if has_trade_offs(sweep):
        front = sorted(points[n][1:] for n in sweep.results.pareto if n in points)
        line = [(seconds, max(gain, limits[0])) for seconds, gain in front]
        axes.plot(*zip(*line, strict=True), color=css_color("accent"), linewidth=1.8, alpha=0.75, linestyle=":")
    marks, at, size = [], pixels(axes), _mark_size(len(points))
    for trial, seconds, gain in sorted(points.values(), key=lambda point: len(sweep.kinds(point[0]))):
        x, y = at(seconds, max(gain, limits[0]))
        marks.append(trial_mark(sweep, trial, x, y, size, below=gain < limits[0]))
        if names := [name for name in sweep.kinds(trial) if name != "complete"]:
            side, anchor = (-10, "end") if x > WIDTH / 2 else (10, "start")
            marks.append(text("over name", x + side, y + 4, ", ".join(names), anchor))
    return to_svg(axes, f"{sweep.objective_title} of each trial against its seconds", marks)


def has_trade_offs(sweep: LoadedSweep) -> bool:
    """Whether the best trades of gain for seconds were searched for."""
    return list(sweep.results.objectives) == [sweep.objective, "seconds"] and len(sweep.results.pareto) > 0


@page_style
def differences(sweep: LoadedSweep, rows: Sequence[RerunRow]) -> Markup | None:
    """Best minus default of each rerun, a row of dots per capture with a tick at their mean; None without any."""
    by_capture: dict[tuple[bool, str], list[float]] = {}
    for row in sorted(rows, key=lambda row: row.held_out):
        if (value := row.difference) is not None:
            by_capture.setdefault((row.held_out, row.capture), []).append(value)
    if not by_capture:
        return None
    axes = new_axes(430.0, ROW_PX * len(by_capture) + 56.0, margins=(132.0, 14.0, 12.0, 44.0))
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    axes.axvline(0, color=css_color("soft"), linewidth=1.2)
    axes.set_xlabel(f"best minus default, {sweep.metric.title}")
    names = [cut(capture, 17) + ("\nheld out" if held_out else "") for held_out, capture in by_capture]
    axes.set_yticks(range(len(by_capture)), names, color=css_color("ink"))
    for k, ((held_out, _), found) in enumerate(by_capture.items()):
        mean = statistics.fmean(found)
        axes.plot([mean, mean], [k - 0.32, k + 0.32], color=css_color("ink"))
        color = css_color("far" if held_out else "ramp-5")
        axes.plot(found, [k] * len(found), "o", markersize=10, color=color, markeredgecolor=css_color("panel"))
    axes.set(xlim=span([0.0, *(value for found in by_capture.values() for value in found)]))
    axes.set(ylim=(len(by_capture) - 0.5, -0.5))
    return to_svg(axes, "Best minus default of each rerun")


def trial_mark(
    sweep: LoadedSweep, trial: TrialResult, x: float, y: float, size: float, *, below: bool, prefix: str = ""
) -> str:
    """A trial in a chart; shape and color both tell what it is: a diamond the default, a ring one that was stopped.

    A triangle is one ``below`` what the chart covers.
    """
    kinds = sweep.kinds(trial)
    size *= 1.35 if len(kinds) > 1 else 1.0
    css, title, trial_number = " ".join(["trial", *kinds]), prefix + sweep.trial_title(trial), trial.number
    if below:
        return polygon(css, [(x - size, y - size), (x + size, y - size), (x, y + size * 0.7)], title, trial_number)
    if "default" in kinds:
        size *= 1.2
        return polygon(css, [(x, y - size), (x + size, y), (x, y + size), (x - size, y)], title, trial_number)
    return circle(css, x, y, size, title, trial_number)


def _mark_size(num_marks: int) -> float:
    return 5.0 if num_marks <= 150 else 3.2


def _failed_mark(sweep: LoadedSweep, trial: TrialResult, x: float, y: float) -> str:
    title = f"{sweep.trial_title(trial)}: {cut(str(trial.error), 200)}"
    return element("path", "trial failed", title, trial.number, d=f"M{x - 4:.1f} {y - 9:.1f}l8 8m0 -8l-8 8")
