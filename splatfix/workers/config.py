"""How many workers there are, and what each of them has."""

from __future__ import annotations

import os
from dataclasses import dataclass

from splatfix.config import require


@dataclass(frozen=True, kw_only=True)
class WorkersConfig:
    """Number of workers, and the resources of each.

    Attributes:
        num: number of workers; 0 works in this process without Ray (also on ``cpus`` threads), None takes as many as
            the machine or cluster has room for (on one core: 0).
        cpus: CPU cores of a worker, and threads of its kernels.
        gpus: share of a GPU of a worker (0.25: four workers on each GPU); 0 for the CPU, None takes a whole GPU where
            there are any.
        address: of a Ray cluster; None joins the one that this process is in (RAY_ADDRESS, a Ray job), else starts Ray
            on this machine.
        attempts: how often a task is tried before it is given up.
    """

    num: int | None = None
    cpus: int = 1
    gpus: float | None = None
    address: str | None = None
    attempts: int = 3

    def __post_init__(self) -> None:
        require(self.num is None or self.num >= 0, "workers.num", self.num, "0 or more, or null")
        require(self.cpus >= 1, "workers.cpus", self.cpus, "at least 1")
        require(self.gpus is None or self.gpus >= 0, "workers.gpus", self.gpus, "a share of a GPU, or null")
        require(self.attempts >= 1, "workers.attempts", self.attempts, "at least 1")


def runs_in_process(config: WorkersConfig) -> bool:
    """Whether the tasks run in this process, without Ray."""
    has_one_core = (os.cpu_count() or 1) == 1 and "RAY_ADDRESS" not in os.environ
    return config.num == 0 or (config.num is None and config.address is None and has_one_core)
