"""The settings of workers: their number and their resources."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace

from splatfix.config import require

# names and values of Ray's labels; a value may be negated (!spot), or be one of several: in(a, b), !in(a, b)
_NAME = r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_LABEL = re.compile(rf"([a-z0-9.-]+/)?{_NAME}")
_VALUE = re.compile(rf"!?{_NAME}|!?in\({_NAME}(, ?{_NAME})*\)")


@dataclass(frozen=True, kw_only=True)
class WorkersConfig:
    """Number of workers, and the resources of each.

    Attributes:
        num: number of workers; 0 runs the tasks in this process without Ray (on ``cpus`` threads); None takes as many
            as fit on the machine or cluster, also on nodes that join later (0 on a machine with one core).
        cpus: CPU cores of a worker, which is also the number of threads of its kernels.
        gpus: GPUs of a worker (0.25: four workers share a GPU, with a quarter of its memory each); 0 runs on the CPU
            and hides the GPUs; None takes one GPU if any node has one, and then leaves nodes without GPUs idle.
        memory_gb: main memory that Ray reserves for a worker, in GB; None reserves none.
        accelerator: Ray's type of the GPU that a worker needs, such as A100 or L4; None takes any.
        labels: labels of the nodes that may have workers, as Ray's label selectors (``market: "!spot"``).
        address: address of a Ray cluster; None joins the cluster of this process, if any (RAY_ADDRESS, a Ray job), or
            starts Ray on this machine.
        attempts: largest number of attempts at a task, including the first.
        wait_minutes: longest time without any worker that is ready (nodes that start, other jobs on the cluster).
        task_minutes: longest time of an attempt at a task, such as a fit, or of a round of a trial; then its worker,
            which may hang, is ended, and the attempt counts as failed. Not for tasks in this process.
    """

    num: int | None = None
    cpus: int = 1
    gpus: float | None = None
    memory_gb: float | None = None
    accelerator: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    address: str | None = None
    attempts: int = 3
    wait_minutes: float = 60.0
    task_minutes: float = 24 * 60.0

    def __post_init__(self) -> None:
        require(self.num is None or self.num >= 0, "workers.num", self.num, "0 or more, or null")
        require(self.cpus >= 1, "workers.cpus", self.cpus, "at least 1")
        is_share = self.gpus is None or 0 <= self.gpus <= 1 or self.gpus == int(self.gpus)
        require(is_share, "workers.gpus", self.gpus, "0 or more, above 1 a whole number, or null")
        require(self.memory_gb is None or self.memory_gb > 0, "workers.memory_gb", self.memory_gb, "above 0, or null")
        named = self.accelerator is None or re.fullmatch(r"[A-Za-z0-9._-]+", self.accelerator) is not None
        require(named, "workers.accelerator", self.accelerator, "a type that Ray knows, such as A100, L4 or H100")
        conflict = self.accelerator is not None and self.gpus == 0
        require(not conflict, "workers.accelerator", self.accelerator, "null where workers.gpus is 0")
        for name, value in self.labels.items():
            require(_LABEL.fullmatch(name) is not None, "workers.labels", name, "a label's name, such as market-type")
            is_selector = _VALUE.fullmatch(value) is not None
            require(is_selector, f"workers.labels.{name}", value, "a value, !value, in(a, b) or !in(a, b)")
        require(self.attempts >= 1, "workers.attempts", self.attempts, "at least 1")
        require(self.wait_minutes > 0, "workers.wait_minutes", self.wait_minutes, "above 0")
        require(self.task_minutes > 0, "workers.task_minutes", self.task_minutes, "above 0")


def joins_cluster(address: str | None) -> bool:
    """Whether tasks run on a Ray cluster that is there already, and not on one that is started on this machine."""
    return address is not None or "RAY_ADDRESS" in os.environ


def workers_for_device(config: WorkersConfig, device: str) -> WorkersConfig:
    """Return the workers for tasks on a device (``cpu``, ``cuda`` or ``auto``): on the CPU they take no GPU."""
    return replace(config, gpus=0.0, accelerator=None) if device == "cpu" else config


def runs_in_process(config: WorkersConfig) -> bool:
    """Whether the tasks run in this process, without Ray."""
    has_one_core = (os.cpu_count() or 1) == 1
    return config.num == 0 or (config.num is None and has_one_core and not joins_cluster(config.address))
