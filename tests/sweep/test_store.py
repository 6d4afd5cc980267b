"""A sweep whose captures and --out are URLs: complete on the store, and resumed with an empty disk."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from splatfix import storage
from splatfix.cli import main
from splatfix.sample import sample_path
from tests.sweep.small import write_config
from tests.test_storage import put_folder

pytestmark = pytest.mark.slow


def test_a_sweep_is_whole_on_the_store_and_is_extended_by_another_node(
    bucket: str, tmp_path: Path, monkeypatch, capsys
) -> None:
    def new_node(name: str) -> None:
        (tmp_path / name).mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / name))
        monkeypatch.setenv("SPLATFIX_CACHE", str(tmp_path / name / "cache"))

    put_folder(sample_path(), f"{bucket}/scenes/tankard")
    out = f"{bucket}/swept"
    settings = {"captures": [f"{bucket}/scenes/tankard"], "search": {"trials": 1}}
    config = write_config(tmp_path / "sweep.yaml", **settings)
    new_node("one")
    assert main(["sweep", "--config", str(config), "--out", out]) == 0
    assert f"page: {out}/sweep.html" in capsys.readouterr().out
    stored = set(storage.list_tree(out))
    assert {"sweep.html", "sweep.json", "best.yaml", "trials/0000/trial.json", "trials/0000/report.html"} <= stored
    assert not [name for name in stored if name.startswith("trials/") and "checkpoints" in name]
    new_node("two")
    assert main(["sweep", "--out", out, "--search.trials", "2"]) == 0
    assert set(storage.list_tree(out)) > stored | {"trials/0001/trial.json"}
