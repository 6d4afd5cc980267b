"""The jobs parse arguments and call the package, no more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from splatfix.sample import sample_path

ROOT = Path(__file__).resolve().parents[1]


def test_generate_takes_the_arguments_of_the_command(tmp_path: Path) -> None:
    small = ("--recipes.photos.size-px", "32", "--recipes.photos.steps", "5", "--fits-per-capture", "1")
    few = ("--recipes.photos.num-train", "3", "3", "--recipes.photos.max-views", "2", "--workers.num", "0")
    command = [sys.executable, str(ROOT / "jobs" / "generate.py"), str(sample_path()), "--out", str(tmp_path / "out")]
    done = subprocess.run([*command, *small, *few], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "fits: 1 made" in done.stdout and (tmp_path / "out" / "dataset.html").is_file()
    wrong = subprocess.run([*command, "--recipes.photos.steps", "0"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2 and "steps" in wrong.stderr
