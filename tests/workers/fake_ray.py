"""A stand-in for the ray module: nodes, actors and time are simulated, so that hours of a cluster take milliseconds."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ray.exceptions

from splatfix.workers.host import Answer, Place

DIES = object()  # what a worker or task does: its process ends
PREEMPTED = object()  # as above, since the node is taken away


class Clock:
    """Replaces the module ``time``."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@dataclass(eq=False)
class FakeNode:
    """A node, and the actors that are placed on it."""

    name: str
    resources: dict[str, float]
    labels: dict[str, str] = field(default_factory=dict)
    is_alive: bool = True
    actors: list[FakeActor] = field(default_factory=list)


@dataclass(eq=False)
class Reference:
    """The reference to an answer: when it is there, and what it is."""

    time: float | None = None
    value: Any = None


class FakeRay:
    """The module, and the cluster that it is connected to.

    Attributes:
        start: what a worker does that starts on a node: the seconds until it is ready, an error, or `DIES`.
        run: what a task does on a node: its seconds, an error, or `DIES`.
        events: functions that are called at a time.
        log: node and task of each attempt.
        attempts: GPU (node and number, where it is shared), task, first and last second of each that answers.
        alone: tasks that were run alone, in order.
        freed: node and GPU of each actor that was told to free its memory.
        kills: number of actors that were killed.
    """

    exceptions = ray.exceptions

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.all_nodes: list[FakeNode] = []
        self.pending: list[FakeActor] = []
        self.start: Callable[[str], Any] = lambda _node: 1.0
        self.run: Callable[[str, str], Any] = lambda _node, _task: 10.0
        self.events: list[tuple[float, Callable[[], object]]] = []
        self.log: list[tuple[str, str]] = []
        self.attempts: list[tuple[str, str, float, float]] = []
        self.alone: list[str] = []
        self.freed: list[str] = []
        self.starts: list[tuple[float, str]] = []
        self.num_created = self.kills = 0

    def add_node(self, name: str, cpus: float = 1, gpus: float = 0, **labels: str) -> FakeNode:
        node = FakeNode(name, {"CPU": cpus, "GPU": gpus, "memory": 64e9}, labels)
        self.all_nodes.append(node)
        self.place()
        return node

    def kill_node(self, node: FakeNode, how: Any = DIES) -> None:
        node.is_alive = False
        for actor in [*node.actors]:
            actor.die(how)

    # what the pool calls

    def nodes(self) -> list[dict[str, Any]]:
        return [
            {
                "NodeID": node.name,
                "Alive": node.is_alive,
                "NodeManagerHostname": node.name,
                "NodeManagerAddress": f"10.0.0.{number}",
                "Resources": node.resources if node.is_alive else {},
                "Labels": node.labels,
            }
            for number, node in enumerate(self.all_nodes)
        ]

    def cluster_resources(self) -> dict[str, float]:
        alive = [node for node in self.all_nodes if node.is_alive]
        return {kind: sum(node.resources[kind] for node in alive) for kind in ("CPU", "GPU")}

    def remote(self, kind: type) -> FakeActorClass:
        return FakeActorClass(self, kind.__name__)

    def kill(self, actor: FakeActor) -> None:
        if actor.is_alive:
            self.kills += 1
            actor.die(DIES)

    def get(self, reference: Reference) -> Any:
        if isinstance(reference.value, BaseException):
            raise reference.value
        return reference.value

    def wait(self, references: list[Reference], num_returns: int, timeout: float) -> tuple[list, list]:
        assert num_returns == 1 and references
        end = self.clock.now + timeout
        while True:
            times = [reference.time for reference in references if reference.time is not None]
            self.events.sort(key=lambda event: event[0])
            following = min([end, *times, *(time for time, _ in self.events[:1])])
            self.clock.now = max(self.clock.now, following)
            if self.events and self.events[0][0] <= self.clock.now:
                self.events.pop(0)[1]()
                continue
            ready = [each for each in references if each.time is not None and each.time <= self.clock.now]
            if ready:
                first = min(ready, key=lambda each: each.time or 0.0)
                return [first], [each for each in references if each is not first]
            if self.clock.now >= end:
                return [], references

    def place(self) -> None:
        """Place the actors that wait for a node, as far as there is room."""
        for actor in [*self.pending]:
            for node in self.all_nodes:
                if node.is_alive and actor.fits(node):
                    self.pending.remove(actor)
                    node.actors.append(actor)
                    actor.start_on(node)
                    break


