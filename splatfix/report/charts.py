"""Charts of a run: gain over distance, losses, and the gains of compared runs; loss and gains of a training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from splatfix.evaluation.results import ARMS, ViewResult
from splatfix.report.load import RunFiles
from splatfix.report.svg import (
    band_mark,
    css_color,
    cut,
    mark,
    new_axes,
    page_style,
    pixel,
    span,
    to_svg,
    use_log_ticks,
)
from splatfix.report.wording import format_number, view_gain
from splatfix.views import BANDS

MAX_POINTS = 240
REPAIRED = "after, repaired views"
LOSS_LINES = (*ARMS, REPAIRED)
BAR_PX, GROUP_GAP_PX = 13.0, 14.0
MAX_LABEL, CHARACTER_PX = 34, 6.7  # the longest name beside the bars, and the room of a letter


@page_style
def gain_scatter(views: Sequence[ViewResult]) -> Markup | None:
    """PSNR gain of each test view against its distance from the training cameras; None with fewer than two views."""
    measured = [
        (view, view.distance, gain)
        for view in views
        if view.distance is not None and (gain := view_gain(view)) is not None
    ]
    if len(measured) < 2:
        return None
    axes = new_axes()
    axes.set(xlabel="distance from the training cameras", ylabel="PSNR gain, dB")
    axes.set_xlim(0, span([0.0, *(distance for _, distance, _ in measured)])[1])
    axes.set_ylim(span([0.0, *(gain for _, _, gain in measured)]))
    axes.axhline(0, color=css_color("soft"), linewidth=1.2)
    marks = []
    for view, distance, gain in measured:
        title = f"{view.name}: {format_number(gain, 2, signed=True)} dB at distance {distance:.2f} ({view.band})"
        marks.append(band_mark(view.band, *pixel(axes, distance, gain), title))
    return to_svg(axes, "PSNR gain of each test view against its distance from the training cameras", marks)


@page_style
def loss_curves(history: Sequence[dict]) -> Markup | None:
    """Training loss over steps, a line per arm and kind of view (`LOSS_LINES`); None with fewer than two records.

    On a logarithmic scale, averaged in bins.
    """
    curves = {name: _binned(losses) for name in LOSS_LINES if len(losses := _losses(history, name)) > 1}
    if not curves:
        return None
    axes = new_axes()
    use_log_ticks(axes, "y")
    axes.set(xlabel="training step", ylabel="training loss")
    for name, losses in curves.items():
        dashes, on_top = ("--", 3) if name == "control" else (":" if name == REPAIRED else "-", 2)
        color = css_color("after" if name == REPAIRED else name)
        axes.plot(*zip(*losses, strict=True), color=color, linestyle=dashes, zorder=on_top)
    axes.set_xlim(left=0)
    return to_svg(axes, "Training loss over steps per arm: " + ", ".join(curves))


def loss_lines(history: Sequence[dict]) -> list[str]:
    """The lines that `loss_curves` draws."""
    return [name for name in LOSS_LINES if len(_losses(history, name)) > 1]


def _losses(history: Sequence[dict], line: str) -> list[tuple[float, float]]:
    """Steps and losses of a line; photos and repaired views alternate at random, so that one line would zigzag."""
    arm, repaired = ("after", True) if line == REPAIRED else (line, False)
    return sorted(
        (step, loss)
        for record in history
        if record.get("arm") == arm and bool(record.get("repaired")) == repaired
        if (step := _number(record, "step")) is not None
        if (loss := _number(record, "loss")) is not None and loss > 0
    )


@page_style
def gain_bars(runs: Sequence[RunFiles]) -> Markup | None:
    """PSNR gain per band and run as bars; None where no run has a gain."""
    gains = [[run.results.summary.value(band, "gain", "psnr") for band in BANDS] for run in runs]
    known = [gain for of_run in gains for gain in of_run if gain is not None]
    if not known:
        return None
    group = len(BANDS) + GROUP_GAP_PX / BAR_PX
    labels = [cut(run.label, MAX_LABEL) for run in runs]
    room = CHARACTER_PX * max(map(len, labels)) + 14
    axes = new_axes(height_px=BAR_PX * group * len(runs), margins=(room, 46.0, 2.0, 2.0))
    axes.grid(visible=False)
    low, high = min(0.0, *known), max(0.0, *known)
    axes.set_xlim(low - 0.2 * (high - low) if low < 0 else 0.0, high if high > low else 1.0)  # room for their figures
    axes.set_ylim(group * len(runs) - 0.5, -0.5)
    axes.set_xticks([])
    axes.set_yticks([k * group + 1 for k in range(len(runs))], labels)
    for k, of_run in enumerate(gains):
        for j, (band, gain) in enumerate(zip(BANDS, of_run, strict=True)):
            bars = axes.barh(k * group + j, gain or 0.0, height=0.85, color=css_color(band))
            axes.bar_label(bars, [format_number(gain, 2, signed=True)], padding=4, color=css_color("soft"))
    axes.axvline(0, color=css_color("soft"), linewidth=1.2)
    return to_svg(axes, "PSNR gain by band of each run")


@page_style
def training_loss(steps: Mapping[int, float], segments: Mapping[int, float]) -> Markup | None:
    """Loss of single steps of a training, and its mean over each segment, by step; None with fewer than two points."""
    curves = [sorted((float(x), y) for x, y in values.items() if y > 0) for values in (steps, segments)]
    if all(len(curve) < 2 for curve in curves):
        return None
    axes = new_axes()
    use_log_ticks(axes, "y")
    axes.set(xlabel="training step", ylabel="training loss")
    for curve, color, width in zip(curves, ("before", "after"), (1.0, 2.0), strict=True):
        if len(curve) > 1:
            axes.plot(*zip(*_binned(curve), strict=True), color=css_color(color), linewidth=width)
    axes.set_xlim(left=0)
    return to_svg(axes, "Training loss over steps: single steps, and means of segments")


@page_style
def validation_gains(mean: Mapping[int, float], scenes: Mapping[str, Mapping[int, float]], best: int) -> Markup | None:
    """PSNR gain on held-out scenes over the steps of a training, with a mark at its best step; None without any."""
    if not mean:
        return None
    axes = new_axes()
    axes.set(xlabel="training step", ylabel="PSNR gain, dB")
    known = [*mean.values(), *(gain for gains in scenes.values() for gain in gains.values())]
    axes.set_ylim(span([0.0, *known]))
    axes.axhline(0, color=css_color("soft"), linewidth=1.2)
    for gains in scenes.values():
        axes.plot(*zip(*sorted(gains.items()), strict=True), color=css_color("before"), linewidth=1)
    axes.plot(*zip(*sorted(mean.items()), strict=True), color=css_color("after"))
    axes.set_xlim(0, 1.03 * max(mean))
    marks = []
    for step, gain in sorted(mean.items()):
        title = f"step {step}: {format_number(gain, 2, signed=True)} dB"
        shape, size = ("diamond", 6.0) if step == best else ("circle", 3.0)
        marks.append(mark(shape, "trial best" if step == best else "trial", *pixel(axes, step, gain), size, title))
    return to_svg(axes, "PSNR gain on held-out scenes over steps: the mean, and each scene", marks)


def _number(record: dict, key: str) -> float | None:
    """A number in a record of ``history.json``; None where it is missing or null."""
    value = record.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _binned(losses: list[tuple[float, float]]) -> list[tuple[float, float]]:
    size = math.ceil(len(losses) / MAX_POINTS)
    groups = [losses[i : i + size] for i in range(0, len(losses), size)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]
