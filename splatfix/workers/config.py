"""The settings of workers: their number and their resources."""

from __future__ import annotations

import os
from dataclasses import dataclass

from splatfix.config import require


@dataclass(frozen=True, kw_only=True)
class WorkersConfig:
    """Number of workers, and the resources of each.

    Attributes:
        num: number of workers; 0 runs the tasks in this process without Ray (on ``cpus`` threads); None takes as many
            as fit on the machine or cluster (0 on a machine with one core).
        cpus: CPU cores of a worker, which is also the number of threads of its kernels.
        gpus: GPUs of a worker (0.25: four workers share a GPU); 0 for the CPU; None takes one GPU if there are any.
        address: address of a Ray cluster; None joins the cluster of this process, if any (RAY_ADDRESS, a Ray job), or
            starts Ray on this machine.
        attempts: largest number of attempts at a task, including the first.
    """

    num: int | None = None
    cpus: int = 1
    gpus: float | None = None
    address: str | None = None
    attempts: int = 3

    def __post_init__(self) -> None:
        require(self.num is None or self.num >= 0, "workers.num", self.num, "0 or more, or null")
        require(self.cpus >= 1, "workers.cpus", self.cpus, "at least 1")
        require(self.gpus is None or self.gpus >= 0, "workers.gpus", self.gpus, "0 or more, or null")
        require(self.attempts >= 1, "workers.attempts", self.attempts, "at least 1")


def runs_in_process(config: WorkersConfig) -> bool:
    """Whether the tasks run in this process, without Ray."""
    has_one_core = (os.cpu_count() or 1) == 1 and "RAY_ADDRESS" not in os.environ
    return config.num == 0 or (config.num is None and config.address is None and has_one_core)
