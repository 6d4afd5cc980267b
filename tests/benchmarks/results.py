"""The table of results, ``docs/results.md``: ``python -m tests.benchmarks.results [CAPTURE ...]`` (``make study``).

Runs the default loop on every capture with every seed, and beside it the plain recipe of 3DGS, the earlier default and
the default without each of its levers. Finished runs are kept in ``--out``, so that the same command resumes; the page
is written again after each, from all that are there. No figure in it is typed by hand.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from splatfix.evaluation.results import ARMS as LOOP_ARMS
from splatfix.files import write_text
from splatfix.loop import LoopConfig, run_loop
from splatfix.process import using_threads
from splatfix.sweep.settings import apply
from splatfix.views import BANDS
from tests.benchmarks.study import SCENES, Row, fit_once

PAGE = Path(__file__).parents[2] / "docs/results.md"
PUBLISHED = Path(__file__).parent / "published.yaml"
PLAIN = "3DGS"
FIT_ARMS = (PLAIN, "earlier", "without decay", "without growth", "slow growth", "10,000 stereo points")
LEVERS = FIT_ARMS[2:]
COLUMNS = (PLAIN, "earlier", *LOOP_ARMS)
# kept for figures; what was seen on test photos of some of them is said on the page
KEPT = ("colosseum", "entry", "flowerpot", "fruit", "greatwall", "sceaux", "statue", "tankard", "terrace")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("captures", nargs="*", type=Path, default=[SCENES / name for name in KEPT])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--arms", nargs="*", choices=FIT_ARMS, default=list(FIT_ARMS), help="fits beside the loop")
    parser.add_argument("--size-px", type=int, default=320)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/results"), help="folder for the figures of each run")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--only-page", action="store_true", help="write the page from the figures that are there")
    options = parser.parse_args()
    with using_threads(options.threads):
        for seed in [] if options.only_page else options.seeds:  # all captures with one seed before the next
            for path in options.captures:
                for arm in options.arms:
                    fit_once(path, arm, seed, options.size_px, options.out)
                row = loop_once(path, seed, options.size_px, options.out)
                print(f"{path.name}, seed {seed}: gain {row['psnr']['all']['gain']:+.2f} dB", flush=True)
                write_text(options.page, make_page(read_rows(options.out), options.size_px, options.threads))
    write_text(options.page, make_page(read_rows(options.out), options.size_px, options.threads))


def loop_once(path: Path, seed: int, size_px: int, out: Path, settings: Mapping[str, Any] | None = None) -> Row:
    """Run the loop on a capture, and keep the figures of its arms; or read those of an earlier call.

    ``settings`` differ from the defaults, by their dotted names.
    """
    file = out / f"{path.name}_{size_px}_loop_{seed}.json"
    if file.is_file():
        return json.loads(file.read_text())
    config = apply(LoopConfig(video=False, seed=seed), {"views.size_px": size_px, **(settings or {})}, source="loop")
    with tempfile.TemporaryDirectory() as folder:
        results = run_loop(path, folder, config)
    columns = [*LOOP_ARMS, "gain"]
    row = {
        **{"capture": path.name, "arm": "loop", "seed": seed, "size_px": size_px},
        **{
            metric: {
                band: {column: results.summary.value(band, column, metric) for column in columns}
                for band in ("all", *BANDS)
            }
            for metric in ("psnr", "ssim")
        },
        **{"seconds": sum(results.seconds.values()), "num_test": len(results.views)},
        "gaussians": results.num_gaussians,
    }
    write_text(file, json.dumps(row))
    return row


def read_rows(out: Path) -> list[Row]:
    """Read the figures of all runs that are kept."""
    return [json.loads(file.read_text()) for file in sorted(out.glob("*.json"))]


def make_page(rows: Sequence[Row], size_px: int, threads: int = 1) -> str:
    """The page of the results, from the figures of runs at this size."""
    rows = [row for row in rows if row["size_px"] == size_px]
    figures = collect(rows)
    captures = sorted({row["capture"] for row in rows if row["arm"] == "loop"})
    seeds = sorted({row["seed"] for row in rows if row["arm"] == "loop"})
    of_seeds = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    chosen_on = sorted({*captures} - {*KEPT})
    on_others = f" {', '.join(chosen_on)} may have been used for choices or training." if chosen_on else ""
    head = [
        "# Results",
        "",
        "Made by `make study`, from the exported splats on test photos that no fit used: six photos, longest side "
        f"{size_px} px, the defaults, {of_seeds}, {threads} CPU thread"
        f"{'s' if threads > 1 else ''}. No restorer was trained on the groups of the captures that are kept for "
        f"figures ({', '.join(KEPT)}), and settings are chosen on others; but the decay of opacities and the rule that "
        "adds Gaussians were seen on test photos of some of them too, statue, sceaux and fruit among them, and the "
        "limit on the size of Gaussians mends what went wrong on entry "
        f"([how](results-and-speed.md#captures-that-the-weights-have-not-seen)).{on_others} `3DGS` is the plain recipe "
        "(Kerbl et al. 2023: points of the six photos, growth, degree 3); `earlier` is the default before opacities "
        "decayed; `before`, `control`, `after`, `post` and `gain` are explained in "
        "[Reading a report](reading-a-report.md).",
        "",
        "A figure is the mean over the seeds; ± is its standard deviation over them. In the last row it is the "
        "standard error of the mean over captures.",
        "",
    ]
    if not captures:
        return "\n".join([*head, "No run has been measured yet.", ""])
    parts = [
        ["## PSNR, in dB", "", *_psnr_table(figures, captures), ""],
        ["## Gain by distance from the training cameras", "", *_band_table(figures, captures), ""],
        ["## What each lever of the sparse fit is worth", "", *_lever_table(figures, captures), ""],
        ["## Beside published figures", "", *_published_table(yaml.safe_load(PUBLISHED.read_text())), ""],
    ]
    return "\n".join(head + [line for part in parts for line in part])


Figures = Mapping[tuple[str, str], Mapping[int, float]]  # by (capture, name), the value with each seed


def collect(rows: Sequence[Row]) -> dict[tuple[str, str], dict[int, float]]:
    """Figures by capture and name: ``before``, ``gain``, ``gain near``, ``SSIM gain``, ``seconds``, or a fit's arm."""
    figures: dict[tuple[str, str], dict[int, float]] = {}

    def add(row: Row, name: str, value: float | None) -> None:
        if value is not None:
            figures.setdefault((row["capture"], name), {})[row["seed"]] = value

    for row in rows:
        if row["arm"] != "loop":
            add(row, row["arm"], row["psnr"])
            continue
        for column, value in row["psnr"]["all"].items():
            add(row, column, value)
        for band in BANDS:
            add(row, f"gain {band}", row["psnr"][band]["gain"])
        add(row, "SSIM gain", row["ssim"]["all"]["gain"])
        add(row, "seconds", row["seconds"])
    return figures


