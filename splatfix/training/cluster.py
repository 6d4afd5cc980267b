"""What a training needs of a Ray cluster: GPUs or not, and room for its workers, for which nodes may have to start.

Nothing here imports Ray: the caller passes its answers.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from splatfix.process import log
from splatfix.training.config import TrainConfig, TrainWorkersConfig
from splatfix.workers.cluster import matches_label

POLL_SECONDS = 5.0  # between two looks at the cluster
MESSAGE_SECONDS = 60.0  # between two messages while training waits for nodes

Nodes = Sequence[Mapping[str, Any]]  # as `ray.nodes` describes them


def choose_gpus(config: TrainConfig, nodes: Nodes) -> bool:
    """Whether each worker gets a GPU.

    Raises:
        ValueError: it is not said, and the cluster has some GPUs, but fewer than workers; or device and GPUs disagree.
    """
    workers, num = config.workers, least_workers(config.workers)
    if config.device == "cpu" or workers.gpus == 0:
        if config.device == "cuda" or (config.device == "cpu" and workers.gpus == 1):
            raise ValueError(f"device = {config.device!r}: does not fit workers.gpus = {workers.gpus}; change one")
        return False
    if config.device == "cuda" or workers.gpus == 1:
        return True
    num_gpus = sum(node["Resources"].get("GPU", 0) for node in matching_nodes(workers, nodes))
    if num_gpus == 0:
        log.info("the cluster has no GPU now: training runs on CPUs; --workers.gpus 1 waits for GPUs")
        return False
    if num_gpus < num:
        raise ValueError(
            f"workers.gpus = null: the cluster has {num_gpus:g} GPUs for {num} workers, and training on its CPUs would "
            f"be slow; use --workers.num {int(num_gpus)}, --workers.gpus 1 to wait for more GPUs, or --workers.gpus 0 "
            "for the CPUs"
        )
    return True


def least_workers(workers: TrainWorkersConfig) -> int:
    """The number of workers with which training starts or continues."""
    return workers.num if workers.min_num is None else workers.min_num


def matching_nodes(workers: TrainWorkersConfig, nodes: Nodes) -> list[Mapping[str, Any]]:
    """The living nodes with the accelerator and the labels that workers ask for."""
    kind = None if workers.accelerator is None else f"accelerator_type:{workers.accelerator}"
    return [
        node
        for node in nodes
        if node["Alive"]
        and (kind is None or kind in node["Resources"])
        and all(matches_label(node.get("Labels", {}).get(name), wanted) for name, wanted in workers.labels.items())
    ]


def room_for(workers: TrainWorkersConfig, gpus: bool, nodes: Nodes) -> int:
    """The number of workers that the whole cluster has room for, used or not."""

    def room(resources: Mapping[str, float]) -> int:
        num = int(resources.get("CPU", 0) // workers.cpus)
        return min(num, int(resources.get("GPU", 0))) if gpus else num

    return sum(room(node["Resources"]) for node in matching_nodes(workers, nodes))


def wait_for_room(
    workers: TrainWorkersConfig,
    gpus: bool,
    *,
    find_nodes: Callable[[], Nodes],
    ask: Callable[[], object] | None,
    sleep: Callable[[float], object] = time.sleep,
) -> None:
    """Return when the cluster has room for the least number of workers.

    Args:
        workers: how many, and what each needs.
        gpus: whether each needs a GPU.
        find_nodes: returns the nodes of the cluster.
        ask: asks the autoscaler for nodes; None where the cluster cannot grow.
        sleep: waits for so many seconds.

    Raises:
        ValueError: it has no such room, and cannot grow or did not within ``workers.wait_minutes``.
    """
    num, seconds, end = least_workers(workers), 0.0, 60 * workers.wait_minutes
    while (room := room_for(workers, gpus, find_nodes())) < num:
        if ask is None or seconds >= end:
            waited = "" if ask is None else f" after {workers.wait_minutes:g} minutes (workers.wait_minutes)"
            raise ValueError(
                f"workers.num = {workers.num}: wants room for {num} workers with {describe(workers, gpus)} each, the "
                f"cluster has room for {room}{waited}; take fewer workers"
            )
        if seconds == 0:
            ask()
        if seconds % MESSAGE_SECONDS == 0:
            _log_wait(workers, gpus, room)
        sleep(POLL_SECONDS)
        seconds += POLL_SECONDS


def describe(workers: TrainWorkersConfig, gpus: bool) -> str:
    """What a worker needs, in words."""
    kinds = [f"{workers.cpus} CPUs", *(["1 GPU"] if gpus else [])]
    kinds += [f"{name}: {value}" for name, value in workers.labels.items()]
    return ", ".join(kinds + ([workers.accelerator] if workers.accelerator else []))


def _log_wait(workers: TrainWorkersConfig, gpus: bool, room: int) -> None:
    log.info(
        "waiting for nodes: training wants room for %d workers with %s each, the cluster has room for %d",
        *(least_workers(workers), describe(workers, gpus), room),
    )


@contextmanager
def telling_lost_nodes(
    workers: TrainWorkersConfig, gpus: bool, find_nodes: Callable[[], Nodes], seconds: float = MESSAGE_SECONDS
) -> Iterator[None]:
    """Log a message from time to time while training waits for lost nodes; Ray Train itself says nothing."""
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(seconds):
            try:
                room = room_for(workers, gpus, find_nodes())
            except Exception:  # the connection is closed
                return
            if room < least_workers(workers) and not is_over.is_set():
                _log_wait(workers, gpus, room)

    thread = threading.Thread(target=watch, name="nodes", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join(5)
