"""Draw the dashboards without Grafana, from the same queries: ``python dashboards/draw.py http://HOST:9090 --out .``

One PNG for each dashboard, for looking at a run afterwards or for judging the panels; Grafana itself is not needed.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import time
import urllib.parse
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.dates as dates
import matplotlib.pyplot as plt

FOLDER = Path(__file__).parent
NAMES = ("generate", "train", "sweep")
UNITS = {"s": "s", "bytes": "GB", "Bps": "kB/s", "percent": "%", "percentunit": "", "dB": "dB", "decmbytes": "MB"}
SCALES = {"bytes": 1e-9, "Bps": 1e-3}


def ask(url: str, path: str, **parameters: Any) -> list[dict[str, Any]]:
    """Ask Prometheus; return the result of its answer."""
    query = urllib.parse.urlencode(parameters)
    with urllib.request.urlopen(f"{url}/api/v1/{path}?{query}", timeout=30) as answer:
        result = json.load(answer)["data"]["result"]
    assert isinstance(result, list)
    return result


def draw_dashboard(
    url: str, dashboard: dict[str, Any], file: Path, *, start: float, end: float, run: str = ".*", skip: str = "^$"
) -> list[str]:
    """Draw the panels of a dashboard into a PNG; returns the titles of the empty ones.

    Args:
        url: of Prometheus.
        dashboard: as read from its JSON file.
        file: the picture.
        start, end: seconds since the epoch.
        run: regular expression of the runs.
        skip: regular expression of the titles of panels to leave out.
    """
    panels = [panel for panel in dashboard["panels"] if not re.search(skip, panel["title"])]
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    figure = plt.figure(figsize=(11, 0.3 * rows), layout="constrained")
    grid, empty = figure.add_gridspec(rows, 24), []
    runs = _list_runs(url, dashboard, start, end, run)
    for panel in panels:
        place = panel["gridPos"]
        axes = figure.add_subplot(grid[place["y"] : place["y"] + place["h"], place["x"] : place["x"] + place["w"]])
        series = []
        for target in panel["targets"]:
            expression = target["expr"].replace("$run", runs)
            step = max((end - start) / 240, 1)
            for result in ask(url, "query_range", query=expression, start=start, end=end, step=step):
                labels = result["metric"]
                legend = re.sub(r"{{(\w+)}}", lambda match, of=labels: of.get(match[1], ""), target["legendFormat"])
                scale = SCALES.get(panel["fieldConfig"]["defaults"]["unit"], 1.0)
                series.append((legend, [(float(at), scale * float(value)) for at, value in result["values"]]))
        if not series:
            empty.append(panel["title"])
        _draw_panel(axes, panel, series, (start, end))
    figure.suptitle(dashboard["title"], fontsize=11)
    figure.savefig(file, dpi=80)
    plt.close(figure)
    return empty


def _list_runs(url: str, dashboard: dict[str, Any], start: float, end: float, run: str) -> str:
    """The runs to choose from on a dashboard that match, as a regular expression: what Grafana puts for ``$run``."""
    (metric,) = re.findall(r"label_values\((\w+), run\)", dashboard["templating"]["list"][1]["definition"])
    query = f'count by (run) (count_over_time({metric}{{run=~"{run}"}}[{max(int(end - start), 1)}s]))'
    return "|".join(each["metric"]["run"] for each in ask(url, "query", query=query, time=end)) or "none"


def _draw_panel(
    axes: Any, panel: dict[str, Any], series: list[tuple[str, list[tuple[float, float]]]], span: Any
) -> None:
    unit = UNITS.get(panel["fieldConfig"]["defaults"]["unit"], "")
    axes.set_title(f"{panel['title']}{f' ({unit})' if unit else ''}", fontsize=8, loc="left")
    axes.tick_params(labelsize=6)
    if not series:
        axes.text(0.5, 0.5, "no data", ha="center", va="center", color="gray", fontsize=8, transform=axes.transAxes)
        axes.set_axis_off()
    elif panel["type"] == "stat":
        axes.set_axis_off()
        text = "\n".join(f"{values[-1][1]:.4g} {unit}" for _, values in series)
        axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=16, transform=axes.transAxes)
    else:
        times = [[datetime.fromtimestamp(at, UTC) for at, _ in values] for _, values in series]
        bottom: dict[float, float] = {}
        for (legend, values), x in zip(series, times, strict=True):
            y = [value for _, value in values]
            if panel["fieldConfig"]["defaults"]["custom"]["stacking"]["mode"] == "normal":
                below = [bottom.get(at, 0.0) for at, _ in values]
                y = [value + base for value, base in zip(y, below, strict=True)]
                axes.fill_between(x, below, y, alpha=0.3)
                bottom |= {at: value for (at, _), value in zip(values, y, strict=True)}
            axes.plot(x, y, label=legend, linewidth=1.2)
        axes.set_xlim(*(datetime.fromtimestamp(at, UTC) for at in span))
        axes.xaxis.set_major_formatter(dates.DateFormatter("%H:%M:%S" if span[1] - span[0] < 900 else "%H:%M"))
        if panel["fieldConfig"]["defaults"].get("min") == 0:
            heights = [*bottom.values(), *(value for _, values in series for _, value in values)]
            axes.set_ylim(0, 1.25 * max([1e-9, *filter(math.isfinite, heights)]))  # quantiles of nothing are NaN
        axes.legend(fontsize=6, frameon=False, loc="upper left", ncols=3)
        axes.spines[["top", "right"]].set_visible(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prometheus", help="its URL")
    parser.add_argument("--out", type=Path, default=Path(), help="folder of the pictures")
    parser.add_argument("--minutes", type=float, default=60, help="how far back")
    parser.add_argument("--run", default=".*", help="regular expression of the runs")
    arguments = parser.parse_args()
    end = time.time()
    for name in NAMES:
        dashboard, file = json.loads((FOLDER / f"{name}.json").read_text()), arguments.out / f"{name}.png"
        start = end - 60 * arguments.minutes
        empty = draw_dashboard(arguments.prometheus, dashboard, file, start=start, end=end, run=arguments.run)
        print(f"{file}: {f'no data in {empty}' if empty else 'all panels have data'}")


if __name__ == "__main__":
    main()
