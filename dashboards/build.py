"""Write the Grafana dashboards beside this file from the panels listed here: ``python dashboards/build.py``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def select(metric: str, **labels: str) -> str:
    """Return the selector of a metric of splatfix, of the chosen runs; labels are matched as regular expressions."""
    matches = "".join(f', {label}=~"{value}"' for label, value in labels.items())
    return f'ray_splatfix_{metric}{{run=~"$run"{matches}}}'


@dataclass(frozen=True)
class Panel:
    """A panel.

    Attributes:
        title, description: as shown; the description appears when the pointer is on the title.
        unit: of Grafana, such as ``s`` or ``percentunit``.
        queries: the legend of each query, and its expression.
        is_number: show the last value as a number, instead of a chart over time.
        least: lower end of the axis; None: as the values are.
        stacked: draw the series on top of each other.
    """

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    description: str = ""
    is_number: bool = False
    least: float | None = 0
    stacked: bool = False


def number(title: str, unit: str, expression: str, description: str = "") -> Panel:
    """A number for each run."""
    return Panel(title, unit, (("{{run}}", expression),), description, is_number=True, least=None)


def ratio_of_rates(over: str, under: str, window: str) -> str:
    """Return an expression for a ratio of two counters' rates, by run."""
    return f"sum by (run) (rate({over}[{window}])) / sum by (run) (rate({under}[{window}]))"


TIME_LEFT = number(
    "Time left", "s", f"max by (run) ({select('seconds_left')})", "As the progress bar in the job's log estimates it."
)
NODES = (
    Panel(
        "GPU use by node",
        "percent",
        (("{{ip}}", "avg by (ip) (ray_node_gpus_utilization)"),),
        "Of the whole cluster, as Ray measures it; empty without GPUs.",
    ),
    Panel(
        "GPU memory by node",
        "decmbytes",
        (("{{ip}}", "sum by (ip) (ray_node_gram_used)"),),
        "Of the whole cluster, as Ray measures it; empty without GPUs.",
    ),
    Panel(
        "CPU use by node",
        "percent",
        (("{{ip}}", "avg by (ip) (ray_node_cpu_utilization)"),),
        "Of the whole cluster, as Ray measures it.",
    ),
    Panel(
        "Memory by node",
        "percentunit",
        (("{{ip}}", "sum by (ip) (ray_node_mem_used) / sum by (ip) (ray_node_mem_total)"),),
        "Of the whole cluster, as Ray measures it.",
    ),
)

GENERATE = (
    TIME_LEFT,
    number("Fits left", "short", f"max by (run) ({select('fits_left')})"),
    number("Workers ready", "short", f"max by (run) ({select('workers')})"),
    number(
        "Fits in quarantine",
        "short",
        f"sum by (run) ({select('fits_total', outcome='failed')})",
        "Fits that failed for good, since Ray has started; quarantine.json in the output has the reasons.",
    ),
    Panel(
        "Fits a minute",
        "short",
        (("{{outcome}}", f"60 * sum by (outcome) (rate({select('fits_total')}[5m]))"),),
        "Fits that were done or failed for good (in quarantine), and attempts that were retried.",
    ),
    Panel(
        "Pairs a minute",
        "short",
        (
            ("committed", f"60 * sum(rate({select('pairs_total')}[5m]))"),
            ("left out", f"60 * sum(rate({select('pairs_filtered_total')}[5m]))"),
        ),
        "Views are left out where the render covers too little of them.",
    ),
    Panel(
        "Failed attempts a minute",
        "short",
        (("{{kind}}", f"60 * sum by (kind) (rate({select('failed_attempts_total')}[5m]))"),),
        "content: the capture cannot be used; machine: it is tried again, best on another node.",
    ),
    Panel(
        "Workers",
        "short",
        (
            ("ready", f"sum({select('workers')})"),
            ("with a task", f"sum({select('workers')} * {select('workers_busy_ratio')})"),
        ),
    ),
    Panel("Fits left", "short", (("{{run}}", f"max by (run) ({select('fits_left')})"),)),
    Panel("Time left", "s", (("{{run}}", f"max by (run) ({select('seconds_left')})"),)),
    Panel(
        "Duration of a fit's stages",
        "s",
        tuple(
            (
                f"{{{{stage}}}}, {name}",
                f"histogram_quantile({share}, sum by (le, stage) (rate({select('stage_seconds_bucket')}[15m])))",
            )
            for name, share in (("median", 0.5), ("9 of 10", 0.9))
        ),
        "A wait for photos of seconds means that workers wait for the captures' disk or bucket.",
    ),
    Panel("Shards written", "Bps", (("bytes a second", f"sum(rate({select('shard_bytes_total')}[5m]))"),)),
    Panel("Free space for the output", "bytes", (("{{run}}", f"min by (run) ({select('output_free_bytes')})"),)),
    Panel("Free disk by node", "bytes", (("{{ip}}", "min by (ip) (ray_node_disk_free)"),)),
    *NODES,
)

