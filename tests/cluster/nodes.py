"""A Ray cluster whose nodes have separate disks: `cluster/local.sh` as tests use it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "cluster" / "local.sh"
TOOLS = ("ip", "unshare", "nsenter", "setsid")
S3 = "http://127.0.0.1:5555"  # in the network of the cluster
BUCKET = "s3://splatfix"
Mode = Literal["shared", "alone"]


def find_missing() -> str:
    """Say what this machine lacks for such a cluster; empty if nothing."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "nodes with separate disks need root on Linux"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    return f"nodes with separate disks need {', '.join(missing)}" if missing else ""


@dataclass(frozen=True)
class NodeCluster:
    """A head without CPUs and workers w1, w2, ... in a separate network, with an S3 server.

    Attributes:
        name: of the cluster, as ``cluster/local.sh --name`` takes it.
        folder: where its nodes' disks and logs are.
        shared: the folder that all nodes have, except those that are started with the mode "alone".
    """

    name: str
    folder: Path
    shared: Path

    def control(self, command: str, *arguments: str | Path, timeout: float = 320) -> str:
        """Run a command of the script; an error if it fails."""
        line = [SCRIPT, command, "--name", self.name, *arguments]
        done = subprocess.run(line, capture_output=True, text=True, timeout=timeout, env=environment())
        assert done.returncode == 0, f"{command} {arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def start(self, node: str, mode: Mode = "shared", *, cpus: int = 1, gpus: int = 0, wait: bool = True) -> None:
        """Add a worker, or switch one on again."""
        options = ["--cpus", str(cpus), "--gpus", str(gpus)]
        self.control("add", node, *options, *["--alone"] * (mode == "alone"), *["--no-wait"] * (not wait))

    def kill(self, node: str) -> None:
        """Switch a node off, as a machine that is lost."""
        self.control("kill", node)

    def popen(
        self, *command: str | Path, node: str = "head", env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Start a command on a node; stdout and stderr are one pipe."""
        settings = [f"{name}={value}" for name, value in (env or {}).items()]
        line = [SCRIPT, "run", "--name", self.name, "--node", node, "env", *settings, *command]
        return subprocess.Popen(
            line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, env=environment()
        )

    def run(
        self,
        *command: str | Path,
        node: str = "head",
        env: Mapping[str, str] | None = None,
        timeout: float = 240,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on a node; stdout has stderr, too."""
        process = self.popen(*command, node=node, env=env)
        return finish(process, timeout)

    def submit(self, *words: str | Path, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        """Run a command of splatfix as a job, and wait for its end."""
        return finish(self.start_job(*words), timeout)

    def start_job(self, *words: str | Path) -> subprocess.Popen[str]:
        """Submit a command of splatfix as a job; the process follows its log, and ends with its exit code."""
        return self.popen("splatfix", "submit", *words, "--follow")

    def list_objects(self, prefix: str) -> list[str]:
        """List the names of the objects in the S3 bucket that start with a prefix."""
        code = f"""
import urllib.request
print(urllib.request.urlopen("{S3}/splatfix?list-type=2&prefix={prefix}", timeout=20).read().decode())"""
        return re.findall(r"<Key>(.*?)</Key>", self.run("python", "-c", code).stdout)

    def reset(self, nodes: Sequence[str] = ("w1", "w2")) -> None:
        """Switch the nodes on that a test has switched off or changed, so that all have 1 CPU and the shared folder."""
        for line in self.control("status").splitlines():
            node, _, state, settings = line.split(maxsplit=3)
            if node == "head" or (node in nodes and state == "up" and settings == "1 CPUs, 0 GPUs"):
                continue
            if state != "off":
                self.kill(node)
            if node in nodes:
                self.start(node)


def environment() -> dict[str, str]:
    return os.environ | {"PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}


def finish(process: subprocess.Popen[str], timeout: float) -> subprocess.CompletedProcess[str]:
    """Wait for the end of a process, and kill it if it takes longer."""
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        raise AssertionError(f"{process.args!r}: not done after {timeout} s\n{output}") from None
    return subprocess.CompletedProcess(process.args, process.returncode, output, "")


def start_cluster(name: str, *options: str) -> NodeCluster:
    """Start a cluster with two workers and an S3 server; one of the same name that was left over is stopped."""
    folder = Path("/var/tmp/splatfix-local") / name
    cluster = NodeCluster(name, folder, folder / "shared")
    if folder.is_dir():
        cluster.control("stop")
        shutil.rmtree(folder)
    started = time.monotonic()
    cluster.control("start", "--s3", *options)
    print(f"the cluster {name} was up after {time.monotonic() - started:.0f} s")
    return cluster
