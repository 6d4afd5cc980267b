"""Parallel coordinates: every trial as a line across one axis per searched field, and the gain at the end."""

from __future__ import annotations

from markupsafe import Markup, escape

from splatfix.report.svg import polyline, text, wrap
from splatfix.report.sweep.axes import field_scales, round_ticks
from splatfix.report.sweep.charts import gain_limits, ramp_level, shown_range
from splatfix.report.sweep.load import LoadedSweep
from splatfix.report.sweep.results import TrialResult

CHARACTER_PX = 6.4  # on average
MIN_WIDTH, AXIS_STEP = 940, 122
LEFT, RIGHT, TOP, BOTTOM, HEIGHT = 62.0, 74.0, 52.0, 16.0, 400.0
MAX_WIDE_LINES = 300  # with a broad band around each to point at, and with all values in their titles


def parallel_coordinates(sweep: LoadedSweep) -> Markup | None:
    """A line per trial: its color by the gain, the default dashed, the best on top; None without a trial or field.

    A field that a trial does not have is at "not set", below the axis. A trial without gain ends at the last field.
    """
    scales = field_scales(sweep)
    if not scales or not sweep.trials:
        return None
    width = chart_width(len(scales))
    step = (width - LEFT - RIGHT) / len(scales)
    low, high = gain_limits(sweep, margin=0.0)
    room = int(step / CHARACTER_PX) - 1
    parts = []
    for trial in sorted(sweep.trials, key=lambda trial: _depth(sweep, trial)):
        gain = sweep.gain(trial)
        heights = [scale.at(trial.values) for scale in scales]
        if gain is not None:
            heights.append((max(gain, low) - low) / (high - low))
        parts.append(_line(sweep, trial, gain, [(LEFT + k * step, _y(at)) for k, at in enumerate(heights)]))
    for k, scale in enumerate(scales):
        parts += _axis(LEFT + k * step, scale.field, scale.ticks(), room)
    measured = any(sweep.gain(trial) is not None for trial in sweep.trials)
    ticks = [((gain - low) / (high - low), label) for gain, label in round_ticks(low, high)] if measured else []
    parts += _axis(width - RIGHT, sweep.objective_title, ticks, room)
    return wrap(parts, "Every trial as a line across the searched fields", width, HEIGHT)


def chart_width(num_fields: int) -> int:
    """Pixels of the drawing: it grows with many fields, and scrolls in its panel."""
    return max(MIN_WIDTH, int(LEFT + RIGHT) + AXIS_STEP * num_fields)


def _y(share: float) -> float:
    """Pixels from the top, of a share of an axis."""
    return HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)


def _line(sweep: LoadedSweep, trial: TrialResult, gain: float | None, places: list[tuple[float, float]]) -> str:
    kinds = sweep.kinds(trial)
    if "complete" in kinds and gain is not None:
        kinds.append(f"ramp-{ramp_level(gain, shown_range(sweep))}")
    few = len(sweep.trials) <= MAX_WIDE_LINES
    lines = polyline("", places) + (polyline("hit", places) if few else "")
    title = escape(sweep.trial_title(trial, with_values=few))
    return f'<g class="path {" ".join(kinds)}" data-trial="{trial.number}"><title>{title}</title>{lines}</g>'


def _axis(x: float, name: str, ticks: list[tuple[float, str]], room: int) -> list[str]:
    """A vertical line with ticks, and above it the name: what comes before its last point on a separate line."""
    before, point, last = name.rpartition(".")
    parts = [polyline("pole", [(x, _y(1)), (x, _y(0))]), text("tick", x, TOP - 32, before + point, "middle")]
    parts.append(text("name", x, TOP - 16, last, "middle", room))
    for share, label in ticks:
        parts.append(polyline("notch", [(x - 3, _y(share)), (x + 3, _y(share))]))
        parts.append(text("over tick", x + 7, _y(share) + 4, label, room=room))
    return parts


def _depth(sweep: LoadedSweep, trial: TrialResult) -> tuple[bool, bool, bool, float]:
    """Drawing order: those with a gain after those without, larger gains after smaller, then the default, the best."""
    kinds, gain = sweep.kinds(trial), sweep.gain(trial)
    return "best" in kinds, "default" in kinds, "complete" in kinds, gain if gain is not None else float("-inf")
