"""Charts of a comparison: the color gain of each frame along the sequence, restorer by restorer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from splatfix.evaluation.drift import Drift
from splatfix.report.compare.results import CompareResults, Entry
from splatfix.report.svg import css_color, new_axes, page_style, span, to_svg

LINE_COLORS = ("accent", "near", "mid", "far", "control", "post", "before")
Lines = dict[str, list[float]]  # by restorer: the gain of each frame, NaN where it is not known


def drift_charts(results: CompareResults) -> list[dict[str, Any]]:
    """Color gain over the test views and over a path, on the first case that has them."""
    keys = [
        {"label": restorer.label, "css": LINE_COLORS[k % len(LINE_COLORS)], "dashed": k >= len(LINE_COLORS)}
        for k, restorer in enumerate(results.restorers)
    ]
    charts = []
    for caption, select, label in (
        ("test views in order, where their renders are good", lambda entry: entry.drift, "test view"),
        ("frames of a path, against the renders", lambda entry: entry.path_drift, "frame of the path"),
    ):
        case, lines = _first_case(results, select)
        if not lines:
            continue
        where = f" ({case})" if len(results.cases) > 1 else ""
        svg = _chart(lines, keys, label)
        charts.append({"svg": svg, "lines": [k for k in keys if k["label"] in lines], "caption": caption + where})
    return charts


def _first_case(results: CompareResults, select: Callable[[Entry], Drift | None]) -> tuple[str, Lines]:
    for case in results.cases:
        lines: Lines = {}
        for restorer in results.restorers:
            entry = next((entry for entry in restorer.entries if entry.case == case.case), None)
            drift = None if entry is None else select(entry)
            if drift is not None and len(drift.frames) > 1:
                lines[restorer.label] = [
                    np.nan if frame.gain is None else float(np.mean(frame.gain)) for frame in drift.frames
                ]
        if lines:
            return case.case, lines
    return "", {}


@page_style
def _chart(lines: Lines, keys: Sequence[dict[str, Any]], label: str) -> Markup:
    axes = new_axes()
    axes.set(xlabel=label, ylabel="color gain")
    known = [value for values in lines.values() for value in values if np.isfinite(value)]
    axes.set_ylim(span([0.98, 1.02, *known]))
    axes.axhline(1, color=css_color("soft"), linewidth=1.2)
    for key in keys:
        if (values := lines.get(key["label"])) is not None:
            style = "--" if key["dashed"] else "-"
            axes.plot(range(1, len(values) + 1), values, color=css_color(key["css"]), linestyle=style, linewidth=1.6)
    return to_svg(axes, f"Color gain of each {label}: " + ", ".join(lines))
