"""The run folder of a training: what is in it, and which settings may change when it is resumed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from splatfix import storage
from splatfix.config import to_public_tree
from splatfix.process import log
from splatfix.restoration.checkpoint import CARD, CONFIG
from splatfix.runs import Input, Run, open_run, read_run
from splatfix.tracking import TRACKING_FILES
from splatfix.training.config import TrainConfig
from splatfix.training.data import Data

RESTORER, STATE, HISTORY, PAGE = "restorer", "state.pt", "history.json", "report.html"
MAY_CHANGE = (  # settings that a resumed run may change
    *("steps", "max_seconds", "validate_every", "accumulate", "compile", "strength", "device", "workers", "tracking"),
    *("data.num_workers", "data.validation_pairs", "data.credits"),
)
TRAINING_FILES = (  # glob patterns of all that a training writes, besides MLflow's database
    *(STATE, HISTORY, PAGE, "previews/step_*.png", "tensorboard/events.out.tfevents.*", *TRACKING_FILES),
    *(
        f"{folder}/{name}"
        for folder in (RESTORER, ".restorer.old", ".restorer.partial")
        for name in ("*.safetensors", CONFIG, CARD)
    ),
)


def open_training(out: Path, config: TrainConfig, data: Data, *, fresh: bool = False) -> Run:
    """Start or resume the run in a folder (`runs.open_run`); a finished one, if its length has changed.

    Raises:
        ValueError: the folder holds another run; nothing in it has changed then.
    """
    earlier, tree = read_run(out), to_public_tree(config)
    settings = tree if earlier is None else earlier["settings"]
    run = open_run(
        out,
        config,
        command="train",
        inputs={"shards": Input(path=storage.absolute(data.url), digest=data.digest)},
        may_change=MAY_CHANGE,
        files=TRAINING_FILES,
        is_complete=all(settings.get(name) == tree[name] for name in ("steps", "max_seconds")),
        fresh=fresh,
    )
    if run.is_finished:
        log.info("%s: this run is finished", run.path)
    return run


def is_first_process() -> bool:
    """Whether this is the first of the processes that torchrun has started, or the only one."""
    return int(os.environ.get("RANK", 0)) == 0


def fixed_settings(config: TrainConfig, data: Data) -> dict[str, Any]:
    """The settings that must not change when a run is resumed, and the digest of the shards."""
    tree = to_public_tree(config)
    for name in MAY_CHANGE:
        *groups, last = name.split(".")
        place = tree
        for group in groups:
            place = place[group]
        del place[last]
    return tree | {"shards": data.digest}
