"""Records of a training: segments in ``history.json`` and MLflow, the best validation, provenance of checkpoints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, median
from typing import Any

import splatfix
from splatfix.config import to_tree
from splatfix.messages import without_secrets
from splatfix.runs import source_commit
from splatfix.tracking import Tracker
from splatfix.training.config import TrainConfig
from splatfix.training.data import Data
from splatfix.training.state import TrainingState


def segment_record(
    state: TrainingState, steps: Sequence[dict[str, float]], validation: dict[str, Any] | None
) -> dict[str, Any]:
    """The record of a segment that has just ended, from the numbers of its steps."""
    return {
        "step": state.step,
        "seconds": state.seconds,
        "loss": fmean(numbers["loss"] for numbers in steps),
        "step_seconds": median(numbers["seconds"] for numbers in steps),
        "data_wait": sum(n["data_seconds"] for n in steps) / sum(n["seconds"] for n in steps),
        "validation": validation,
    }


def flatten_record(record: dict[str, Any]) -> dict[str, float]:
    """Flat metrics of a record for MLflow: its numbers, and those of its validation at the best strength."""
    flat = {name: record[name] for name in ("loss", "step_seconds", "data_wait")}
    if (validation := record["validation"]) is not None:
        best = validation["by_strength"][str(validation["strength"])]
        flat |= {f"validation.{name}": validation[name] for name in ("psnr_gain", "ssim_gain", "strength")}
        for kind in ("by_band", "by_scene"):
            for name, gains in best[kind].items():
                flat |= {f"validation.{kind}.{name}.{gain}": value for gain, value in gains.items()}
    return flat


def format_record(record: dict[str, Any]) -> dict[str, str]:
    """Loss and gain of a record, for the progress bar."""
    gain = record["validation"] and record["validation"]["psnr_gain"]
    return {"loss": f"{record['loss']:.4f}", **({"gain": f"{gain:+.2f} dB"} if gain is not None else {})}


def update_best(state: TrainingState, record: dict[str, Any]) -> bool:
    """Whether to save these weights: the best validation so far (noted in the state), or unvalidated the last ones."""
    if record["validation"] is None:
        return state.step >= state.planned
    gain = record["validation"]["psnr_gain"]
    if not math.isfinite(gain) or (state.best is not None and gain <= state.best):
        return False
    state.best = gain
    return True


def describe_weights(
    config: TrainConfig, data: Data, record: dict[str, Any], earlier: dict[str, Any]
) -> dict[str, Any]:
    """The provenance of weights, for their checkpoint. ``earlier``: that of the weights that training started from."""
    seen = data.provenance()
    if config.start_from is not None:
        both: dict[str, Any] = {
            name: sorted({*seen[name], *earlier.get(name, [])}) for name in ("train_groups", "train_scenes")
        }
        both["credits"] = {**earlier.get("credits", {}), **seen["credits"]}
        seen |= both | {"start_from": {name: earlier.get(name) for name in ("step", "seconds", "num_pairs")}}
    return {
        "version": splatfix.__version__,
        "commit": source_commit(),
        "step": record["step"],
        "seconds": round(record["seconds"]),
        "seed": config.seed,
        **seen,
        "validation": record["validation"],
    }


def tracked_settings(config: TrainConfig, data: Data) -> dict[str, Any]:
    """Settings, data and version of a training, for trackers."""
    settings = {name: value for name, value in to_tree(config).items() if name not in ("workers", "tracking")}
    shards = without_secrets(str(data.url))
    return settings | {"shards": shards, "shards_digest": data.digest, "version": splatfix.__version__}


def track_settings(tracker: Tracker, config: TrainConfig, data: Data) -> None:
    """Log settings, data and version to MLflow."""
    tracker.params(tracked_settings(config, data))
    tracker.tags({"commit": source_commit() or "unknown", "command": "train"})
