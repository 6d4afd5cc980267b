"""Charts as inline SVG; colours come from the page's CSS, so that they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from splatfix.evaluation.results import ARMS, ViewResult
from splatfix.report.load import number
from splatfix.report.wording import view_gain, written
from splatfix.views import BANDS

MAX_POINTS = 240


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Size of a chart and the margins around its plot, in pixels of the drawing."""

    width: float = 460.0
    height: float = 280.0
    left: float = 54.0
    right: float = 14.0
    top: float = 14.0
    bottom: float = 40.0

    @property
    def x_px(self) -> tuple[float, float]:
        """Where the plot begins and ends from left to right."""
        return self.left, self.width - self.right

    @property
    def y_px(self) -> tuple[float, float]:
        """Where the plot begins and ends from the bottom up."""
        return self.height - self.bottom, self.top


FRAME = Frame()


def gain_scatter(views: Sequence[ViewResult]) -> Markup | None:
    """PSNR gain of each test view against its distance from the training cameras; None with fewer than two views."""
    points = [
        (view.distance, gain, view.band, view.name)
        for view in views
        if view.distance is not None and (gain := view_gain(view)) is not None
    ]
    if len(points) < 2:
        return None
    x_axis = Axis([point[0] for point in points], *FRAME.x_px, include=0.0)
    y_axis = Axis([point[1] for point in points], *FRAME.y_px, include=0.0)
    parts = [grid(x_axis, y_axis), labels("distance from the training cameras", "PSNR gain, dB")]
    parts.append(level(y_axis.at(0.0)))
    for distance, gain, band, name in points:
        title = f"{name}: {written(gain, 2, signed=True)} dB at distance {distance:.2f} ({band})"
        parts.append(marker(band, x_axis.at(distance), y_axis.at(gain), title))
    return svg(parts, "PSNR gain of each test view against its distance from the training cameras")


def loss_curves(history: Sequence[dict]) -> Markup | None:
    """Training loss over steps per arm, on a logarithmic scale, averaged in bins; None with fewer than two records."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for arm in [*ARMS, *sorted({str(record.get("arm")) for record in history} - set(ARMS))]:
        points = sorted(
            (step, loss)
            for record in history
            if record.get("arm") == arm and (step := number(record, "step")) is not None
            if (loss := number(record, "loss")) is not None and loss > 0
        )
        if len(points) > 1:
            curves[arm] = _binned(points)
    if not curves:
        return None
    every = [point for points in curves.values() for point in points]
    x_axis = Axis([x for x, _ in every], *FRAME.x_px, include=0.0)
    y_axis = Axis([math.log10(y) for _, y in every], *FRAME.y_px, logarithmic=True)
    parts = [grid(x_axis, y_axis), labels("training step", "training loss")]
    for arm, points in curves.items():
        path = " ".join(f"{x_axis.at(x):.1f},{y_axis.at(math.log10(y)):.1f}" for x, y in points)
        parts.append(f'<polyline class="curve arm-{_css(arm)}" points="{path}"><title>{escape(arm)}</title></polyline>')
    return svg(parts, "Training loss over steps per arm: " + ", ".join(curves))


def marker(band: str | None, x: float, y: float, title: str, size: float = 5.0) -> str:
    """A mark whose colour and shape both tell the band: circle near, square mid, triangle far."""
    kind = band if band in BANDS else "none"
    half = size * 0.88
    shape = {
        "mid": f'<rect x="{x - half:.1f}" y="{y - half:.1f}" width="{2 * half:.1f}" height="{2 * half:.1f}"',
        "far": f'<polygon points="{x:.1f},{y - size * 1.2:.1f} {x + size * 1.1:.1f},{y + size * 0.8:.1f} '
        f'{x - size * 1.1:.1f},{y + size * 0.8:.1f}"',
    }.get(kind, f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size:.1f}"')
    tag = shape[1 : shape.index(" ")]
    return f'{shape} class="mark band-{kind}"><title>{escape(title)}</title></{tag}>'


class Axis:
    """A linear scale from values to pixels with round ticks."""

    def __init__(self, values, start_px, end_px, include=None, logarithmic=False, whole=False, margin=0.05):
        low, high = min(values), max(values)
        if include is not None:
            low, high = min(low, include), max(high, include)
        if high - low < 1e-9:
            low, high = low - 0.5, high + 0.5
        pad = 0 if whole else (high - low) * margin
        self.low = low - (0 if include is not None and low == include else pad)
        self.high = high + pad
        self.start_px, self.end_px, self.logarithmic = start_px, end_px, logarithmic
        self.whole = whole

    def at(self, value: float) -> float:
        return self.start_px + (value - self.low) / (self.high - self.low) * (self.end_px - self.start_px)

    def ticks(self) -> list[tuple[float, str]]:
        return log_ticks(self.low, self.high) if self.logarithmic else linear_ticks(self.low, self.high, self.whole)


def linear_ticks(low: float, high: float, whole: bool = False, num: int = 5) -> list[tuple[float, str]]:
    """About ``num`` round values in a range, with their labels; ``whole`` leaves out fractions."""
    step = _round_step((high - low) / num)
    if whole:
        step = max(1.0, math.ceil(step))
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [(k * step, written(k * step, digits) if k else "0") for k in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Logarithms of 1, 2 and 5 times powers of ten in a range of base-10 logarithms, with the labels of the values."""
    steps = [m * 10.0**k for k in range(math.floor(low), math.ceil(high) + 1) for m in (1, 2, 5)]
    return [(math.log10(v), f"{v:g}") for v in steps if low - 1e-9 <= math.log10(v) <= high + 1e-9]


def _round_step(about: float) -> float:
    power = 10.0 ** math.floor(math.log10(about))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= about * 0.999)


def grid(x_axis: Axis, y_axis: Axis, frame: Frame = FRAME) -> str:
    """Horizontal lines and the labels of both axes."""
    parts = []
    for value, label in y_axis.ticks():
        y = y_axis.at(value)
        parts.append(level(y, frame, "grid"))
        parts.append(f'<text class="tick" x="{frame.left - 7}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    for value, label in x_axis.ticks():
        place = f'x="{x_axis.at(value):.1f}" y="{frame.height - frame.bottom + 17}"'
        parts.append(f'<text class="tick" {place} text-anchor="middle">{label}</text>')
    return "".join(parts)


def level(y: float, frame: Frame = FRAME, kind: str = "zero") -> str:
    """A horizontal line across the plot."""
    left, right = frame.x_px
    return f'<line class="{kind}" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'


def labels(x_label: str, y_label: str, frame: Frame = FRAME) -> str:
    """What the axes mean, below and beside the plot."""
    below = f'x="{sum(frame.x_px) / 2}" y="{frame.height - 4}"'
    beside = f'transform="translate(12 {sum(frame.y_px) / 2}) rotate(-90)"'
    return (
        f'<text class="axis" {below} text-anchor="middle">{escape(x_label)}</text>'
        f'<text class="axis" {beside} text-anchor="middle">{escape(y_label)}</text>'
    )


def _binned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    size = math.ceil(len(points) / MAX_POINTS)
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]


def _css(arm: str) -> str:
    return arm if arm in ARMS else "other"


def svg(parts: Sequence[str], description: str, width: float = FRAME.width, height: float = FRAME.height) -> Markup:
    return Markup(
        f'<svg class="chart" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(description)}">'
        f"{''.join(parts)}</svg>"
    )
