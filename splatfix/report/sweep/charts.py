"""Charts of a sweep: gain over trials, per field, against cost, and how reruns differ."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes

from splatfix.report.svg import (
    Margins,
    css_color,
    cut,
    mark,
    new_axes,
    page_style,
    pixel,
    span,
    text,
    to_svg,
    use_log_ticks,
)
from splatfix.report.sweep.axes import NOT_SET, FieldScale
from splatfix.report.sweep.load import LoadedSweep, format_setting
from splatfix.report.sweep.results import RerunRow, TrialResult
from splatfix.views import pick_evenly

MAX_SLICE_MARKS = 500
WIDTH, HEIGHT = 940.0, 330.0
SLICE_WIDTH, SLICE_HEIGHT, SLICE_MARGINS = 300.0, 190.0, (50.0, 20.0, 10.0, 28.0)
ROW_PX = 34.0  # of a capture in the chart of the reruns
MANY_TRIALS = 150  # above it marks are small
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
    gains = {trial.number: gain for trial in sweep.trials if (gain := sweep.gain(trial)) is not None}
    if not gains:
        return None
    first, last = (choose(trial.number for trial in sweep.trials) for choose in (min, max))
    axes = _gain_axes(sweep, WIDTH, HEIGHT, (66.0, 76.0, 14.0, 40.0))  # on the right is room for a label
    axes.set(xlabel="trial", ylabel=sweep.objective_title, xlim=span([first, last], margin=0.015))
    axes.locator_params(axis="x", integer=True)
    marks, (lowest, highest) = [], axes.get_ylim()
    if lowest < 0 < highest:
        axes.axhline(0, color=css_color("soft"), linewidth=1.2)
    if reached := best_so_far(sweep):
        steps = [*reached, (last, reached[-1][1])]
        axes.step(*zip(*steps, strict=True), where="post", color=css_color("accent"), linewidth=1.8, alpha=0.75)
    for trial in _on_top_last(sweep, sweep.trials):
        if trial.number in gains:
            marks.append(_mark(sweep, axes, trial, trial.number, gains[trial.number]))
        elif trial.status == "failed":
            title = f"{sweep.trial_title(trial)}: {cut(str(trial.error), 200)}"
            x, y = pixel(axes, trial.number, lowest)
            marks.append(mark("cross", "trial failed", x, y - 5, 4.5, title, trial.number))
    if sweep.default is not None and sweep.default.number in gains:
        gain = gains[sweep.default.number]
        axes.axhline(gain, color=css_color("ink"), linewidth=1.2, linestyle=(0, (5, 4)))
        x, y = pixel(axes, axes.get_xlim()[1], gain)
        marks += [text("name", x + 7, y - 3, "default"), text("tick", x + 7, y + 13, sweep.signed(gain))]
    return to_svg(axes, f"The {sweep.objective_title} of each trial", marks)


@page_style
def slices(sweep: LoadedSweep, scales: Sequence[FieldScale]) -> list[dict[str, Any]]:
    """Gain against the value of each of these fields: ``{"field", "chart"}``. Only complete trials."""
    trials = _on_top_last(sweep, sweep.complete)
    if not trials:
        return []
    trials = [*pick_evenly(trials[:-2], MAX_SLICE_MARKS), *trials[-2:]]  # the best and the default come last
    return [{"field": scale.field, "chart": _slice(sweep, scale, trials)} for scale in scales]


def _slice(sweep: LoadedSweep, scale: FieldScale, trials: Sequence[TrialResult]) -> Markup:
    axes = _gain_axes(sweep, SLICE_WIDTH, SLICE_HEIGHT, SLICE_MARGINS)
    axes.set_xlim(-0.06, 1.02)
    shares, labels = zip(*scale.ticks(), strict=True)
    axes.set_xticks(shares, [cut(label, 9 if scale.choices is None else max(3, 36 // len(labels))) for label in labels])
    marks = []
    for trial in trials:
        gain, is_set = sweep.gain(trial), scale.field in trial.values
        assert gain is not None
        piled = scale.choices is not None or not is_set  # many trials at one place: beside each other
        aside = (trial.number * 0.618 % 1 - 0.5) * min(16.0, 70 / len(labels)) if piled else 0.0
        prefix = f"{format_setting(trial.values[scale.field]) if is_set else NOT_SET}: "
        marks.append(_mark(sweep, axes, trial, scale.at(trial.values), gain, prefix, aside))
    return to_svg(axes, f"{sweep.objective_title} against {scale.field}", marks)


@page_style
def gain_against_cost(sweep: LoadedSweep) -> Markup | None:
    """Gain of the complete trials against their seconds, the trade-offs joined; None with fewer than two."""
    seconds = {trial.number: trial.seconds for trial in sweep.complete if trial.seconds}
    if len(seconds) < 2:
        return None
    axes = _gain_axes(sweep, WIDTH, HEIGHT, (66.0, 14.0, 14.0, 40.0))
    axes.set(xlabel="seconds of a loop", ylabel=sweep.objective_title, xlim=span(seconds.values()))
    if max(seconds.values()) > 8 * min(seconds.values()):
        use_log_ticks(axes, "x")
        axes.set_xlim(min(seconds.values()) / 1.2, max(seconds.values()) * 1.2)
    marks, front = [], []
    for trial in _on_top_last(sweep, (trial for trial in sweep.complete if trial.number in seconds)):
        place = seconds[trial.number], max(sweep.gain(trial) or 0.0, axes.get_ylim()[0])
        marks.append(_mark(sweep, axes, trial, place[0], sweep.gain(trial) or 0.0))
        if names := [name for name in sweep.kinds(trial) if name != "complete"]:
            x, y = pixel(axes, *place)
            side, anchor = (-10, "end") if x > WIDTH / 2 else (10, "start")
            marks.append(text("over name", x + side, y + 4, ", ".join(names), anchor))
        front += [place] if trial.number in sweep.results.pareto else []
    if has_trade_offs(sweep):
        axes.plot(*zip(*sorted(front), strict=True), ":", color=css_color("accent"), linewidth=1.8, alpha=0.75)
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


def _gain_axes(sweep: LoadedSweep, width_px: float, height_px: float, margins: Margins) -> Axes:
    axes = new_axes(width_px, height_px, margins)
    axes.set_ylim(gain_limits(sweep))
    return axes


def _on_top_last(sweep: LoadedSweep, trials: Iterable[TrialResult]) -> list[TrialResult]:
    """In drawing order: the default and the best are on top."""
    return sorted(trials, key=lambda trial: len(sweep.kinds(trial)))


def _mark(
    sweep: LoadedSweep, axes: Axes, trial: TrialResult, x: float, gain: float, prefix: str = "", aside_px: float = 0.0
) -> str:
    """A trial in a chart; shape and color both tell what it is: a diamond the default, a ring one that was stopped.

    A triangle at the lower edge is a gain below what the chart covers.
    """
    kinds, lowest = sweep.kinds(trial), axes.get_ylim()[0]
    shape = "below" if gain < lowest else "diamond" if "default" in kinds else "circle"
    size = (5.0 if len(sweep.trials) <= MANY_TRIALS else 3.2) * (1.35 if len(kinds) > 1 else 1.0)
    x_px, y_px = pixel(axes, x, max(gain, lowest))
    title = prefix + sweep.trial_title(trial)
    return mark(shape, " ".join(["trial", *kinds]), x_px + aside_px, y_px, size, title, trial.number)
