"""Settings of the sparse fit or of the rounds, compared: ``python -m tests.benchmarks.study [CAPTURE ...]``.

Each arm is the default with some fields changed. Every fit is measured on the test photos of its capture; the table
shows the differences to the first arm, paired by capture and seed. Finished fits are kept in ``--out``, so that the
same command resumes. ``--rounds`` compares settings of the loop's rounds by PSNR of ``after`` and by gain; loops that
differ in nothing else share their fits.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from splatfix.captures import Capture, open_capture
from splatfix.evaluation.measure import measure_views, summarize
from splatfix.files import write_text
from splatfix.fit import prepare_run
from splatfix.loop import LoopConfig, repair_rounds
from splatfix.loop.cache import SharedFits
from splatfix.process import using_threads
from splatfix.restoration import open_restorer
from splatfix.splats.scene import SparseScene, load_scene, start_fit
from splatfix.splats.train import advance
from splatfix.sweep.settings import apply
from splatfix.views import Split, ViewsConfig, make_split

SCENES = Path(os.environ.get("SPLATFIX_SCENES", "../shared/scenes"))
EARLIER = {  # the default before opacities decayed
    "fit.opacity_decay": 1.0,
    "fit.densify.strategy": "none",
    "initial.num_stereo": 10_000,
    "initial.pixels_per_point": 4.0,
}
ARMS: dict[str, dict[str, Any]] = {
    "earlier": EARLIER,
    "now": {},
    "flat minima": {"fit.flat_radius": 0.3},
    "without decay": {"fit.opacity_decay": 1.0},
    "without growth": {"fit.densify.strategy": "none"},
    "growth everywhere": {"fit.densify.strategy": "default"},
    "slow growth": {"fit.densify.rates_growing": 1.0},
    "10,000 stereo points": {name: EARLIER[name] for name in ("initial.num_stereo", "initial.pixels_per_point")},
    "3DGS": {  # Kerbl et al. 2023: SfM points, growth, degree 3, all Gaussians at each step
        **{"fit.opacity_decay": 1.0, "fit.dropout": 0.0, "fit.densify.strategy": "default"},
        **{"initial.sources": ("points", "triangulated", "random"), "initial.sh_degree": 3},
    },
}
ROUND_ARMS: dict[str, dict[str, Any]] = {
    "now": {},
    "4 rounds": {"repair.rounds": 4},
    "800 steps": {"repair.steps": 800},
    "48 views": {"repair.views": 48},
    "no step outwards": {"repair.outward": 0.0},
    "fewer repaired steps": {"repair.probability": 0.3},
    "more repaired steps": {"repair.probability": 0.7},
    "half weight": {"repair.weight": 0.5},
    "double weight": {"repair.weight": 2.0},
    "4 siblings": {"repair.siblings": 4},
    "no siblings": {"repair.siblings": 0},
    "trust by spread": {"repair.spread_scale": 0.1},
    "identity": {"restorer": "identity"},
}
Row = Mapping[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("captures", nargs="*", type=Path, default=sorted(SCENES.glob("*/")))
    parser.add_argument("--rounds", action="store_true", help="compare settings of the rounds")
    parser.add_argument("--arms", nargs="+", help=f"of {', '.join(ARMS)}; with --rounds of {', '.join(ROUND_ARMS)}")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--size-px", type=int, default=320)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/study"), help="folder for the figures of each fit")
    options = parser.parse_args()
    known = ROUND_ARMS if options.rounds else ARMS
    options.arms = options.arms or (list(known) if options.rounds else ["earlier", "now"])
    if unknown := [arm for arm in options.arms if arm not in known]:
        parser.error(f"--arms {unknown[0]!r}: wanted some of {', '.join(known)}")
    measure = repair_once if options.rounds else fit_once
    rows: list[Row] = []
    with using_threads(options.threads):
        for path in options.captures:
            for seed in options.seeds:
                for arm in options.arms:
                    rows.append(measure(path, arm, seed, options.size_px, options.out))
                    print(" ".join(f"{name}={value}" for name, value in rows[-1].items()), flush=True)
    table = make_table(rows, options.arms)
    if options.rounds:
        gains = [{**row, "psnr": row["gain"]} for row in rows]
        table = f"PSNR of after:\n\n{table}\nGain:\n\n{make_table(gains, options.arms)}"
    write_text(options.out / "table.md", table)
    print(table)


def fit_once(path: Path, arm: str, seed: int, size_px: int, out: Path) -> Row:
    """Fit a capture with the settings of an arm, and measure it; or read the figures of an earlier call."""
    file = out / f"{path.name}_{size_px}_{arm.replace(' ', '_')}_{seed}.json"
    if file.is_file():
        return json.loads(file.read_text())
    config = apply(LoopConfig(), {"views.size_px": size_px, **ARMS[arm]}, source=arm)
    capture, split, scene = open_scene(path, config.views)
    start = time.perf_counter()
    fit = start_fit(scene, config.fit, config.initial, seed=seed)
    advance(fit, scene.views(), config.fit.steps, seed=seed)
    seconds = time.perf_counter() - start
    summary = summarize(measure_views(capture, split, {"before": fit.splat()}, reasons={}))
    row = {
        **{"capture": path.name, "arm": arm, "seed": seed, "size_px": size_px},
        **{metric: round(float(summary.value("all", "before", metric) or 0), 4) for metric in ("psnr", "ssim")},
        **{"gaussians": len(fit.params["means"]), "seconds": round(seconds, 1)},
        "grows": fit.config.grows,
    }
    write_text(file, json.dumps(row))
    return row


@lru_cache(maxsize=1)
def open_scene(path: Path, views: ViewsConfig) -> tuple[Capture, Split, SparseScene]:
    """Open a capture, once for all arms: their fits then share its stereo, too, where they start alike."""
    capture = open_capture(path, longest_side_px=views.size_px)
    split = make_split(capture, views)
    return capture, split, load_scene(capture, split.train_ids, torch.device("cpu"))


def repair_once(path: Path, arm: str, seed: int, size_px: int, out: Path) -> Row:
    """Run the rounds on a capture with the settings of an arm, and measure ``after``; or read earlier figures."""
    file = out / f"{path.name}_{size_px}_rounds_{arm.replace(' ', '_')}_{seed}.json"
    if file.is_file():
        return json.loads(file.read_text())
    config = apply(LoopConfig(video=False, seed=seed), {"views.size_px": size_px, **ROUND_ARMS[arm]}, source=arm)
    with tempfile.TemporaryDirectory() as folder:
        run, capture, split, scene, device = prepare_run(path, folder, config, command="study", files=("*",))
        fits = SharedFits(out / "shared", run, scene, config)
        before, control = fits.before(config.fit.steps), fits.control(config.fit.steps)
        siblings = [sibling.splat() for sibling in fits.siblings(config.fit.steps)]
        start = time.perf_counter()
        restorer = open_restorer(config.restorer, device=device)
        after = [round_.fit for round_ in repair_rounds(run, scene, before, siblings, restorer, config)][-1]
        seconds = time.perf_counter() - start
        arms = {"before": before.splat(), "control": control.splat(), "after": after.splat()}
        summary = summarize(measure_views(capture, split, arms, reasons={}))
    row = {
        **{"capture": path.name, "arm": arm, "seed": seed, "size_px": size_px},
        **{metric: round(float(summary.value("all", "after", metric) or 0), 4) for metric in ("psnr", "ssim")},
        "gain": round(float(summary.value("all", "gain", "psnr") or 0), 4),
        **{"gaussians": len(after.params["means"]), "seconds": round(seconds, 1)},
        "grows": after.config.grows,
    }
    write_text(file, json.dumps(row))
    return row


def make_table(rows: Sequence[Row], arms: Sequence[str]) -> str:
    """A table in Markdown: the first arm, the change by each other one with its spread over seeds, and means."""
    head = ["capture", arms[0], *(f"{arm} (spread)" for arm in arms[1:]), "SSIM", "Gaussians", "seconds"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    changes: dict[str, list[float]] = {arm: [] for arm in arms}
    for name in dict.fromkeys(row["capture"] for row in rows):
        mine = {arm: [row for row in rows if row["capture"] == name and row["arm"] == arm] for arm in arms}
        cells = [f"{name}{' (grows)' if mine[arms[-1]][0]['grows'] else ''}", f"{mean(mine[arms[0]], 'psnr'):.2f}"]
        for arm in arms[1:]:
            paired = [b["psnr"] - a["psnr"] for a, b in zip(mine[arms[0]], mine[arm], strict=True)]
            changes[arm].append(float(np.mean(paired)))
            spread = f" ({np.std(paired, ddof=1):.2f})" if len(paired) > 1 else ""
            cells.append(f"{np.mean(paired):+.2f}{spread}")
        last = mine[arms[-1]]
        cells.append(f"{mean(last, 'ssim') - mean(mine[arms[0]], 'ssim'):+.3f}")
        for key in ("gaussians", "seconds"):
            cells.append(f"{mean(mine[arms[0]], key):,.0f} -> {mean(last, key):,.0f}")
        lines.append(f"| {' | '.join(cells)} |")
    means = [f"{np.mean(changes[arm]):+.2f} (from {min(changes[arm]):+.2f})" for arm in arms[1:]]
    lines.append(f"| mean of {len(lines) - 2} | | {' | '.join(means)} | | | |")
    return "\n".join(lines) + "\n"


def mean(rows: Sequence[Row], key: str) -> float:
    return float(np.mean([row[key] for row in rows]))


if __name__ == "__main__":
    main()
