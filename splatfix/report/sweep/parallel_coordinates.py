"""Parallel coordinates: every trial as a line across one axis per searched field, and the gain at the end."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup, escape

from splatfix.report.charts import Axis, Frame, svg
from splatfix.report.sweep.axes import FieldScale, field_scales
from splatfix.report.sweep.charts import CHARACTER_PX, cut, gain_axis, ramp_level, shown_range
from splatfix.report.sweep.load import LoadedSweep
from splatfix.report.sweep.results import TrialResult

MIN_WIDTH, AXIS_STEP = 940, 122
LEFT, RIGHT, TOP, BOTTOM, HEIGHT = 62, 74, 52, 16, 400
MAX_WIDE_LINES = 300  # with a broad band around each to point at, and with all values in their titles


def parallel_coordinates(sweep: LoadedSweep) -> Markup | None:
    """A line per trial: its colour by the gain, the default dashed, the best on top; None without a trial or field.

    A field that a trial does not have is at "not set", below the axis. A trial without gain ends at the last field.
    """
    scales = field_scales(sweep)
    if not scales or not sweep.trials:
        return None
    width = chart_width(len(scales))
    frame = Frame(width=width, height=HEIGHT, left=LEFT, right=RIGHT, top=TOP, bottom=BOTTOM)
    step = (frame.x_px[1] - frame.x_px[0]) / len(scales)
    shown = shown_range(sweep)
    axis = gain_axis(sweep, *frame.y_px, margin=0.0)
    parts = []
    for trial in sorted(sweep.trials, key=lambda trial: _depth(sweep, trial)):
        parts.append(_line(sweep, trial, scales, step, axis, shown))
    room = int(step / CHARACTER_PX) - 1
    for k, scale in enumerate(scales):
        parts.append(_field_axis(scale, frame, frame.left + k * step, room))
    parts.append(_axis(frame, frame.x_px[1], sweep.objective_title, room))
    measured = any(sweep.gain(trial) is not None for trial in sweep.trials)
    for value, label in axis.ticks() if measured else []:
        place = f'x="{frame.x_px[1] + 9:.1f}" y="{axis.at(value) + 4:.1f}"'
        parts.append(f'<text class="over tick" {place}>{label}</text>')
    return svg(parts, "Every trial as a line across the searched fields", width, HEIGHT)


def chart_width(num_fields: int) -> int:
    """Pixels of the drawing: it grows with many fields, and scrolls in its panel."""
    return max(MIN_WIDTH, LEFT + RIGHT + AXIS_STEP * num_fields)


def place(scale: FieldScale, values: dict[str, Any]) -> float:
    """Where a trial's line crosses the axis of a field, in pixels from the top."""
    return HEIGHT - BOTTOM - scale.at(values) * (HEIGHT - BOTTOM - TOP)


def _line(
    sweep: LoadedSweep,
    trial: TrialResult,
    scales: list[FieldScale],
    step: float,
    axis: Axis,
    shown: tuple[float, float],
) -> str:
    values, gain = trial.values, sweep.gain(trial)
    places = [f"{LEFT + k * step:.1f},{place(scale, values):.1f}" for k, scale in enumerate(scales)]
    if gain is not None:
        places.append(f"{LEFT + len(scales) * step:.1f},{axis.at(max(gain, axis.low)):.1f}")
    kinds = sweep.kinds(trial)
    if "complete" in kinds and gain is not None:
        kinds.append(f"ramp-{ramp_level(gain, shown)}")
    few = len(sweep.trials) <= MAX_WIDE_LINES
    line = f'<polyline points="{" ".join(places)}"/>'
    band = line.replace("<polyline", '<polyline class="hit"') if few else ""
    title = escape(sweep.trial_title(trial, with_values=few))
    return (
        f'<g class="path {escape(" ".join(kinds))}" data-trial="{trial.number:d}"><title>{title}</title>'
        f"{line}{band}</g>"
    )


def _field_axis(scale: FieldScale, frame: Frame, x: float, room: int) -> str:
    parts = [_axis(frame, x, scale.field, room)]
    for share, label in scale.ticks():
        y = frame.y_px[0] - share * (frame.y_px[0] - frame.y_px[1])
        parts.append(f'<line class="notch" x1="{x - 3:.1f}" x2="{x + 3:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        text = f"{escape(cut(label, room))}<title>{escape(label)}</title>"
        parts.append(f'<text class="over tick" x="{x + 7:.1f}" y="{y + 4:.1f}">{text}</text>')
    return "".join(parts)


def _axis(frame: Frame, x: float, name: str, room: int) -> str:
    """A vertical line, and above it the name: what comes before its last point on a line of its own."""
    before, point, last = name.rpartition(".")
    bottom, top = frame.y_px
    last = f"{escape(cut(last, room))}<title>{escape(name)}</title>"
    return (
        f'<line class="pole" x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{bottom:.1f}"/>'
        f'<text class="tick" x="{x:.1f}" y="{top - 32:.1f}" text-anchor="middle">{escape(before + point)}</text>'
        f'<text class="name" x="{x:.1f}" y="{top - 16:.1f}" text-anchor="middle">{last}</text>'
    )


def _depth(sweep: LoadedSweep, trial: TrialResult) -> tuple[bool, bool, bool, float]:
    """Later ones lie on top: those with a gain over those without, larger gains over smaller, default, best."""
    kinds, gain = sweep.kinds(trial), sweep.gain(trial)
    return "best" in kinds, "default" in kinds, "complete" in kinds, gain if gain is not None else float("-inf")
