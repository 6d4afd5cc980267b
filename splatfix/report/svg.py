"""Charts as inline SVG.

matplotlib draws axes, lines and bars, in colors that are CSS variables of the page, so that they follow light and dark.
Marks that respond to the pointer are separate elements on top, with a title and CSS classes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from splatfix.views import Band

Margins = tuple[float, float, float, float]  # left, right, top, bottom of the plot, in pixels
UNWANTED = r"<style.*?</style>|<!--.*?-->|(?<=<g) id=\"[^\"]*\"| font-family: [^;\"]*;|\n *"  # of matplotlib's SVG
WIDTH, HEIGHT = 460.0, 280.0
MARGINS: Margins = (66.0, 14.0, 14.0, 40.0)
LABEL_PX = 16.0  # right edge of the label of the y axis: clear of tick labels in the larger type of phones
CSS_VARIABLES = (
    *("ink", "soft", "line", "panel", "accent", "near", "mid", "far", "before", "control", "after", "post"),
    "ramp-5",
)
SHAPES = {  # around (0, 0), some 1 in radius
    "circle": "M-1 0a1 1 0 1 0 2 0a1 1 0 1 0 -2 0z",
    "square": "M-.88 -.88h1.76v1.76h-1.76z",
    "triangle": "M0 -1.2l1.1 2h-2.2z",
    "diamond": "M0 -1.2l1.2 1.2l-1.2 1.2l-1.2 -1.2z",
    "below": "M-1 -1h2l-1 1.7z",
    "cross": "M-.9 -.9l1.8 1.8m0 -1.8l-1.8 1.8",
}
BAND_SHAPES: dict[Band | None, str] = {"near": "circle", "mid": "square", "far": "triangle"}


def css_color(variable: str) -> str:
    """A color for matplotlib; `to_svg` replaces it by this CSS variable of the page."""
    return f"#fe00{CSS_VARIABLES.index(variable):02x}"


STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 12,
    "text.color": css_color("ink"),
    "axes.labelcolor": css_color("soft"),
    "axes.formatter.useoffset": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": css_color("line"),
    "grid.linewidth": 1,
    "lines.linewidth": 2,
    "lines.solid_joinstyle": "round",
    **dict.fromkeys((f"axes.spines.{side}" for side in ("left", "right", "top", "bottom")), False),
    **dict.fromkeys(("xtick.major.size", "ytick.major.size"), 0),
    **dict.fromkeys(("xtick.color", "ytick.color"), css_color("soft")),
}


page_style = matplotlib.rc_context(STYLE)  # a decorator of functions that draw; matplotlib creates ticks late


def new_axes(width_px: float = WIDTH, height_px: float = HEIGHT, margins: Margins = MARGINS) -> Axes:
    """Empty axes in a drawing of this size, with horizontal grid lines."""
    left, right, top, bottom = margins
    figure = Figure(figsize=(width_px / 72, height_px / 72), dpi=72)
    figure.subplots_adjust(left / width_px, bottom / height_px, 1 - right / width_px, 1 - top / height_px)
    axes = figure.add_subplot()
    axes.locator_params(nbins=5, steps=[1, 2, 5, 10])
    axes.yaxis.set_label_coords((LABEL_PX - left) / (width_px - left - right), 0.5)
    return axes


def span(values: Iterable[float], margin: float = 0.05) -> tuple[float, float]:
    """The limits of an axis that shows these values, with a margin; never empty."""
    values = list(values)
    low, high = min(values), max(values)
    if high - low < 1e-9:
        return low - 0.5, high + 0.5
    return low - (high - low) * margin, high + (high - low) * margin


def use_log_ticks(axes: Axes, which: str) -> None:
    """Make the ``x`` or ``y`` axis logarithmic, with ticks at 1, 2 and 5 times powers of ten."""
    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def pixel(axes: Axes, x: float, y: float) -> tuple[float, float]:
    """From data to pixels of the drawing, from its upper left corner. The limits of the axes must be final."""
    right, up = axes.transData.transform((x, y))
    return float(right), float(axes.figure.bbox.height - up)


def to_svg(axes: Axes, description: str, marks: Sequence[str] = ()) -> Markup:
    """The drawing, with ``marks`` (SVG elements) on top, as an ``<svg>`` element; the same bytes for the same data."""
    figure, buffer = axes.figure, io.StringIO()
    assert isinstance(figure, Figure)
    with matplotlib.rc_context({"svg.hashsalt": description}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    drawing = buffer.getvalue()
    body = drawing[drawing.index("</metadata>") + len("</metadata>") : drawing.rindex("</svg>")]
    body = re.sub(UNWANTED, "", body, flags=re.DOTALL).replace("xlink:href", "href")
    body = re.sub(r"#fe00(..)", lambda found: f"var(--{CSS_VARIABLES[int(found[1], 16)]})", body)
    return wrap([body, *marks], description, *figure.bbox.size)


def wrap(elements: Iterable[str], description: str, width_px: float, height_px: float) -> Markup:
    """SVG elements as a drawing of this size."""
    return Markup(
        f'<svg class="chart" viewBox="0 0 {width_px:g} {height_px:g}" role="img" aria-label="{escape(description)}">'
        f"{''.join(elements)}</svg>"
    )


def mark(shape: str, css: str, x: float, y: float, size: float, title: str = "", trial: int | None = None) -> str:
    """A mark of one of the `SHAPES`, with CSS classes.

    ``title`` is shown to the pointer; marks and lines of the same ``trial`` light up together on the page of a sweep.
    """
    linked = "" if trial is None else f' data-trial="{trial}"'
    place = f'transform="translate({x:.1f} {y:.1f}) scale({size:.3g})"'
    return f'<path class="{escape(css)}"{linked} {place} d="{SHAPES[shape]}"><title>{escape(title)}</title></path>'


def band_mark(band: Band | None, x: float, y: float, title: str) -> str:
    """The mark of a view; color and shape both tell its band."""
    return mark(BAND_SHAPES.get(band, "circle"), f"mark band-{band}", x, y, 5.0, title)


def key(shape: str, css: str, size: float = 4.5) -> Markup:
    """A mark for a legend."""
    drawn = mark(shape, css, 7, 7, size)
    return Markup(f'<svg class="key" viewBox="0 0 14 14" aria-hidden="true">{drawn}</svg>')


def band_key(band: Band) -> Markup:
    """The mark of a band for a legend."""
    return key(BAND_SHAPES[band], f"mark band-{band}")


def polyline(css: str, places: Iterable[tuple[float, float]]) -> str:
    """A line through places."""
    return f'<polyline class="{css}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in places)}"/>'


def text(css: str, x: float, y: float, content: str, anchor: str = "start", room: int | None = None) -> str:
    """A text as an SVG element, cut to ``room`` characters; the pointer shows all of it."""
    short = content if room is None else cut(content, room)
    title = f"<title>{escape(content)}</title>" if short != content else ""
    return f'<text class="{css}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(short)}{title}</text>'


def cut(content: str, room: int) -> str:
    """At most so many characters, the last one an ellipsis where something is left out."""
    return content if len(content) <= room else content[: room - 1] + "…"
