"""A comparison whose captures and --out are URLs: complete on the store, and resumed with an empty disk."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from splatfix import storage
from splatfix.cli import main
from splatfix.compare import entry
from splatfix.sample import sample_path
from tests.compare.small import write_config
from tests.test_storage import put_folder

pytestmark = pytest.mark.slow


@pytest.fixture
def new_node(tmp_path: Path, monkeypatch):
    """Lets this process continue as a node with an empty disk: an empty temporary folder, and no cache."""

    def enter(name: str) -> Path:
        (tmp_path / name).mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / name))
        monkeypatch.setenv("SPLATFIX_CACHE", str(tmp_path / name / "cache"))
        return tmp_path / name

    return enter


def test_a_comparison_resumes_from_the_store(bucket: str, tmp_path: Path, new_node, monkeypatch, capsys) -> None:
    put_folder(sample_path(), f"{bucket}/scenes/tankard")
    out, config = f"{bucket}/compared", write_config(tmp_path / "compare.yaml", captures=[f"{bucket}/scenes/tankard"])
    new_node("one")
    run_entry, ran = entry._run_entry, []

    def fail_second(task, *arguments):
        ran.append(task.label)
        if len(ran) == 2:
            raise KeyboardInterrupt
        return run_entry(task, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(entry, "_run_entry", fail_second)
        assert main(["compare", "--config", str(config), "--out", out]) == 130
    assert f"--out {out}" in capsys.readouterr().err
    second = new_node("two")
    monkeypatch.setattr(entry, "_run_entry", lambda task, *rest: ran.append(task.label) or run_entry(task, *rest))
    assert main(["compare", "--out", out]) == 0  # with the settings that the store has
    assert f"page: {out}/compare.html" in capsys.readouterr().out
    assert ran == ["identity", "warp", "warp"]
    stored = storage.list_tree(out)
    assert {"compare.html", "compare.json", "warp/tankard-s0/report.html", "identity/tankard-s0/entry.json"} <= {
        *stored
    }
    assert not [name for name in stored if name.endswith((".partial", ".db")) or name.startswith(".")]
    assert list(second.glob("splatfix-runs-*/*/compared/compare.html"))
