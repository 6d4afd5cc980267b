"""A comparison in a separate process: killed at many moments, on Ray, and without a repair that was made twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from splatfix.report.compare.results import CompareResults, read_compare
from tests.compare.small import write_config
from tests.conftest import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.starts_ray]

PROGRAM = """
import json, os, shutil, sys, time
from pathlib import Path
source, target, log = *(Path(part) for part in sys.argv[1:]), Path(os.environ["REPAIR_LOG"])
for view in json.loads((source / "views.json").read_text())["views"]:
    with log.open("a") as file:
        file.write(view["name"] + "\\n")
    time.sleep(0.15)
    shutil.copyfile(source / view["render"], target / Path(view["render"]).name)
"""


def run(config: Path, out: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "splatfix", "compare", "--config", str(config), "--out", str(out)]
    with out.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)


def figures(results: CompareResults) -> dict[str, float | None]:
    return {
        f"{restorer.label} {entry.case}": entry.gain() for restorer in results.restorers for entry in restorer.entries
    }


def test_a_comparison_that_is_killed_again_and_again_ends_like_one_that_is_not(tmp_path: Path) -> None:
    config = write_config(tmp_path / "compare.yaml", seeds=[0, 1], restorers=["identity", "warp", "nafnet"])
    assert run(config, tmp_path / "whole").wait(timeout=300) == 0
    seed = random.randrange(10**6)
    print("seed of the kills:", seed)
    pauses = random.Random(seed)
    for _ in range(6):
        process = run(config, tmp_path / "killed")
        try:
            process.wait(timeout=pauses.uniform(3, 12))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert run(config, tmp_path / "killed").wait(timeout=300) == 0
    assert figures(read_compare(tmp_path / "killed")) == figures(read_compare(tmp_path / "whole"))
    assert read_compare(tmp_path / "killed").state == "finished"


def test_no_view_is_repaired_twice_but_the_one_that_the_kill_met(tmp_path: Path) -> None:
    """With a restorer that is another program: it logs the views that it was given."""
    program, log = tmp_path / "repair.py", tmp_path / "repaired.txt"
    program.write_text(PROGRAM)
    argv = [sys.executable, str(program), "{input}", "{output}"]
    options = {"argv": argv, "views_per_call": 1, "cache": None, "env": {"REPAIR_LOG": str(log)}}
    config = write_config(tmp_path / "c.yaml", restorers=[{"name": "command", "options": options}])
    process, kills = run(config, tmp_path / "out"), 0
    deadline = time.monotonic() + 300
    while process.poll() is None:
        assert time.monotonic() < deadline
        num = len(log.read_text().splitlines()) if log.is_file() else 0
        if num >= 3 * (kills + 1) and kills < 2:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
            process = run(config, tmp_path / "out")
        time.sleep(0.05)
    assert process.returncode == 0, (tmp_path / "out.log").read_text()[-2000:]
    assert kills == 2
    counts = Counter(log.read_text().splitlines())
    assert sum(count - 1 for count in counts.values()) <= kills
    assert len(counts) == 4 + 3 + 3


def test_a_comparison_on_ray_equals_one_in_this_process(tmp_path: Path) -> None:
    here = write_config(tmp_path / "here.yaml", seeds=[0, 1])
    on_ray = write_config(tmp_path / "ray.yaml", seeds=[0, 1], workers={"num": 2})
    assert run(here, tmp_path / "here").wait(timeout=300) == 0
    assert run(on_ray, tmp_path / "on_ray").wait(timeout=400) == 0
    assert figures(read_compare(tmp_path / "here")) == figures(read_compare(tmp_path / "on_ray"))
