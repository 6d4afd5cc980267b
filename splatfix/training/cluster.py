"""What a training needs of a Ray cluster: GPUs or not, and room for its workers, for which nodes may have to start.

Nothing here imports Ray: the caller passes its answers.
"""

from __future__ import annotations

import math
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
START_SECONDS = 600.0  # that Ray Train's controller may take to start and to ask for its workers
LEAST_WAIT_SECONDS = 10.0  # that Ray may take to place workers where there is room

Nodes = Sequence[Mapping[str, Any]]  # as `ray.nodes` describes them
Groups = Mapping[str, Mapping[str, Any]]  # placement groups by their ids, as `ray.util.placement_group_table` does


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
    log.info("waiting for %s", _describe_lost_nodes(workers, gpus, room))


def _describe_lost_nodes(workers: TrainWorkersConfig, gpus: bool, room: int) -> str:
    num, needs = least_workers(workers), describe(workers, gpus)
    return f"nodes: training wants room for {num} workers with {needs} each, the cluster has room for {room}"


def longest_wait_seconds(workers: TrainWorkersConfig) -> float:
    """How long training waits for room, in seconds."""
    return max(LEAST_WAIT_SECONDS, 60 * workers.wait_minutes)


@contextmanager
def watching_room(
    workers: TrainWorkersConfig,
    gpus: bool,
    *,
    find_nodes: Callable[[], Nodes],
    find_groups: Callable[[], Groups],
    give_up: Callable[[str], object],
    poll_seconds: float = POLL_SECONDS,
    message_seconds: float = MESSAGE_SECONDS,
) -> Iterator[None]:
    """Log messages while training waits for Ray Train, lost nodes, or room that others hold, and give up in time.

    Ray Train itself says nothing, and begins its wait anew several times.

    Args:
        workers: how many, and what each needs.
        gpus: whether each needs a GPU.
        find_nodes: returns the nodes of the cluster.
        find_groups: returns the placement groups of this training, by their ids.
        give_up: ends the training for a reason; called from a thread, and again until the block has ended.
        poll_seconds: between two looks.
        message_seconds: between two messages of a wait.
    """
    is_over = threading.Event()
    limit = longest_wait_seconds(workers)

    def watch() -> None:
        start: float | None = None  # of the wait
        begun, last_message = time.monotonic(), -math.inf
        has_asked = False  # the controller, for room
        while not is_over.wait(poll_seconds):
            try:
                groups = list(find_groups().values())
                shortage = describe_shortage(workers, gpus, find_nodes(), groups)
            except Exception as error:  # while Ray's central service is away
                log.debug("the room in the cluster cannot be seen: %s", error)
                continue
            now = time.monotonic()
            has_asked = has_asked or bool(groups)
            if not has_asked and shortage is None:
                if now - begun > START_SECONDS:
                    give_up(
                        f"Ray Train's controller has asked for no workers after {START_SECONDS:g} s; run the same "
                        "command again, and if that fails too, see what `ray list actors` and Ray's logs say of it"
                    )
                elif now - max(begun, last_message) >= message_seconds:
                    last_message = now
                    log.info("waiting for Ray Train's controller; training waits %g s at most", START_SECONDS)
                continue
            if any(group["state"] == "CREATED" for group in groups):
                start = None
            if shortage is None or is_over.is_set():  # also between two placement groups of one wait
                continue
            if start is None:  # also in a start without a wait, which lasts for one look at most
                start = now
            elif now - start > limit:
                give_up(
                    f"workers.num = {workers.num}: waited {limit / 60:.3g} minutes (workers.wait_minutes) for "
                    f"{shortage}; run the same command when there is room, or take fewer workers or a longer wait"
                )
            elif now - last_message >= message_seconds:
                last_message = now
                log.info("waiting for %s; training waits %.3g minutes at most", shortage, limit / 60)

    thread = threading.Thread(target=watch, name="room", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join(5)


def describe_shortage(
    workers: TrainWorkersConfig, gpus: bool, nodes: Nodes, groups: Sequence[Mapping[str, Any]]
) -> str | None:
    """What training waits for: nodes, or room on them; None if it has room, or has not asked for it.

    Args:
        workers: how many, and what each needs.
        gpus: whether each needs a GPU.
        nodes: those of the cluster.
        groups: the placement groups of this training.
    """
    if any(group["state"] == "CREATED" for group in groups):
        return None
    if (room := room_for(workers, gpus, nodes)) < least_workers(workers):
        return _describe_lost_nodes(workers, gpus, room)
    waiting = [group for group in groups if group["state"] in ("PENDING", "RESCHEDULING")]
    if not waiting:
        return None
    strict = f" or workers.placement = {workers.placement} rules out" if workers.placement.startswith("STRICT") else ""
    wanted = f"{len(waiting[0]['bundles'])} workers with {describe(workers, gpus)} each"
    return f"room: training wants {wanted}, and other jobs hold{strict} what the cluster has for them"