def _psnr_table(figures: Figures, captures: Sequence[str]) -> list[str]:
    names = [*COLUMNS, "gain", "SSIM gain", "seconds"]
    lines = _head(["capture", *names])
    for capture in captures:
        cells = []
        for name in names:
            values = list(figures.get((capture, name), {}).values())
            digits = {"SSIM gain": 3, "seconds": 0}.get(name, 2)
            cells.append(_cell(values, digits, signed="gain" in name, spread=name != "seconds"))
        lines.append(_line([capture, *cells]))
    means = []
    for name in names:
        values = [float(np.mean(list(found.values()))) for c in captures if (found := figures.get((c, name)))]
        digits = {"SSIM gain": 3, "seconds": 0}.get(name, 2)
        means.append(_mean_cell(values, digits, signed="gain" in name, num=len(captures)))
    return [*lines, _line([f"mean of {len(captures)}", *means])]


def _band_table(figures: Figures, captures: Sequence[str]) -> list[str]:
    names = [f"gain {band}" for band in BANDS]
    lines = _head(["capture", *BANDS])
    for capture in captures:
        lines.append(
            _line([capture, *(_cell([*figures.get((capture, n), {}).values()], 2, signed=True) for n in names)])
        )
    per_capture = [[float(np.mean([*figures[c, n].values()])) for c in captures if (c, n) in figures] for n in names]
    return [*lines, _line(["mean", *(_mean_cell(each, 2, signed=True, num=len(captures)) for each in per_capture)])]


def _lever_table(figures: Figures, captures: Sequence[str]) -> list[str]:
    """How much better `before` is than an arm, paired by capture and seed."""
    lines = _head(["against", "before is better by", "worst capture", "best capture", "captures"])
    for arm in (PLAIN, "earlier", *LEVERS):
        paired = {}
        for capture in captures:
            ours, theirs = figures.get((capture, "before"), {}), figures.get((capture, arm), {})
            both = sorted(set(ours) & set(theirs))
            if both:
                paired[capture] = float(np.mean([ours[seed] - theirs[seed] for seed in both]))
        if not paired:
            continue
        worst, best = min(paired, key=paired.__getitem__), max(paired, key=paired.__getitem__)
        extremes = [f"{name} {paired[name]:+.2f}" for name in (worst, best)]
        lines.append(
            _line([arm, _mean_cell([*paired.values()], 2, signed=True, num=len(paired)), *extremes, len(paired)])
        )
    return lines


def _published_table(published: Mapping[str, Any]) -> list[str]:
    scenes = [name for name in published["rows"][3] if name not in ("method", "pretrained", "photos")]
    lines = [
        f"{', '.join(published['metrics'])}. Protocol: {published['protocol']}. Source: {published['source']}. "
        f"{' '.join(published['notes'].split())}",
        "",
        *_head(["method", "pretrained networks", "photos", *scenes]),
    ]
    for row in published["rows"]:
        cells = [
            " / ".join(f"{value:.{3 if k else 2}f}" for k, value in enumerate(row.get(scene, ()))) for scene in scenes
        ]
        lines.append(_line([row["method"], "yes" if row["pretrained"] else "no", row["photos"], *cells]))
    return lines


def _cell(values: Sequence[float], digits: int, *, signed: bool = False, spread: bool = True) -> str:
    if not values:
        return ""
    text = f"{np.mean(values):{'+' if signed else ''}.{digits}f}"
    return f"{text} ± {np.std(values, ddof=1):.{digits}f}" if spread and len(values) > 1 else text


def _mean_cell(values: Sequence[float], digits: int, *, signed: bool, num: int) -> str:
    """A mean over captures with its standard error; empty unless all captures have a value."""
    if len(values) < num:
        return ""
    text = f"{np.mean(values):{'+' if signed else ''}.{digits}f}"
    return f"{text} ± {np.std(values, ddof=1) / np.sqrt(len(values)):.{digits}f}" if len(values) > 1 else text


def _head(cells: Sequence[object]) -> list[str]:
    return [_line(cells), "|" + "---|" * len(cells)]


def _line(cells: Sequence[object]) -> str:
    return f"| {' | '.join(str(cell) for cell in cells)} |"


if __name__ == "__main__":
    main()
