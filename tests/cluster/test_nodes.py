"""Generation, training and sweeps on nodes with separate disks, some of which are lost or lack the shared folder."""

from __future__ import annotations

import json
import re
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.cluster.nodes import BUCKET, NodeCluster, finish
from tests.cluster.settings import CAPTURES, FITS_PER_CAPTURE, NUM_TRIALS, config_path
from tests.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.starts_ray]
NUM_FITS = len(CAPTURES) * FITS_PER_CAPTURE


def output_of(done: CompletedProcess[str], code: int = 0) -> str:
    """The log of a job, which must have ended with a code."""
    assert done.returncode == code, done.stdout
    return done.stdout


def generate(captures: str | Path, out: str | Path, *more: str) -> list[str | Path]:
    """The words of ``splatfix submit`` for a generation."""
    return ["generate", captures, "--config", config_path("generate"), "--out", out, *more]


def count_fits_on_s3(nodes: NodeCluster, prefix: str) -> int:
    """Count the committed fits of an output in the bucket."""
    return sum(name.endswith(".manifest.json") for name in nodes.list_objects(f"{prefix}/"))


def check_pairs(nodes: NodeCluster, out: str | Path) -> None:
    """Check that an output has the pairs of all fits, each once, and that all files are as their manifests say."""
    done = nodes.run("python", "-c", CHECK, out)
    assert done.returncode == 0, done.stdout
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["fits"] == sorted(f"{name}-f{index:03d}" for name in CAPTURES for index in range(FITS_PER_CAPTURE))
    assert len(found["keys"]) == len(set(found["keys"])) == found["verified"] == 4 * NUM_FITS
    assert found["problems"] == []


CHECK = """
import json, sys
from splatfix.pairs import read_pairs
from splatfix.pairs.index import list_committed_stems
from splatfix.pairs.verify import verify

out = sys.argv[1]
verified = verify(out)
print(json.dumps({"fits": sorted(list_committed_stems(out)), "keys": [pair.key for pair in read_pairs(out)],
                  "verified": verified.num_samples, "problems": verified.problems}))
"""


def test_a_node_is_lost_during_a_generation_on_s3(nodes: NodeCluster) -> None:
    job = nodes.start_job(*generate(f"{BUCKET}/captures", f"{BUCKET}/lost"))
    wait_for(lambda: count_fits_on_s3(nodes, "lost") >= 2 or job.poll() is not None)
    nodes.kill("w2")
    assert 2 <= count_fits_on_s3(nodes, "lost") < NUM_FITS
    assert f"fits: {NUM_FITS} made" in output_of(finish(job, 240))
    check_pairs(nodes, f"{BUCKET}/lost")


def test_a_node_without_the_captures_puts_no_fit_in_quarantine(nodes: NodeCluster) -> None:
    nodes.kill("w2")
    nodes.start("w2", "alone")
    output = output_of(nodes.submit(*generate(nodes.shared / "captures", f"{BUCKET}/mount")))
    assert f"fits: {NUM_FITS} made, 0 found, 0 in quarantine" in output
    assert any("w2" in line for line in output.splitlines()), output  # the node is named
    check_pairs(nodes, f"{BUCKET}/mount")


def test_a_node_is_lost_while_its_workers_start(nodes: NodeCluster) -> None:
    """On a shared disk. More workers than failed starts were once allowed start on the node."""
    nodes.kill("w2")
    nodes.start("w2", cpus=7)
    out = nodes.shared / "pairs"
    job = nodes.start_job(*generate(nodes.shared / "captures", out, "--workers.num", "8"))
    wait_for(lambda: count_workers(nodes, "w2") >= 7 or job.poll() is not None)
    nodes.kill("w2")
    assert f"fits: {NUM_FITS} made" in output_of(finish(job, 240))
    check_pairs(nodes, out)


def count_workers(nodes: NodeCluster, node: str) -> int:
    """Count the processes of a node that Ray started for actors and tasks."""
    return int(nodes.run("bash", "-c", "grep -lz '^ray::' /proc/[0-9]*/cmdline 2>/dev/null | wc -l", node=node).stdout)


