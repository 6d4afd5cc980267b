"""Restorers on pairs that none of them was trained on: ``python -m tests.benchmarks.restorers PAIRS RESTORER...``.

For each restorer (the folder of a checkpoint) the gain over the render by scene, at half and at the whole correction,
where the render was good and where it was bad, and the error that it expects against the one that is found. Groups that
any of them was trained on are left out. ``--chosen`` names the groups by which weights or strength were chosen: the
means of the others had no influence on any choice, and the calibration is fitted on the chosen and shown on the others.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from splatfix.files import write_json, write_text
from splatfix.pairs import Pair, read_manifest
from splatfix.process import using_threads
from splatfix.restoration.nafnet import SHIPPED_WEIGHTS
from splatfix.restoration.nafnet.architecture import use_local_pooling
from splatfix.restoration.nafnet.checkpoint import load_checkpoint
from splatfix.training.data import validation_pairs
from splatfix.training.nafnet import repair
from splatfix.training.validation import Measured, measure_pair, summarize

HALF, WHOLE = "0.5", "1.0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pairs", help="output of splatfix generate")
    parser.add_argument("restorers", nargs="+", help="folders of checkpoints; shipped for the shipped weights")
    parser.add_argument("--chosen", nargs="*", default=[], metavar="GROUP", help="groups by which anything was chosen")
    parser.add_argument("--per-scene", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/restorers"))
    options = parser.parse_args()
    places = {place: SHIPPED_WEIGHTS if place == "shipped" else Path(place) for place in options.restorers}
    trained = {
        group for place in places.values() for group in load_checkpoint(place)[1].provenance.get("train_groups", ())
    }
    shards = [shard for shard in read_manifest(options.pairs) if shard.group not in trained]
    if not shards:
        parser.error(f"{options.pairs}: all of its groups were trained on")
    pairs = validation_pairs(options.pairs, shards, options.per_scene)
    chosen = {shard.scene for shard in shards if shard.group in options.chosen}
    with using_threads(options.threads):
        measured = {name: measure_restorer(place, pairs) for name, place in places.items()}
    groups = {shard.scene: shard.group for shard in shards}
    report = {name: describe(each, pairs, chosen, groups) for name, each in measured.items()}
    write_json(options.out / "restorers.json", report)
    write_text(options.out / "restorers.md", text := make_tables(report))
    print(text)


def measure_restorer(place: Path, pairs: Sequence[Pair]) -> list[Measured]:
    """Repair all pairs with a checkpoint, as the loop does, and measure them."""
    network, config = load_checkpoint(place)
    use_local_pooling(network.network, config.train_patch_px)
    return [measure_pair(partial(repair, network), pair) for pair in pairs]


def describe(
    measured: Sequence[Measured], pairs: Sequence[Pair], chosen: set[str], groups: dict[str, str]
) -> dict[str, Any]:
    """Summaries over parts of the pairs, and the calibration of the chosen scenes with the deciles of the others."""

    def part(belongs: Callable[[Pair], bool]) -> dict[str, Any] | None:
        some = [one for one, pair in zip(measured, pairs, strict=True) if belongs(pair)]
        return summarize(some, groups) if some else None

    parts = {
        "all": part(lambda _: True),
        "chosen": part(lambda pair: pair.scene in chosen),
        "others": part(lambda pair: pair.scene not in chosen),
        "single fits": part(lambda pair: not pair.fit.endswith("m")),
        "means of fits": part(lambda pair: pair.fit.endswith("m")),
    }
    return {"chosen_scenes": sorted(chosen), **{name: summary for name, summary in parts.items() if summary}}


def make_tables(report: dict[str, Any]) -> str:
    """Gains by scene and by part for each restorer, and the calibration."""
    names = list(report)
    columns = [f"{name}, {share}" for name in names for share in ("half", "all")]
    lines = [f"| scene | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    marked = set(report[names[0]]["chosen_scenes"])
    for scene in report[names[0]]["all"]["by_strength"][WHOLE]["by_scene"]:
        cells = [
            f"{report[name]['all']['by_strength'][strength]['by_scene'][scene]['psnr_gain']:+.2f}"
            for name in names
            for strength in (HALF, WHOLE)
        ]
        lines.append(f"| {scene}{' *' if scene in marked else ''} | {' | '.join(cells)} |")
    for part in ("chosen", "others", "single fits", "means of fits", "all"):
        if part in report[names[0]]:
            lines.append(f"| {part} | {' | '.join(_gains(report[name][part]) for name in names)} |")
    for field, what in (("psnr_gain_good", "where the render was good"), ("psnr_gain_bad", "where it was bad")):
        gains = [
            report[name]["all"]["by_strength"][strength].get(field) for name in names for strength in (HALF, WHOLE)
        ]
        cells = ["" if gain is None else f"{gain:+.2f}" for gain in gains]  # None: no view has enough such pixels
        lines.append(f"| {what} | {' | '.join(cells)} |")
    for name in names:
        lines += ["", *_calibration(name, report[name])]
    return "\n".join(lines) + "\n"


def _gains(summary: dict[str, Any]) -> str:
    """Mean gains over scenes at both strengths, as two cells, each with the worst scene."""
    cells = []
    for strength in (HALF, WHOLE):
        gains = summary["by_strength"][strength]
        worst = min(each["psnr_gain"] for each in gains["by_scene"].values())
        cells.append(f"{gains['psnr_gain']:+.2f} (from {worst:+.2f}), SSIM {gains['ssim_gain']:+.4f}")
    return " | ".join(cells)


def _calibration(name: str, parts: dict[str, Any]) -> list[str]:
    """Expected, calibrated and found errors; fitted on the chosen scenes where there are some, shown on the others."""
    fitted = (parts.get("chosen") or parts["all"]).get("calibration")
    shown = (parts.get("others") or parts["all"]).get("calibration")
    if not fitted or not shown:
        return []
    rows = [
        (row["expected"], fitted["scale"] * row["expected"] ** fitted["power"], row["found"])
        for row in shown["deciles"]
    ]
    off = fmean(abs(calibrated / found - 1) for _, calibrated, found in rows)
    lines = [
        f"{name}: calibrated error {fitted['scale']:.2f} * expected ** {fitted['power']:.2f}, off by "
        f"{off:.0%} in the mean.",
        "",
        "| expected | calibrated | found |",
        "|---|---|---|",
    ]
    return lines + [f"| {' | '.join(f'{value:.4f}' for value in row)} |" for row in rows]


if __name__ == "__main__":
    main()
