"""Charts as inline SVG.

matplotlib draws axes, lines and bars, in colors that are CSS variables of the page, so that they follow light and dark.
Marks that can be pointed at are separate elements on top, with a title and CSS classes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import matplotlib
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from splatfix.views import BANDS

Margins = tuple[float, float, float, float]  # left, right, top, bottom of the plot, in pixels
UNWANTED = r"<style.*?</style>|<!--.*?-->|(?<=<g) id=\"[^\"]*\"| font-family: [^;\"]*;|\n *"  # of matplotlib's SVG
WIDTH, HEIGHT = 460.0, 280.0
MARGINS: Margins = (54.0, 14.0, 14.0, 40.0)
CHARACTER_PX = 6.4  # of the charts' type, on average
CSS_VARIABLES = (
    *("ink", "soft", "line", "panel", "accent", "near", "mid", "far", "before", "control", "after", "post"),
    *("post", "ramp-5"),
)


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


def pixels(axes: Axes) -> Callable[[float, float], tuple[float, float]]:
    """From data to pixels of the drawing, from its upper left corner. The limits of the axes must be final."""
    height = axes.figure.bbox.height

    def at(x: float, y: float) -> tuple[float, float]:
        right, up = axes.transData.transform((x, y))
        return float(right), float(height - up)

    return at


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


def element(tag: str, css: str, title: str = "", trial: int | None = None, **attributes: object) -> str:
    """An SVG element with CSS classes.

    ``title`` is shown to the pointer; elements of the same ``trial`` light up together on the page of a sweep.
    """
    pairs = {"class": css, **({} if trial is None else {"data-trial": trial}), **attributes}
    listed = " ".join(f'{name.replace("_", "-")}="{escape(str(value))}"' for name, value in pairs.items())
    return f"<{tag} {listed}><title>{escape(title)}</title></{tag}>" if title else f"<{tag} {listed}/>"


def circle(css: str, x: float, y: float, size: float, title: str = "", trial: int | None = None) -> str:
    """A circle as an SVG element."""
    return element("circle", css, title, trial, cx=f"{x:.1f}", cy=f"{y:.1f}", r=f"{size:.1f}")


def polygon(css: str, corners: Sequence[tuple[float, float]], title: str = "", trial: int | None = None) -> str:
    """A polygon as an SVG element."""
    return element("polygon", css, title, trial, points=points(corners))


def points(places: Iterable[tuple[float, float]]) -> str:
    """Places as the ``points`` of an SVG element."""
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


def text(css: str, x: float, y: float, content: str, anchor: str = "start", room: int | None = None) -> str:
    """A text as an SVG element, cut to ``room`` characters; the pointer shows all of it."""
    short = content if room is None else cut(content, room)
    title = f"<title>{escape(content)}</title>" if short != content else ""
    return f'<text class="{css}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(short)}{title}</text>'


def cut(content: str, room: int) -> str:
    """At most so many characters, the last one an ellipsis where something is left out."""
    return content if len(content) <= room else content[: room - 1] + "…"


def band_mark(band: str | None, x: float, y: float, title: str, size: float = 5.0) -> str:
    """A mark whose color and shape both tell the band: circle near, square mid, triangle far."""
    css = f"mark band-{band if band in BANDS else 'none'}"
    if band == "mid":
        left, right, top, bottom = x - 0.88 * size, x + 0.88 * size, y - 0.88 * size, y + 0.88 * size
        return polygon(css, [(left, top), (right, top), (right, bottom), (left, bottom)], title)
    if band == "far":
        left, right, bottom = x - 1.1 * size, x + 1.1 * size, y + 0.8 * size
        return polygon(css, [(x, y - 1.2 * size), (right, bottom), (left, bottom)], title)
    return circle(css, x, y, size, title)