class FakeActorClass:
    """What ``ray.remote`` returns."""

    def __init__(self, ray: FakeRay, name: str, options: dict[str, Any] | None = None) -> None:
        self.ray, self.name, self.given = ray, name, options or {}

    def options(self, **options: Any) -> FakeActorClass:
        return FakeActorClass(self.ray, self.name, options)

    def remote(self, *_arguments: Any) -> FakeActor:
        self.ray.num_created += 1
        actor = FakeActor(self.ray, self.given)
        self.ray.pending.append(actor)
        self.ray.place()
        return actor


class FakeActor:
    """An actor: pending, starting, ready or dead."""

    def __init__(self, ray: FakeRay, options: dict[str, Any]) -> None:
        self.ray, self.given = ray, options
        self.node: FakeNode | None = None
        self.is_alive = True
        self.answers: list[Reference] = []
        self.ready = Reference()
        self.check_ready = _Method(lambda: self.ready)
        self.run = _Method(self._run)
        self.run_alone = _Method(self._run_alone)
        self.free_memory = _Method(self._free_memory)
        self.gpus: frozenset[str] = frozenset()

    def fits(self, node: FakeNode) -> bool:
        selector = self.given.get("label_selector", {})
        excluded = re.findall(r"\w+", selector.get("ray.io/node-id", "")[4:-1])
        if node.name in excluded:
            return False
        for name, key in (("CPU", "num_cpus"), ("GPU", "num_gpus")):
            used = sum(actor.given[key] for actor in node.actors)
            if used + self.given[key] > node.resources[name]:
                return False
        return True

    def start_on(self, node: FakeNode) -> None:
        self.node = node
        self.gpus = self.choose_gpu(node)
        self.ray.starts.append((self.ray.clock.now, node.name))
        what = self.ray.start(node.name)
        if what is DIES:
            self.die(DIES)
        elif isinstance(what, BaseException):
            self.answer(self.ready, 0.1, ray.exceptions.RayTaskError("check_ready", "the traceback", what))
        else:
            self.answer(self.ready, what, Place(node.name, self.gpus))

    def choose_gpu(self, node: FakeNode) -> frozenset[str]:
        """The first GPU of the node that has room for the share of this actor."""
        share = self.given["num_gpus"]
        for gpu in map(str, range(int(node.resources["GPU"]))) if 0 < share < 1 else ():
            used = sum(actor.given["num_gpus"] for actor in node.actors if gpu in actor.gpus)
            if used + share <= 1:
                return frozenset({gpu})
        return frozenset()

    def answer(self, reference: Reference, seconds: float, value: Any) -> Reference:
        reference.time, reference.value = self.ray.clock.now + seconds, value
        return reference

    def _run(self, task: str, _upcoming: str | None) -> Reference:
        reference = Reference()
        if not self.is_alive:
            return self.answer(reference, 0, self.death(DIES))
        assert self.node is not None
        self.answers.append(reference)
        self.ray.log.append((self.node.name, task))
        what = self.ray.run(self.node.name, task)
        if what is DIES or what is PREEMPTED:
            self.ray.events.append((self.ray.clock.now + 1, lambda: self.die(what)))
            return reference
        if isinstance(what, BaseException):
            return self.answer(reference, 0.01, ray.exceptions.RayTaskError("run", "the traceback", what))
        now = self.ray.clock.now
        self.ray.attempts.append((self.place, task, now, now + what))
        return self.answer(reference, what, Answer(f"{task} on {self.node.name}"))

    @property
    def place(self) -> str:
        assert self.node is not None
        return " ".join([self.node.name, *self.gpus])

    def _run_alone(self, task: str) -> Reference:
        self.ray.alone.append(task)
        return self._run(task, None)

    def _free_memory(self) -> Reference:
        reference = Reference()
        self.answers.append(reference)
        self.ray.freed.append(self.place)
        return self.answer(reference, 0.1, None) if self.is_alive else self.answer(reference, 0, self.death(DIES))

    def death(self, how: Any) -> Exception:
        error = ray.exceptions.ActorDiedError()
        error._preempted = how is PREEMPTED
        return error

    def die(self, how: Any) -> None:
        self.is_alive = False
        if self in self.ray.pending:
            self.ray.pending.remove(self)
        if self.node is not None and self in self.node.actors:
            self.node.actors.remove(self)
        for reference in (self.ready, *self.answers):
            if reference.time is None or reference.time > self.ray.clock.now:
                self.answer(reference, 0, self.death(how))
        self.ray.place()


class _Method:
    """A method of an actor."""

    def __init__(self, call: Callable[..., Reference]) -> None:
        self.remote = call
        self.names: list[str] = []

    def options(self, *, name: str) -> _Method:
        self.names.append(name)
        return self
