"""A tiny training with two held-out groups, for the tests of its page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate.state import AcceleratorState, PartialState

from splatfix.pairs import write_shards
from splatfix.training.state import TrainingState
from splatfix.training.train import train
from tests.restoration.scenery import pair
from tests.training.small import CONFIG

SCENES = {  # and their groups
    "<castle>": "castle",
    "moat": "castle",
    "mug": "mug",
    "tankard": "tankard",
    "fountain": "fountain",
}


def make_shards(folder: Path) -> Path:
    """Write pairs of the `SCENES`."""
    pairs = [pair(k, scene) for scene in SCENES for k in range(4)]
    folder.mkdir(parents=True)
    write_shards(pairs, folder, samples_per_shard=4)
    return folder


def make_training(
    folder: Path, *, on_segment: Callable[[TrainingState], object] = lambda _: None, **changes: Any
) -> TrainingState | None:
    """Train for a second into ``folder/run``, on shards in ``folder/shards``; None where ``on_segment`` interrupts."""
    shards = folder / "shards"
    if not shards.is_dir():
        make_shards(shards)
    data = replace(CONFIG.data, validation_groups=("castle", "mug"), validation_pairs=1, groups=dict(SCENES))
    config = replace(CONFIG, **{"steps": 12, "data": data, **changes})
    try:
        return train(shards, folder / "run", config, on_segment=on_segment)
    except KeyboardInterrupt:
        return None
    finally:
        reset_accelerator()


def reset_accelerator() -> None:
    """Let the next training of this process set up its own accelerator."""
    AcceleratorState._reset_state()
    PartialState._reset_state()
