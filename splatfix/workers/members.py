"""The actors of a pool: on which nodes they are, which are started, and what happens if they do not become ready."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from splatfix.errors import RunAborted
from splatfix.workers.cluster import (
    Node,
    list_nodes,
    node_of_actor,
    potential_workers,
    resolve_gpus,
    select_nodes,
    worker_options,
)
from splatfix.workers.config import WorkersConfig
from splatfix.workers.failures import classify_failure
from splatfix.workers.health import NodeHealth, Streak
from splatfix.workers.host import Place, host_class
from splatfix.workers.tasks import Worker

log = logging.getLogger(__name__)

MAX_STARTING = 64  # actors that start at the same time
REFRESH_SECONDS = 15.0  # between two looks at the nodes
MIN_REFRESH_SECONDS = 1.0  # after a failure
MAX_LISTED = 8  # nodes in an error
MESSAGE_SECONDS = 60.0  # between two messages that no worker is ready
PATIENCE_SECONDS = 120.0  # that failed tasks wait for a worker to start on another node
REFUSAL_SECONDS = 300.0  # without any worker that is ready, after one could not be created
T = TypeVar("T")


@dataclass(eq=False)
class Member(Generic[T]):
    """An actor, the task that is leased to it, and the upcoming task that is reserved for it.

    Attributes:
        excluded: ids of the nodes on which it may not be placed.
        node: id of its node, once it is ready.
        gpus: ids of the GPUs of its node that it was given, or given a share of.
        group: of its last task.
        held: the groups of its task and of its upcoming task.
        leased: when it got its task, in seconds of the monotonic clock.
        has_freed: whether it has freed what it had cached on its GPU since its last task.
    """

    handle: Any
    started: float
    excluded: frozenset[str] = frozenset()
    node: str | None = None
    gpus: frozenset[str] = frozenset()
    task: T | None = None
    upcoming: T | None = None
    group: Hashable = None
    held: list[Hashable] = field(default_factory=list)
    leased: float = 0.0
    has_freed: bool = False
    streak: Streak = field(default_factory=Streak)

    @property
    def is_ready(self) -> bool:
        """Whether its worker was created."""
        return self.node is not None


class Members(Generic[T]):
    """Starts and removes the actors of a pool, as the cluster and the number of tasks allow.

    Attributes:
        nodes: the nodes that are alive, by id.
        health: of each node that is or was there, by id.
        actors: those that start or are ready.
    """

    def __init__(self, ray: Any, create: Callable[[], Worker], config: WorkersConfig) -> None:
        self._ray, self._create, self._config = ray, create, config
        self._gpus = resolve_gpus(ray, config)
        self._options = worker_options(config, self._gpus)
        self._class = ray.remote(host_class(create))
        self.nodes: dict[str, Node] = {}
        self.health: dict[str, NodeHealth] = {}
        self.actors: set[Member[T]] = set()
        self._unknown = NodeHealth("an unknown node")  # that of workers whose node Ray does not tell
        self._potential = 0
        self._refreshed = float("-inf")
        self._last_ready = self._last_message = time.monotonic()
        self._last_refusal: float | None = None
        self.refresh()

    def refresh(self, *, soon: bool = False) -> None:
        """Look at the nodes of the cluster from time to time; more often if ``soon``, after a failure."""
        now = time.monotonic()
        if now - self._refreshed < (MIN_REFRESH_SECONDS if soon else REFRESH_SECONDS):
            return
        self._refreshed = now
        self.nodes = {node.id: node for node in list_nodes(self._ray, self._config, self._gpus)}
        for node in self.nodes.values():
            self.health.setdefault(node.id, NodeHealth(node.name))
        self._potential = potential_workers(self._ray, self._config, self._gpus)
        self._restart_excluded(now)

    def usable_nodes(self) -> set[str]:
        """Return the nodes on which workers may be started."""
        now = time.monotonic()
        return {
            node.id
            for node in self.nodes.values()
            if node.capacity > 0 and not node.is_draining and self.health[node.id].paused_until <= now
        }

    def coming_nodes(self) -> set[str]:
        """Return the nodes that have no worker yet, but may soon have one of those that start."""
        since = time.monotonic() - PATIENCE_SECONDS
        if not any(not actor.is_ready and actor.started > since for actor in self.actors):
            return set()
        return self.usable_nodes() - {actor.node for actor in self.actors if actor.node is not None}

    def capable_nodes(self) -> list[NodeHealth]:
        """Return the health of the nodes on which a worker fits."""
        return [self.health[node.id] for node in self.nodes.values() if node.capacity > 0]

    def target(self) -> int:
        """Return the number of workers that the pool should have if there are tasks for them."""
        if self._config.num is not None:
            return self._config.num
        usable = self.usable_nodes()
        capacity = sum(self.nodes[node].capacity for node in usable)
        return max(capacity, self._potential, 0 if self.capable_nodes() else 1)

    def start(self, num: int, avoided: Collection[str] = ()) -> list[tuple[Any, Member[T]]]:
        """Start up to ``num`` actors; returns each with the reference to its answer that it is ready.

        They are placed on usable nodes, except those that are ``avoided``. None is started where all nodes are paused.
        """
        now = time.monotonic()
        usable = self.usable_nodes()
        waits = (self.nodes and not usable and self.capable_nodes() and not self._potential) or (
            self._unknown.paused_until > now
        )
        num_starting = sum(not actor.is_ready for actor in self.actors)
        num = min(num, self.target() - len(self.actors), MAX_STARTING - num_starting)
        if waits or num <= 0:
            return []
        allowed = usable - set(avoided) or usable
        excluded = frozenset(node.id for node in self.nodes.values() if node.capacity > 0) - allowed
        options = self._options | {"label_selector": select_nodes(self._config.labels, excluded)}
        started = []
        for _ in range(num):
            actor: Member[T] = Member(self._class.options(**options).remote(self._create, self._gpus), now, excluded)
            self.actors.add(actor)
            started.append((actor.handle.check_ready.remote(), actor))
        return started

    def remove(self, actor: Member[T]) -> None:
        """End an actor."""
        self.actors.discard(actor)
        self._ray.kill(actor.handle)

    def remove_all(self) -> None:
        """End all actors."""
        for actor in [*self.actors]:
            self.remove(actor)

    def count_ready(self, actor: Member[T], place: Place) -> None:
        """Count an actor whose worker was created."""
        node = place.node
        actor.node, actor.gpus = node, place.gpus
        self._last_ready = time.monotonic()
        if node not in self.nodes:
            self.refresh(soon=True)
        self.health.setdefault(node, NodeHealth(f"node {node[:8]}")).count_start()
        self._unknown.count_start()

    def count_failed_start(self, actor: Member[T], error: BaseException, *, has_died: bool) -> None:
        """Count an actor that died before it was ready, or whose worker could not be created, and end it."""
        node = node_of_actor(self._ray, actor.handle, error)
        self.remove(actor)
        self.refresh(soon=True)
        capable = [node.id for node in self.nodes.values() if node.capacity > 0]
        if node is None and len(capable) == 1:
            node = capable[0]
        health = self._unknown if node is None else self.health.setdefault(node, NodeHealth(f"node {node[:8]}"))
        now, reason = time.monotonic(), classify_failure(error).reason
        if has_died or not isinstance(error, Exception):
            pause, what = health.count_failed_start(reason, now), "a worker died before it was ready"
        else:
            self._last_refusal = now
            pause, what = health.count_refusal(error, reason, now), "a worker cannot be created"
        if pause is not None and not self._is_hopeless():
            log.warning("%s: %s (%s); it gets no new worker for %g s", health.name, what, reason, pause)

    def retire(self, node: str, reason: str) -> list[Member[T]]:
        """Pause a node whose workers fail what others can do; returns those of them that have to be removed."""
        failing = [actor for actor in self.actors if actor.node == node and actor.streak.groups]
        pause = self.health[node].retire(time.monotonic())
        log.warning(
            "%s: retired %d of its workers, which fail tasks that succeed on other nodes (%s); it gets no new worker "
            "for %g s",
            *(self.health[node].name, len(failing), reason, pause),
        )
        return failing

    def check_start(self) -> None:
        """Say each minute that no worker is ready.

        Raises:
            ValueError: no node can create a worker with these settings.
            RunAborted: workers cannot be started on any node, or none became ready in ``wait_minutes``.
        """
        now = time.monotonic()
        if any(actor.is_ready for actor in self.actors):
            self._last_ready = self._last_message = now
            return
        is_refused = (
            self._last_refusal is not None and now - max(self._last_refusal, self._last_ready) > REFUSAL_SECONDS
        )
        if self._is_hopeless() or is_refused:
            raise self._start_error()
        minutes = (now - self._last_ready) / 60
        if minutes >= self._config.wait_minutes:
            raise RunAborted(
                f"no worker was ready for {minutes:.0f} minutes (workers.wait_minutes): {self._describe_need()}"
            )
        if now - self._last_message >= MESSAGE_SECONDS:
            self._last_message = now
            log.warning("no worker is ready since %.0f minutes: %s", minutes, self._describe_need())

    def _is_hopeless(self) -> bool:
        """Whether no worker is ready, and all nodes have failed to start one."""
        capable = self.capable_nodes()
        useless = bool(capable) and all(health.is_useless for health in capable)
        return (useless or self._unknown.is_useless) and not any(actor.is_ready for actor in self.actors)

    def _start_error(self) -> Exception:
        failed = [health for health in (*self.capable_nodes(), self._unknown) if health.reason]
        reasons = list(dict.fromkeys(health.reason for health in failed))
        listed = [f"{health.name}: {health.reason}" for health in failed[:MAX_LISTED]]
        if len(failed) > MAX_LISTED:
            listed.append(f"and {len(failed) - MAX_LISTED} more nodes")
        text = reasons[0] if len(reasons) == 1 else "; ".join(listed)
        if all(isinstance(health.refusal, ValueError) for health in failed):
            return ValueError(text)
        if any(health.refusal is not None for health in failed):
            return RunAborted(f"a worker cannot be created: {text}")
        return RunAborted(f"workers die before they are ready: {text}")

    def _describe_need(self) -> str:
        resources = self._ray.cluster_resources()
        need = f"each needs {self._config.cpus} CPUs and {self._gpus:g} GPUs"
        if self._config.memory_gb is not None:
            need += f", {self._config.memory_gb:g} GB of memory"
        if self._config.accelerator is not None:
            need += f", {self._config.accelerator}"
        if self._config.labels:
            need += ", labels " + ", ".join(f"{name}: {value}" for name, value in self._config.labels.items())
        return (
            f"{need}; the cluster has {resources.get('CPU', 0):g} CPUs and {resources.get('GPU', 0):g} GPUs, with room "
            f"for {sum(node.capacity for node in self.nodes.values())} workers if nothing else runs there"
        )

    def _restart_excluded(self, now: float) -> None:
        """End actors that wait for a place, but may not be placed on nodes that are usable again."""
        usable = self.usable_nodes()
        for actor in [*self.actors]:
            is_waiting = not actor.is_ready and now - actor.started > MESSAGE_SECONDS
            if is_waiting and actor.excluded & usable and node_of_actor(self._ray, actor.handle) is None:
                self.remove(actor)