TRAIN = (
    TIME_LEFT,
    number("Steps left", "short", f"max by (run) ({select('train_steps_left')})"),
    number("Loss", "short", f"max by (run) ({select('train_loss')})"),
    number("Best gain", "dB", f"max by (run) ({select('train_best_gain_db')})", "Of PSNR on held-out groups."),
    Panel("Loss", "short", (("{{run}}", f"max by (run) ({select('train_loss')})"),), "Of single steps."),
    Panel(
        "Gain on held-out groups",
        "dB",
        (
            ("{{run}}", f"max by (run) ({select('train_gain_db')})"),
            ("{{run}}, best", f"max by (run) ({select('train_best_gain_db')})"),
        ),
        "Of PSNR over the render, at the best strength.",
        least=None,
    ),
    Panel("Crops a second", "short", (("{{run}}", f"sum by (run) (rate({select('train_crops_total')}[2m]))"),)),
    Panel(
        "Seconds of a step",
        "s",
        (
            (
                "{{run}}",
                ratio_of_rates(
                    select("train_seconds_total", part="step|wait for data"), select("train_steps_total"), "2m"
                ),
            ),
        ),
        "With the wait for its batch.",
    ),
    Panel(
        "What the time is spent on",
        "percentunit",
        (
            (
                "{{part}}",
                f"sum by (part) (rate({select('train_seconds_total')}[5m])) "
                f"/ ignoring (part) group_left sum(rate({select('train_seconds_total')}[5m]))",
            ),
        ),
        "Of the main process. Much waiting for data: raise data.num_workers.",
        stacked=True,
    ),
    Panel("Learning rate", "sci", (("{{run}}", f"max by (run) ({select('train_learning_rate')})"),)),
    Panel(
        "GPU memory of the main process",
        "bytes",
        (("{{run}}", f"max by (run) ({select('train_gpu_memory_bytes')})"),),
        "Held by torch; empty on CPUs.",
    ),
    Panel(
        "Processes",
        "short",
        (("{{run}}", f"max by (run) ({select('train_processes')})"),),
        "That Ray Train was asked for; empty where workers.num is 0.",
    ),
    *NODES,
)

SWEEP = (
    TIME_LEFT,
    number("Trials left", "short", f"sum by (run) ({select('sweep_trials', state='waiting|running')})"),
    number("Trials running", "short", f"max by (run) ({select('sweep_trials', state='running')})"),
    number("Best so far", "short", f"max by (run) ({select('sweep_best')})", "The first objective, over the default."),
    Panel("Trials", "short", (("{{state}}", f"sum by (state) ({select('sweep_trials')})"),), stacked=True),
    Panel(
        "Best so far",
        "short",
        (("{{run}}, {{objective}}", f"max by (run, objective) ({select('sweep_best')})"),),
        "The first objective of the best complete trial.",
        least=None,
    ),
    Panel(
        "Rounds an hour",
        "short",
        (("{{run}}", f"3600 * sum by (run) (rate({select('sweep_rounds_total')}[1h]))"),),
        "The mean of the last hour: at the start of a sweep it rises for an hour.",
    ),
    Panel(
        "Failed attempts an hour",
        "short",
        (("{{kind}}", f"3600 * sum by (kind) (rate({select('sweep_failed_attempts_total')}[1h]))"),),
        "content: the trial's settings fail; machine: its worker died, and it is tried again.",
    ),
    *NODES,
)


def build_dashboard(uid: str, title: str, panels: tuple[Panel, ...], runs: str) -> dict[str, Any]:
    """Build a dashboard; ``runs`` is a metric of splatfix whose label ``run`` lists the runs to choose from."""
    built, x, y, row_height = [], 0, 0, 0
    for number_, panel in enumerate(panels, start=1):
        width, height = (6, 4) if panel.is_number else (12, 8)
        if x + width > 24 or (x and height != row_height):
            x, y = 0, y + row_height
        built.append(_build_panel(panel, number_, {"h": height, "w": width, "x": x, "y": y}))
        x, row_height = x + width, height
    query = f"label_values(ray_splatfix_{runs}, run)"
    return {
        "title": title,
        "uid": uid,
        "tags": ["splatfix"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "timezone": "browser",
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {
            "list": [
                {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
                {
                    "name": "run",
                    "label": "Run",
                    "type": "query",
                    "datasource": SOURCE,
                    "definition": query,
                    "query": {"query": query, "refId": "run"},
                    "refresh": 2,
                    "sort": 1,
                    "includeAll": True,  # of the runs with that metric, not of all
                    "multi": True,
                    "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
                },
            ]
        },
        "links": [
            {"title": "splatfix", "type": "dashboards", "tags": ["splatfix"], "asDropdown": True, "keepTime": True}
        ],
        "panels": built,
    }


def _build_panel(panel: Panel, number_: int, place: dict[str, int]) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit}
    if panel.least is not None:
        defaults["min"] = panel.least
    options: dict[str, Any]
    if panel.is_number:
        defaults["color"] = {"mode": "thresholds"}
        defaults["thresholds"] = {"mode": "absolute", "steps": [{"color": "text", "value": None}]}
        options = {"reduceOptions": {"calcs": ["lastNotNull"]}, "textMode": "auto", "graphMode": "none"}
    else:
        fill, mode = (40, "normal") if panel.stacked else (0, "none")
        defaults["custom"] = {"lineWidth": 2, "fillOpacity": fill, "stacking": {"mode": mode}, "spanNulls": 60000}
        options = {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    return {
        "id": number_,
        "type": "stat" if panel.is_number else "timeseries",
        "title": panel.title,
        "description": panel.description,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": [
            {"refId": chr(ord("A") + i), "datasource": SOURCE, "expr": expression, "legendFormat": legend}
            for i, (legend, expression) in enumerate(panel.queries)
        ],
    }


DASHBOARDS = {
    "generate.json": build_dashboard("splatfix-generate", "splatfix: generation of pairs", GENERATE, "workers"),
    "train.json": build_dashboard("splatfix-train", "splatfix: training", TRAIN, "train_steps_total"),
    "sweep.json": build_dashboard("splatfix-sweep", "splatfix: sweeps", SWEEP, "sweep_trials"),
}


if __name__ == "__main__":
    for name, dashboard in DASHBOARDS.items():
        (FOLDER / name).write_text(json.dumps(dashboard, indent=1) + "\n")
