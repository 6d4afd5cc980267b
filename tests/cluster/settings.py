"""The settings of ``configs/*_rehearsal.yaml``, and pairs to train on."""

from __future__ import annotations

from pathlib import Path

from splatfix.config import read_yaml
from splatfix.pairs import write_shards
from tests.conftest import ROOT
from tests.restoration.scenery import pair

CAPTURES = ("first", "second", "third")


def config_path(command: str) -> Path:
    """The config of a command for small jobs."""
    return ROOT / "configs" / f"{command}_rehearsal.yaml"


FITS_PER_CAPTURE: int = read_yaml(config_path("generate"))["fits_per_capture"]
NUM_TRIALS: int = read_yaml(config_path("sweep"))["search"]["trials"]


def write_pairs(url: str) -> None:
    """Write shards with five pairs of each of four scenes."""
    write_shards([pair(i, scene) for scene in ("a", "b", "c", "d") for i in range(5)], url, samples_per_shard=4)
