"""A training whose --out is a URL: each saved state is on the store, and a node with an empty disk resumes it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from splatfix import storage
from splatfix.config import to_tree
from splatfix.files import read_json
from splatfix.lease import hold_lease
from splatfix.mirror import Mirror, open_mirror
from splatfix.training import launch as launching
from splatfix.training.launch import launch
from splatfix.training.train import train
from tests.conftest import ROOT
from tests.training.small import CONFIG
from tests.waiting import wait_for


def test_a_training_resumes_from_the_store(shards: Path, bucket: str, tmp_path: Path, monkeypatch) -> None:
    def kill_after_the_first(*arguments, on_segment, **more):
        def stop(state) -> None:
            on_segment(state)
            raise KeyboardInterrupt

        return train(*arguments, on_segment=stop, **more)

    for node in ("one", "two"):
        (tmp_path / node).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "one"))
    with monkeypatch.context() as patch:
        patch.setattr(launching, "train", kill_after_the_first)
        patch.setattr(Mirror, "push", only_once(Mirror.push))  # a killed process pushes nothing at its end
        with pytest.raises(KeyboardInterrupt):
            launch(shards, f"{bucket}/run", CONFIG)
    assert "finished" not in str(storage.read_bytes(f"{bucket}/run/run.json"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "two"))
    launch(shards, f"{bucket}/run", CONFIG)
    train(shards, tmp_path / "uninterrupted", CONFIG)
    folder = open_mirror(f"{bucket}/run").path
    assert folder.is_relative_to(tmp_path / "two") and "finished" in read_json(folder / "run.json")
    a, b = (torch.load(path / "state.pt", weights_only=True) for path in (tmp_path / "uninterrupted", folder))
    assert all(torch.equal(tensor, b["network"][name]) for name, tensor in a["network"].items())
    assert [r["step"] for r in b["progress"]["history"]] == [3, 6]
    stored = storage.list_tree(f"{bucket}/run")
    assert {"state.pt", "history.json", "run.json", "config.yaml"} <= set(stored)
    assert any(name.startswith("restorer/") and name.endswith(".safetensors") for name in stored)


@pytest.mark.slow
def test_a_killed_driver_is_resumed_on_an_empty_disk(shards: str, bucket: str, tmp_path: Path) -> None:
    run = f"{bucket}/run"
    settings = {**to_tree(CONFIG), "steps": 3000, "validate_every": 1000}
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(settings))

    def start(node: str, *more: str) -> subprocess.Popen[bytes]:
        (tmp_path / node).mkdir()
        command = [sys.executable, "-m", "splatfix", "train", "--shards", shards, "--out", run, *more]
        environment = os.environ | {"TMPDIR": str(tmp_path / node), "SPLATFIX_CACHE": str(tmp_path / node / "cache")}
        with (tmp_path / f"{node}.log").open("wb") as log:
            return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)

    def saved_step() -> int:
        return read_progress(run)[-1]["step"] if storage.exists(f"{run}/history.json") else 0

    first = start("one", "--config", str(tmp_path / "train.yaml"))
    wait_for(lambda: saved_step() >= 6 or first.poll() is not None)
    first.kill()
    assert first.wait() == -signal.SIGKILL
    step = saved_step()
    assert 6 <= step < 3000
    second = start("two", "--steps", str(step + 6))
    assert second.wait(timeout=120) == 0, (tmp_path / "two.log").read_text()
    assert "resuming after step" in (tmp_path / "two.log").read_text()
    assert [record["step"] for record in read_progress(run)] == list(range(3, step + 7, 3))


def read_progress(run: str) -> list[dict]:
    return json.loads(storage.read_bytes(f"{run}/history.json"))


def test_another_driver_or_other_settings_are_refused_on_a_store(
    shards: str, bucket: str, tmp_path: Path, monkeypatch
) -> None:
    run = f"{bucket}/run"
    (tmp_path / "one").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "one"))
    launch(shards, run, CONFIG)
    with (
        hold_lease(run, "splatfix train"),
        pytest.raises(ValueError, match=rf"{run}: splatfix train .* is at work here"),
    ):
        launch(shards, run, CONFIG)
    before = storage.read_bytes(f"{run}/state.pt")
    other = replace(CONFIG, seed=1)
    with pytest.raises(ValueError, match=rf"{run}.*seed was 0, now it is 1"):
        launch(shards, run, other)
    assert storage.read_bytes(f"{run}/state.pt") == before
    storage.write_bytes(f"{run}/previews/step_000099.png", b"of the earlier run")
    (tmp_path / "two").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "two"))
    launch(shards, run, other, fresh=True)
    assert storage.read_bytes(f"{run}/state.pt") != before
    assert not storage.exists(f"{run}/previews/step_000099.png")
    assert [record["step"] for record in read_progress(run)] == [3, 6]


def only_once(push):
    calls = []

    def pushes(mirror: Mirror, *parts: str) -> None:
        calls.append(parts)
        if len(calls) == 1:
            push(mirror, *parts)

    return pushes
