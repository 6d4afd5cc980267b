"""Checkpoints of fits: a killed attempt is continued, and makes the same bytes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from splatfix import files, storage
from splatfix.pairs import checkpoints
from splatfix.pairs.checkpoints import CHECKPOINTS, checkpoint_url, remove_checkpoints
from splatfix.pairs.ground_truth import DenseConfig
from splatfix.pairs.index import read_fit
from splatfix.pairs.recipes import Recipe
from splatfix.pairs.sources import find_sources
from splatfix.pairs.tasks import Task, plan_tasks
from splatfix.pairs.worker import PairWorker, WorkerSettings
from splatfix.sample import sample_path

STEPS = 12
RECIPE = Recipe(
    size_px=48, num_train=(3, 3), num_fits=(2, 2), steps=STEPS, completed=(1.0, 1.0), num_random=(50, 100), max_views=2
)


def make_fit(out: str) -> Task:
    """Make the first fit of the sample capture with a new worker."""
    recipes = {"photos": RECIPE}
    (task,) = plan_tasks(find_sources([sample_path()], {}), recipes, 1, 0)
    PairWorker(WorkerSettings(out, 0, "cpu", recipes, DenseConfig())).run(task, None)
    return task


def test_what_a_killed_process_left_of_a_checkpoint_is_removed(tmp_path: Path) -> None:
    url = checkpoint_url(str(tmp_path), "scene-f000")
    storage.write_bytes(url, b"x")
    with subprocess.Popen(["true"]) as dead:
        dead.wait()
    left = tmp_path / CHECKPOINTS / f".scene-f000.pt.{files._machine()}-{dead.pid}-0123.partial"
    left.touch()
    remove_checkpoints(str(tmp_path), {"scene-f000"})
    assert not (tmp_path / CHECKPOINTS).exists()


@pytest.mark.slow
def test_a_killed_fit_is_resumed_with_the_same_bytes(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(checkpoints, "SAVE_SECONDS", float("inf"))
    task = make_fit(str(tmp_path / "whole"))
    assert not (tmp_path / "whole" / CHECKPOINTS).exists()  # a short fit writes none
    monkeypatch.setattr(checkpoints, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(checkpoints, "MAX_SAVE_SHARE", float("inf"))
    real_write, num_writes, out = storage.write_bytes, 0, f"memory://{tmp_path.name}"

    def write(url: str, content: bytes) -> None:
        nonlocal num_writes
        num_writes += CHECKPOINTS in url
        if num_writes > STEPS + 5:  # in the second of two fits
            raise KeyboardInterrupt
        real_write(url, content)

    with monkeypatch.context() as killed:
        killed.setattr(storage, "write_bytes", write)
        with pytest.raises(KeyboardInterrupt):
            make_fit(out)
    assert storage.exists(checkpoint_url(out, task.stem))
    make_fit(out)
    whole, resumed = read_fit(tmp_path / "whole", task.stem), read_fit(out, task.stem)
    assert (whole.record["resumed_at_step"], resumed.record["resumed_at_step"]) == (None, 5)
    assert resumed.shards == whole.shards and resumed.shards[0].samples > 0  # with equal digests
    assert not storage.exists(checkpoint_url(out, task.stem))


@pytest.mark.parametrize("content", [b"", b"PK broken"])
def test_a_damaged_checkpoint_is_ignored_and_left_ones_are_removed(tmp_path: Path, content: bytes) -> None:
    out = str(tmp_path)
    for stem in ("tankard-f000", "other-f000"):
        storage.write_bytes(checkpoint_url(out, stem), content)
    assert checkpoints.FitCheckpoints(checkpoint_url(out, "tankard-f000")).resumed_step is None
    remove_checkpoints(out, {"tankard-f000"})
    assert storage.list_names(f"{out}/{CHECKPOINTS}") == ["other-f000.pt"]
    remove_checkpoints(out)
    assert list(tmp_path.iterdir()) == []
