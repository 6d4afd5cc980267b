"""Connect to Ray, and compute the number of workers for its cluster. The only module of workers that imports ray."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from splatfix.process import keeping_handler
from splatfix.workers.config import WorkersConfig


@contextmanager
def connect_ray(address: str | None, *, num_cpus: int, gpus: float = 0.0, log_to_driver: bool = False) -> Iterator[Any]:
    """Join a Ray cluster or start Ray, and yield the module; at the end, close the connection if it was opened here.

    Args:
        address: address of a cluster; None joins the cluster of this process, if any, or starts Ray on this machine.
        num_cpus: number of CPU cores that Ray schedules on, if it is started.
        gpus: number of GPUs that a worker needs; may be a fraction.
        log_to_driver: whether to print the output of the workers in this process.

    Raises:
        ValueError: Ray was started on this machine, which has fewer GPUs than ``gpus``.
    """
    import ray

    opens = not ray.is_initialized()
    if opens:
        joins = address or os.environ.get("RAY_ADDRESS")
        start: dict[str, Any] = {} if joins else {"include_dashboard": False, "num_cpus": num_cpus}
        quiet: dict[str, Any] = {"log_to_driver": log_to_driver, "logging_level": logging.ERROR}
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray sends no usage statistics
        with keeping_handler(signal.SIGTERM):  # Ray's handler would exit at once
            ray.init(address=address, **quiet, **start)
        num_gpus = ray.cluster_resources().get("GPU", 0)
        if not joins and gpus > num_gpus:
            ray.shutdown()
            raise ValueError(f"workers.gpus = {gpus:g}: this machine has {num_gpus:g}; use 0 for the CPU")
    try:
        yield ray
    finally:
        if opens:
            ray.shutdown()


def num_local_cpus(config: WorkersConfig) -> int:
    """Return the number of CPU cores that Ray schedules on, if it is started on this machine."""
    cores = os.cpu_count() or 1
    return max(cores, config.cpus * (config.num or 1))


def resolve_workers(ray: Any, config: WorkersConfig) -> tuple[int, float]:
    """Return the number of workers and the GPUs of each, for the cluster that ``ray`` is connected to."""
    resources = ray.cluster_resources()
    gpus = (1.0 if resources.get("GPU", 0) >= 1 else 0.0) if config.gpus is None else config.gpus
    if config.num is not None:
        return config.num, gpus
    num = int(resources.get("CPU", 1) // config.cpus)
    if gpus > 0:
        num = min(num, int(resources.get("GPU", 0) / gpus + 1e-6))
    return max(num, 1), gpus
