"""A sweep that takes seconds: the shipped sample at 32 px, a few steps; and a search without any loop."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from splatfix.config import build_config
from splatfix.sample import sample_path
from splatfix.sweep.config import SweepConfig
from splatfix.sweep.record import TrialRecord, read_record

TREE: dict[str, Any] = {
    "captures": [str(sample_path())],
    "loop": {
        "restorer": "warp",
        "views": {"size_px": 32, "num_train": 3, "max_test": 4},
        "initial": {"num_random": 100},
        "fit": {"steps": 20, "densify": {"max_gaussians": 500}},
        "choose": {"enabled": False},
        "repair": {"rounds": 2, "views": 3, "steps": 5, "siblings": 1},
    },
    "space": {
        "repair.weight": {"loguniform": [0.1, 2.0]},
        "repair.probability": {"uniform": [0.2, 0.8]},
        "restorer": {"choice": ["warp", "identity"]},
        "repair.outward": {"uniform": [0.0, 1.0], "when": {"restorer": "warp"}},
    },
    "search": {"trials": 6, "startup": 2, "parallel": 2},
    "reruns": 0,
    "workers": {"num": 0},
    "tracking": {"enabled": False},
}


def tree(**changes: Any) -> dict[str, Any]:
    """The config with some of its groups changed: ``search={"trials": 3}`` changes that field alone."""
    changed = dict(TREE)
    for name, value in changes.items():
        merge = isinstance(value, dict) and name != "space" and isinstance(changed.get(name), dict)
        changed[name] = {**changed[name], **value} if merge else value
    return changed


def small(**changes: Any) -> SweepConfig:
    return build_config(SweepConfig, tree(**changes), source="test")


def write_config(path: Path, **changes: Any) -> Path:
    path.write_text(yaml.safe_dump(tree(**changes)))
    return path


def records(sweep: Path) -> list[TrialRecord]:
    found = [read_record(folder) for folder in sorted((sweep / "trials").iterdir())]
    return [record for record in found if record is not None]


def without_times(record: TrialRecord) -> TrialRecord:
    """A trial without all that depends on the clock."""
    rounds = tuple(
        replace(
            round_,
            seconds=None,
            time_ms=0,
            cases={name: replace(figures, seconds=None) for name, figures in round_.cases.items()},
        )
        for round_ in record.rounds
    )
    return replace(record, rounds=rounds, elapsed=None)


SPACE = {
    "repair.weight": {"loguniform": [0.1, 2.0]},
    "repair.probability": {"uniform": [0.0, 1.0]},
    "restorer": {"choice": ["warp", "identity"]},
    "repair.outward": {"uniform": [0.0, 1.0], "when": {"restorer": "warp"}},
}


def gain_of(values: dict[str, Any], round_number: int) -> float:
    """A landscape with its top at weight 0.5, probability 0.3 and warp."""
    gain = 1 - math.log(values["repair.weight"] / 0.5) ** 2 - (values["repair.probability"] - 0.3) ** 2
    return gain - (values["restorer"] == "identity") - 0.5 / round_number