def test_an_output_on_a_disk_that_is_not_shared_is_refused(nodes: NodeCluster) -> None:
    output = output_of(nodes.submit(*generate(nodes.shared / "captures", "/tmp/pairs")), 1)
    assert re.search(r"^splatfix generate: .*w[12].*/tmp/pairs", output, re.MULTILINE), output


def test_a_training_on_s3_continues_when_a_node_is_lost(nodes: NodeCluster) -> None:
    pairs, run = f"{BUCKET}/training-pairs", f"{BUCKET}/restorer"
    output_of(nodes.run("python", "-c", WRITE_PAIRS, pairs))
    config, wait = config_path("train"), "--workers.wait-minutes"
    job = nodes.start_job("train", "--shards", pairs, "--config", config, "--out", run, "--steps", "60", wait, "3")
    wait_for(lambda: "restorer/state.pt" in nodes.list_objects("restorer/") or job.poll() is not None)
    nodes.kill("w2")
    nodes.start("w2")
    output = output_of(finish(job, 240))
    assert "resuming after step" in output
    stored = nodes.list_objects("restorer/")
    wanted = {"restorer/state.pt", "restorer/run.json", "restorer/restorer/restorer.safetensors"}
    assert wanted <= set(stored), (stored, output)
    output_of(nodes.run("python", "-c", OPEN_RESTORER, run))


OPEN_RESTORER = "import sys; from splatfix.restoration import open_restorer; open_restorer(sys.argv[1])"
WRITE_PAIRS = "import sys; from tests.cluster.settings import write_pairs; write_pairs(sys.argv[1])"


def sweep(captures: str | Path, out: str | Path) -> list[str | Path]:
    """The words of ``splatfix submit`` for a sweep."""
    return ["sweep", "--config", config_path("sweep"), "--captures", f"{captures}/first", "--out", out]


def check_sweep(nodes: NodeCluster, out: str | Path) -> None:
    """Check that a sweep is finished and that no trial failed."""
    done = json.loads(nodes.run("python", "-c", READ, f"{out}/sweep.json").stdout)
    assert done["state"] == "finished" and [trial["status"] for trial in done["trials"]] == ["complete"] * NUM_TRIALS


def test_a_sweep_on_s3_is_stopped_and_resubmitted(nodes: NodeCluster) -> None:
    out = f"{BUCKET}/sweep"
    words = sweep(f"{BUCKET}/captures", out)
    job = nodes.start_job(*words)
    wait_for(lambda: has_trial(nodes, "sweep") or job.poll() is not None)
    name = output_of(nodes.run("splatfix", "submit", "list")).splitlines()[0].split()[0]
    nodes.run("splatfix", "submit", "stop", name)
    assert finish(job, 100).returncode == 143
    output_of(nodes.submit(*words))
    check_sweep(nodes, out)


def test_a_sweep_on_a_shared_disk_ends(nodes: NodeCluster) -> None:
    out = nodes.shared / "sweep"
    output_of(nodes.submit(*sweep(nodes.shared / "captures", out)))
    check_sweep(nodes, out)


READ = "import sys; from splatfix import storage; print(storage.read_bytes(sys.argv[1]).decode())"


def has_trial(nodes: NodeCluster, prefix: str) -> bool:
    """Whether a trial of a sweep in the bucket has a record."""
    return any("/trials/0" in name and "trial.json" in name for name in nodes.list_objects(f"{prefix}/"))


@pytest.mark.parametrize(
    "command",
    [
        ["ray", "job", "list"],
        ["splatfix", "submit", "list"],
        ["splatfix", "submit", "generate", "{shared}/captures", "--out", "s3://splatfix/x"],
        ["splatfix", "generate", "{shared}/captures", "--out", "/tmp/x", "--workers.address", "127.0.0.1:6379"],
        ["splatfix", "doctor", "--cluster"],
    ],
)
def test_without_the_token_a_command_is_refused(nodes: NodeCluster, command: list[str]) -> None:
    command = [word.format(shared=nodes.shared) for word in command]
    done = nodes.run(*command, env={"HOME": "/nowhere"})
    assert done.returncode != 0
    assert "token" in done.stdout.lower(), done.stdout
