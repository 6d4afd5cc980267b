"""A training whose --out is a URL: each saved state is on the store, and a node with an empty disk resumes it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import torch

from splatfix import storage
from splatfix.files import read_json
from splatfix.mirror import Mirror, open_mirror
from splatfix.training import launch as launching
from splatfix.training.launch import launch
from splatfix.training.train import train
from tests.training.small import CONFIG


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


def only_once(push):
    calls = []

    def pushes(mirror: Mirror, *parts: str) -> None:
        calls.append(parts)
        if len(calls) == 1:
            push(mirror, *parts)

    return pushes
