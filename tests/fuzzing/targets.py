"""What is mutated: files that splatfix reads from others, and how each is opened."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from splatfix.captures import check_photos, open_capture
from splatfix.cli import main
from splatfix.config import load_config
from splatfix.files import write_json
from splatfix.gaussians import Splat, read_splat, write_splat
from splatfix.loop import LoopConfig
from splatfix.pairs import read_manifest, sample_pairs
from splatfix.pairs.sources import find_sources
from splatfix.pairs.stream import Balance
from splatfix.pairs.verify import verify
from splatfix.report.dataset import write_dataset_page
from splatfix.restoration import open_restorer
from splatfix.restoration.nafnet.checkpoint import CheckpointConfig, save_checkpoint
from splatfix.splats.checkpoints import read_checkpoint, write_checkpoint
from splatfix.views import read_split
from tests.captures.writers import WRITERS, gaussians
from tests.pairs.folders import commit_two_fits
from tests.report.make_run import make_run
from tests.report.make_sweep import make_sweep
from tests.restoration.networks import SMALL, random_network
from tests.restoration.scenery import flawed_view

YAML = """captures: [a, b]
restorer: {name: warp, options: {}}
views:
  num_train: 6
  size_px: 320
fit: &fit
  steps: 100
repair:
  rounds: 2
  weight: 0.5
seed: 3
"""


@dataclass(frozen=True)
class Target:
    """Files of one kind.

    Attributes:
        write: writes them into an empty folder.
        files: patterns of the files that are mutated.
        open: opens them as commands do; it raises, or returns an exit code.
    """

    write: Callable[[Path], object]
    files: tuple[str, ...]
    open: Callable[[Path], int | None]


def _open_capture(folder: Path) -> None:
    capture = open_capture(folder)
    check_photos(capture.views)
    for view in capture.views[:2]:
        photo = view.load()
        assert np.isfinite(view.camera.intrinsics).all() and np.isfinite(view.camera.center).all()
        assert photo.rgb.shape[:2] == (view.camera.height_px, view.camera.width_px)


def _write_ply(folder: Path) -> None:
    write_splat(folder / "after.ply", Splat(gaussians()))


def _open_ply(folder: Path) -> int | None:
    splat = read_splat(folder / "after.ply")
    assert torch.isfinite(splat.gaussians.means).all()
    return main(["export", str(folder / "after.ply"), "--format", "ply", "--out", str(folder / "out.ply")])


def _write_split(folder: Path) -> None:
    WRITERS["transforms"](folder / "capture")
    _write_ply(folder)
    write_json(folder / "split.json", {"train_ids": ["a.png", "b.png"], "test_ids": ["c.png"], "size_px": 32})


def _open_split(folder: Path) -> int | None:
    capture = open_capture(folder / "capture")
    read_split(folder / "split.json", capture)
    return None


def _open_pairs(folder: Path) -> None:
    verify(folder)
    write_dataset_page(str(folder))
    shards = read_manifest(folder)
    next(sample_pairs(folder, shards, seed=0, segment=0, balance=Balance(even_difficulty=True))).conditioning()


def _open_restorer(folder: Path) -> None:
    restorer = open_restorer(folder / "restorer", device="cpu")
    restorer.repair([flawed_view(0)], seed=0)


def _write_lists(folder: Path) -> None:
    for name in ("a", "b"):
        WRITERS["transforms"](folder / name)
    (folder / "loop.yaml").write_text(YAML.partition("\n")[2])
    (folder / "list.yaml").write_text("captures:\n- a\n- {path: b, name: c, group: d}\n")


def _open_lists(folder: Path) -> None:
    load_config(LoopConfig, folder / "loop.yaml")
    find_sources([folder / "list.yaml"], {})


def _write_checkpoint(folder: Path) -> None:
    write_checkpoint(folder / "fit.pt", "fit", {"step": 3, "params": {"means": torch.zeros(20, 3)}})


def _open_checkpoint(folder: Path) -> None:
    read_checkpoint(folder / "fit.pt", "fit", torch.device("cpu"))


TARGETS = {
    **{
        f"capture {kind}": Target(
            write, ("*.json", "**/*.txt", "**/*.bin", "*.npy", "*.ply", "**/*.png"), _open_capture
        )
        for kind, write in WRITERS.items()
    },
    "splat": Target(_write_ply, ("after.ply", "splat.json"), _open_ply),
    "split": Target(_write_split, ("split.json",), _open_split),
    "run": Target(
        lambda folder: make_run(folder / "run"),
        ("run/*.json", "run/config.yaml"),
        lambda folder: main(["report", str(folder / "run"), "--out", str(folder / "page.html")]),
    ),
    "sweep": Target(
        lambda folder: make_sweep(folder / "sweep"),
        ("sweep/*.json",),
        lambda folder: main(["report", str(folder / "sweep"), "--out", str(folder / "page.html")]),
    ),
    "pairs": Target(commit_two_fits, ("*.json", "*.tar"), _open_pairs),
    "restorer": Target(
        lambda folder: save_checkpoint(folder / "restorer", random_network(), CheckpointConfig(network=SMALL)),
        ("restorer/config.json", "restorer/*.safetensors"),
        _open_restorer,
    ),
    "lists": Target(_write_lists, ("*.yaml",), _open_lists),
    "checkpoint": Target(_write_checkpoint, ("fit.pt",), _open_checkpoint),
}


def copy(source: Path, folder: Path) -> Path:
    """Copy the files of a target, so that they can be mutated."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder)
    return folder
