"""make setup chooses the build of torch, and falls back to pip's where PyTorch's index is out of reach."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import splatfix

ROOT = Path(splatfix.__file__).parents[1]
# stands for the Python of .venv: it notes its arguments, and its uv answers as it is told
STAND_IN = """#!/bin/bash
echo "$*" >> "{calls}"
if [ "$2" = uv ]; then echo "error: no answer" >&2; exit {uv}; fi
"""


def setup(tmp_path: Path, *settings: str, uv: int = 0) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run make setup with a stand-in for .venv; returns what make said and the calls of its Python."""
    python, calls = tmp_path / "venv" / "bin" / "python", tmp_path / "calls"
    python.parent.mkdir(parents=True)
    python.write_text(STAND_IN.format(calls=calls, uv=uv))
    python.chmod(0o755)
    calls.touch()
    command = ["make", "setup", f"VENV={tmp_path / 'venv'}", f"PYTHON={python}", *settings]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    return done, [line for line in calls.read_text().splitlines() if line.startswith("-m ")]


def test_torch_for_cpus_comes_from_its_own_index_before_the_rest(tmp_path: Path) -> None:
    done, calls = setup(tmp_path, "TORCH=cpu")
    assert done.returncode == 0, done.stderr
    assert "pip install" in calls[0] and calls[0].endswith("--constraint constraints.txt uv")
    assert all("--torch-backend cpu" in call and "--constraint constraints.txt" in call for call in calls[1:3])
    assert "--dry-run torch torchvision" in calls[1] and "--dry-run" not in calls[2]
    assert calls[3].endswith("--constraint constraints.txt --editable .[all,docs,dev]") and len(calls) == 4
    assert (tmp_path / "venv" / ".installed").exists()


def test_an_index_out_of_reach_costs_one_line(tmp_path: Path) -> None:
    done, calls = setup(tmp_path, "TORCH=cpu", uv=2)
    assert done.returncode == 0, done.stderr
    [line] = [line for line in done.stdout.splitlines() if line.startswith("No torch for CPUs")]
    assert "taking pip's build" in line and "error" not in done.stdout + done.stderr
    assert "no answer" in (tmp_path / "venv" / "cpu_torch.log").read_text()
    assert calls[-1].endswith("--editable .[all,docs,dev]") and len(calls) == 3


@pytest.mark.parametrize("build", ["cuda", "default"])
def test_pip_chooses_where_it_is_told_to(build: str, tmp_path: Path) -> None:
    done, calls = setup(tmp_path, f"TORCH={build}")
    assert done.returncode == 0 and len(calls) == 1 and calls[0].endswith(".[all,docs,dev]")


def test_another_build_is_refused_before_anything_is_installed(tmp_path: Path) -> None:
    done, calls = setup(tmp_path, "TORCH=gpu")
    assert done.returncode != 0 and "TORCH=gpu: wanted cpu, cuda or default" in done.stdout and not calls
