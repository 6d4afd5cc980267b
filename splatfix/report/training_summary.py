"""The end of a training for the terminal: its gain, where the weights and the records are, and the next command."""

from __future__ import annotations

import textwrap
from pathlib import Path
from statistics import stdev
from typing import Any

from splatfix import storage
from splatfix.files import read_json
from splatfix.mirror import open_mirror
from splatfix.report.terminal import WIDTH, next_command
from splatfix.report.wording import format_count
from splatfix.restoration import is_name
from splatfix.restoration.checkpoint import CONFIG, RUN_FOLDER, find_checkpoint
from splatfix.tracking import page_of
from splatfix.training.config import TENSORBOARD

NOT_VALIDATED = "gain:    not measured, since no group of captures is held out (data.validation_groups)"


def describe_training(out: Path | str) -> str:
    """The gain over the renders with its spread over held-out groups, and where the weights and the records are."""
    validation, strength = _read_validation(out)
    lines = [NOT_VALIDATED] if validation is None else describe_gain(validation)
    lines.append(f"weights: {storage.join(out, RUN_FOLDER)} ({strength:.0%} of the correction is applied)")
    folder = open_mirror(out).path
    if (page := page_of(folder)) is not None:
        lines.append(f"MLflow:  {page}")
    if (folder / TENSORBOARD).is_dir():
        lines.append(f"also:    tensorboard --logdir {folder / TENSORBOARD}")
    return "\n".join(lines)


def describe_gain(validation: dict[str, Any]) -> list[str]:
    """The gain of a validation, and how it spreads over the groups."""
    best = validation["by_strength"][str(validation["strength"])]
    gains = {name: row["psnr_gain"] for name, row in (best.get("by_group") or best["by_scene"]).items()}
    psnr, ssim = validation["psnr_gain"], validation["ssim_gain"]
    scenes = format_count(len(best["by_scene"]), "held-out scene")
    lines = [f"gain:    {psnr:+.2f} dB PSNR, {ssim:+.4f} SSIM over the renders, on {scenes}"]
    if len(gains) > 1:
        worst, top = min(gains, key=gains.__getitem__), max(gains, key=gains.__getitem__)
        num_worse = sum(gain < 0 for gain in gains.values())
        lines.append(
            f"groups:  {gains[worst]:+.2f} ({worst}) to {gains[top]:+.2f} dB ({top}), standard deviation "
            f"{stdev(gains.values()):.2f}; {num_worse} of {len(gains)} worse than the renders"
        )
    if psnr <= 0:
        lines.append("It does not improve held-out scenes: train it longer, or on pairs of more captures.")
    return [
        textwrap.fill(line, WIDTH, subsequent_indent=" " * 9, break_on_hyphens=False, break_long_words=False)
        for line in lines
    ]


def command_after_training(out: Path | str, shards: Path | str, steps: int) -> str:
    """The next command: a loop with the restorer, or twice the steps where it does not help."""
    validation, _ = _read_validation(out)
    if validation is not None and validation["psnr_gain"] <= 0:
        return next_command("train", "--shards", shards, "--out", out, "--steps", 2 * steps)
    return next_command("loop", "CAPTURE", "--restorer", restorer_of(out), "--out", "runs/mine")


def restorer_of(out: Path | str) -> str:
    """What ``--restorer`` takes for a training: its folder or URL; ``restorer`` in it if a restorer has that name."""
    return storage.join(out, RUN_FOLDER) if is_name(str(out)) else str(out)


def _read_validation(out: Path | str) -> tuple[dict[str, Any] | None, float]:
    """The validation of the saved weights, None where they were not validated, and their strength."""
    tree = read_json(find_checkpoint(out, [CONFIG]) / CONFIG)
    return tree["provenance"].get("validation"), tree["strength"]
