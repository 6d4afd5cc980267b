"""The pool on a simulated cluster: bad nodes, nodes that die, growth, and release."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import pytest

from splatfix.workers import MachineError, Outcome, RunAborted, WorkersConfig, cluster
from splatfix.workers.failures import Failure, NodeDiskFullError
from splatfix.workers.pool import ActorPool
from splatfix.workers.queue import TaskQueue
from tests.workers.fake_ray import DIES, PREEMPTED, FakeActor, FakeRay, _Method

TASKS = [f"task{number}" for number in range(24)]
MISSING = ValueError("/mnt/captures/room: no such file or folder")


class Idle:
    """A worker whose name the actors have; the simulation does the tasks."""

    def run(self, task: Any, upcoming: Any | None) -> Any: ...


def run_pool(fake: FakeRay, tasks: list[str], config: WorkersConfig | None = None, **more: Any) -> dict[str, Outcome]:
    """Run the tasks; returns the outcomes by task, in the order of their ends."""
    queue = TaskQueue(iter(tasks), more.pop("after", lambda _: None), str, more.pop("group", lambda _: None))
    retries = more.pop("retries", [])
    on_busy = more.pop("on_busy", lambda _busy, _ready: None)
    pool = ActorPool(
        fake, queue, Idle, config or WorkersConfig(gpus=0), lambda task, reason: retries.append((task, reason)), on_busy
    )
    outcomes: dict[str, Outcome] = {}
    for outcome in pool.run():
        assert outcome.task not in outcomes
        outcomes[outcome.task] = outcome
    assert sorted(outcomes) == sorted(tasks)
    assert not any(node.actors for node in fake.all_nodes) and not fake.pending  # all actors were ended
    return outcomes


def failed(outcomes: dict[str, Outcome]) -> list[str]:
    return [task for task, outcome in outcomes.items() if outcome.error is not None]


# one bad node


@pytest.mark.parametrize("error", [MISSING, PermissionError(13, "Permission denied"), NodeDiskFullError("bad: full")])
def test_a_node_that_fails_everything_is_retired_and_nothing_is_lost(fake, caplog, error) -> None:
    fake.add_node("bad")
    fake.add_node("good")
    fake.run = lambda node, _task: error if node == "bad" else 100.0
    outcomes = run_pool(fake, TASKS)
    assert not failed(outcomes)
    assert {outcome.node for outcome in outcomes.values()} == {"good (10.0.0.1)"}
    retired = [record.message for record in caplog.records if "retired" in record.message]
    assert retired and all(line.startswith("bad (10.0.0.0): retired 1 of its workers") for line in retired)
    assert str(error) in retired[0]
    assert len(retired) <= 6  # in 40 minutes, with pauses that grow
    assert all(outcome.attempts <= 2 for outcome in outcomes.values())
    assert sum(node == "bad" for node, _ in fake.log) <= 3 * len(retired) + 3


def test_a_majority_of_bad_nodes_does_not_outvote_a_good_one(fake) -> None:
    for name in ("bad1", "bad2", "bad3"):
        fake.add_node(name)
    fake.add_node("good")
    fake.run = lambda node, _task: MISSING if node.startswith("bad") else 100.0
    assert not failed(run_pool(fake, TASKS))


def test_a_bad_node_that_is_ready_first_waits_for_the_others(fake) -> None:
    fake.add_node("bad")
    fake.add_node("good")
    fake.start = lambda node: 1.0 if node == "bad" else 60.0
    fake.run = lambda node, _task: MISSING if node == "bad" else 10.0
    retries: list[tuple[str, str]] = []
    assert not failed(run_pool(fake, TASKS, retries=retries))
    assert len(retries) <= 6


def test_broken_content_fails_after_a_second_opinion_and_retires_nobody(fake, caplog) -> None:
    fake.add_node("a", cpus=2)
    fake.add_node("b", cpus=2)
    broken = [f"broken{number}" for number in range(8)]
    fake.run = lambda _node, task: ValueError("too few photos") if task.startswith("broken") else 10.0
    outcomes = run_pool(fake, [*TASKS[:6], *broken, *TASKS[6:]])
    assert sorted(failed(outcomes)) == broken
    assert {outcomes[task].attempts for task in broken} == {2}
    assert all({node for node, each in fake.log if each == task} == {"a", "b"} for task in broken)
    assert "the traceback" in (outcomes["broken0"].traceback or "")
    assert "retired" not in caplog.text


def test_a_capture_that_no_node_has_is_given_up_soon(fake) -> None:
    for name in "abcd":
        fake.add_node(name, cpus=2)
    fake.run = lambda _node, _task: MISSING
    outcomes = run_pool(fake, TASKS)
    assert failed(outcomes) and len(failed(outcomes)) == len(TASKS)
    assert fake.clock.now < 60
    assert max(outcome.attempts for outcome in outcomes.values()) <= 4


def test_content_is_final_at_once_on_the_only_node(fake) -> None:
    fake.add_node("a", cpus=2)
    fake.run = lambda _node, _task: MISSING
    outcomes = run_pool(fake, TASKS)
    assert {outcome.attempts for outcome in outcomes.values()} == {1} and len(failed(outcomes)) == len(TASKS)


def test_a_failure_of_a_machine_is_tried_again_on_another_node(fake) -> None:
    fake.add_node("a", cpus=2)
    fake.add_node("b", cpus=2)
    fails = {"task3", "task9"}
    fake.run = lambda node, task: RuntimeError("CUDA error") if task in fails and node == "a" else 10.0
    outcomes = run_pool(fake, TASKS)
    assert not failed(outcomes)
    for task in fails:
        nodes = [node for node, each in fake.log if each == task]
        assert nodes[-1] == "b" and nodes.count("a") <= 1


def test_a_failure_of_every_machine_uses_up_the_attempts(fake) -> None:
    fake.add_node("a")
    fake.add_node("b")
    fake.run = lambda _node, task: MachineError("no memory") if task == "task5" else 10.0
    outcomes = run_pool(fake, TASKS)
    assert failed(outcomes) == ["task5"] and outcomes["task5"].attempts == 3


def test_one_bad_worker_of_a_node_is_retired(fake, caplog, monkeypatch) -> None:
    """A GPU that fails, beside seven of the same node that work."""
    fake.add_node("a", cpus=2)
    fake.add_node("b", cpus=2)
    victims: list[Any] = []

    run = FakeActor._run

    def run_on(actor: FakeActor, task: str, upcoming: Any) -> Any:
        if not victims and actor.node is fake.all_nodes[0]:
            victims.append(actor)
        fake.run = lambda _node, _task: RuntimeError("CUDA error") if actor in victims else 10.0
        return run(actor, task, upcoming)

    monkeypatch.setattr(FakeActor, "_run", run_on)
    assert not failed(run_pool(fake, TASKS))
    assert not victims[0].is_alive and caplog.text.count("retired") == 1


# starts


def test_a_node_that_dies_while_its_workers_start_ends_nothing(fake) -> None:
    fake.add_node("good")
    dying = fake.add_node("dying", cpus=6)
    fake.start = lambda node: 1.0 if node == "good" else 600.0
    fake.events.append((30.0, lambda: fake.kill_node(dying)))
    outcomes = run_pool(fake, TASKS, WorkersConfig(num=7, gpus=0))
    assert not failed(outcomes)


def test_starts_that_fail_are_repeated_with_pauses(fake) -> None:
    fake.add_node("good")
    fake.add_node("bad", cpus=6)
    fake.start = lambda node: 1.0 if node == "good" else DIES
    outcomes = run_pool(fake, TASKS)
    assert not failed(outcomes)
    times = sorted({round(time) for time, node in fake.starts if node == "bad"})
    assert times[1] - times[0] <= 3
    assert 30 <= max(b - a for a, b in pairwise(times)) <= 62
    assert len(times) <= 12  # in 4 minutes


def test_starts_that_fail_everywhere_end_the_run_and_name_the_nodes(fake) -> None:
    fake.add_node("a", cpus=8)
    fake.add_node("b", cpus=8)
    fake.start = lambda node: DIES if node == "a" else MachineError("b: torch sees no CUDA device")
    with pytest.raises(RunAborted, match=r"a \(10.0.0.0\): ActorDiedError.*; b \(10.0.0.1\): b: torch sees no CUDA"):
        run_pool(fake, TASKS)
    assert fake.clock.now < 120


def test_a_worker_that_cannot_be_created_on_one_node_leaves_the_others_working(fake, caplog) -> None:
    fake.add_node("good")
    fake.add_node("bad")
    fake.start = lambda node: 5.0 if node == "good" else ValueError("device = 'cuda': torch sees no CUDA device")
    assert not failed(run_pool(fake, TASKS))
    lines = [record.message for record in caplog.records if "cannot be created" in record.message]
    assert lines[0].startswith("bad (10.0.0.1): a worker cannot be created (device = 'cuda'") and len(lines) <= 4


def test_a_setting_that_no_node_accepts_is_the_users_error(fake) -> None:
    fake.add_node("a", cpus=2)
    fake.add_node("b", cpus=2)
    fake.start = lambda _node: ValueError("no such device")
    with pytest.raises(ValueError, match=r"^no such device$"):
        run_pool(fake, TASKS)


def test_at_most_64_actors_start_at_the_same_time(fake) -> None:
    fake.add_node("a", cpus=100)
    fake.start = lambda _node: 30.0
    num_starting: list[int] = []

    def count_starting(_busy: int, _ready: int) -> None:
        num_starting.append(sum((actor.ready.time or 0) > fake.clock.now for actor in fake.all_nodes[0].actors))

    run_pool(fake, [f"task{number}" for number in range(150)], on_busy=count_starting)
    assert max(num_starting) == 64 and 64 < fake.num_created <= 100


# growth and release


def test_workers_are_started_on_nodes_that_join(fake) -> None:
    fake.add_node("first")
    fake.events.append((60.0, lambda: fake.add_node("second", cpus=2)))
    outcomes = run_pool(fake, TASKS)
    nodes = Counter(outcome.node for outcome in outcomes.values())
    assert nodes["second (10.0.0.1)"] >= 10 and sum(nodes.values()) == len(TASKS)


def test_an_empty_cluster_is_asked_for_a_worker_and_waited_for(fake, caplog) -> None:
    fake.events.append((300.0, lambda: fake.add_node("late", cpus=4)))
    assert not failed(run_pool(fake, TASKS))
    lines = [record.message for record in caplog.records if "no worker is ready" in record.message]
    assert 3 <= len(lines) <= 5
    assert lines[0].startswith(
        "no worker is ready since 1 minutes: each needs 1 CPUs and 0 GPUs; the cluster has 0 CPUs"
    )


def test_the_wait_for_workers_is_bounded(fake) -> None:
    with pytest.raises(RunAborted, match=r"no worker was ready for 20 minutes \(workers.wait_minutes\)"):
        run_pool(fake, TASKS, WorkersConfig(gpus=0, wait_minutes=20))
    assert 1190 < fake.clock.now < 1230


def test_an_autoscaler_is_asked_for_all_that_it_may_start(fake, monkeypatch) -> None:
    monkeypatch.setattr(cluster, "_autoscaler_groups", lambda _ray: [({"CPU": 4, "GPU": 1}, 3)])
    asked = []

    def grow() -> None:
        asked.append(len(fake.pending))
        for name in "abc":
            fake.add_node(name, cpus=4, gpus=1)

    fake.events.append((100.0, grow))
    assert not failed(run_pool(fake, TASKS, WorkersConfig(gpus=0.5)))
    assert asked == [6]  # two on each GPU


def test_no_more_workers_are_started_than_there_are_tasks(fake) -> None:
    fake.add_node("a", cpus=64)
    assert not failed(run_pool(fake, TASKS[:3], WorkersConfig(num=64, gpus=0)))
    assert fake.num_created == 3


def test_idle_workers_are_released_at_the_end(fake) -> None:
    node = fake.add_node("a", cpus=4)
    fake.run = lambda _node, task: 10_000.0 if task == "task23" else 10.0
    alive = []
    run_pool(fake, TASKS, on_busy=lambda _busy, _ready: alive.append((fake.clock.now, len(node.actors))))
    assert {num for time, num in alive if time > 200} == {1}


def test_a_second_opinion_is_sought_even_if_the_other_nodes_were_released(fake) -> None:
    fake.add_node("good")
    fake.add_node("slow")

    def run(node: str, task: str) -> Any:
        if task == "last":
            return MISSING if node == "slow" else 1.0
        return 1.0 if node == "good" else 50.0

    fake.run = run
    outcomes = run_pool(fake, ["a", "b", "last"], WorkersConfig(num=2, gpus=0))
    assert not failed(outcomes)


# preemption


def test_a_preemption_costs_no_attempt(fake) -> None:
    fake.add_node("spot", cpus=1)
    ends = iter([PREEMPTED] * 4)
    fake.run = lambda _node, task: next(ends, 10.0) if task == "task0" else 10.0
    outcomes = run_pool(fake, TASKS[:4])
    assert not failed(outcomes) and outcomes["task0"].attempts == 1


def test_preemptions_of_one_task_are_bounded(fake) -> None:
    fake.add_node("spot", cpus=2)
    fake.run = lambda _node, task: PREEMPTED if task == "task0" else 10.0
    outcomes = run_pool(fake, TASKS[:4])
    assert failed(outcomes) == ["task0"]
    assert sum(task == "task0" for _, task in fake.log) == 13


def test_a_node_that_drains_gets_no_more_tasks(fake, monkeypatch) -> None:
    fake.add_node("spot")
    fake.add_node("other")
    draining: set[str] = set()
    monkeypatch.setattr(cluster, "draining_nodes", lambda _ray: draining)
    fake.events.append((55.0, lambda: draining.add("spot")))
    fake.events.append((200.0, lambda: fake.kill_node(fake.all_nodes[0])))
    assert not failed(run_pool(fake, TASKS))
    assert 4 <= sum(node == "spot" for node, _ in fake.log) <= 8


def test_nodes_that_all_drain_work_on(fake, monkeypatch) -> None:
    fake.add_node("a")
    fake.add_node("b")
    draining: set[str] = set()
    monkeypatch.setattr(cluster, "draining_nodes", lambda _ray: draining)
    fake.events.append((25.0, lambda: draining.update("ab")))
    assert not failed(run_pool(fake, TASKS))
    assert fake.clock.now < 200


# workers that hang


def test_a_worker_that_hangs_loses_its_task_to_another(fake, caplog) -> None:
    fake.add_node("stuck")
    fake.add_node("good")
    hung: list[str] = []

    def run(node: str, task: str) -> float:
        if node == "stuck" and not hung and fake.clock.now > 60:
            hung.append(task)
        return 1e9 if node == "stuck" and task in hung else 10.0

    fake.run = run
    retries: list[tuple[str, Failure]] = []
    outcomes = run_pool(fake, TASKS, WorkersConfig(gpus=0, task_minutes=60), retries=retries)
    [task] = hung
    assert not failed(outcomes) and outcomes[task].node == "good (10.0.0.1)" and outcomes[task].attempts == 2
    assert [(task, failure.kind) for task, failure in retries] == [(task, "machine")]
    assert retries[0][1].reason == "no answer for 60 minutes (workers.task_minutes): it hangs, or needs longer"
    assert 3600 < fake.clock.now < 4000
    slow = [message for message in caplog.messages if "at work" in message]
    assert len(slow) == 1 and slow[0].startswith(
        f"{task} on stuck (10.0.0.0): at work for 15 minutes, the longest before took 0.2; after 60 minutes its worker"
    )


def test_a_task_that_always_hangs_fails_after_its_attempts(fake) -> None:
    fake.add_node("a")
    fake.run = lambda _node, task: 1e9 if task == "task3" else 10.0
    outcomes = run_pool(fake, TASKS, WorkersConfig(gpus=0, task_minutes=60, attempts=2))
    assert failed(outcomes) == ["task3"] and outcomes["task3"].attempts == 2
    assert 7200 < fake.clock.now < 8000


def test_long_tasks_are_not_reported_where_the_others_are_as_long(fake, caplog) -> None:
    fake.add_node("a")
    fake.run = lambda _node, task: 800.0 if task == "task0" else 3000.0
    assert not failed(run_pool(fake, TASKS[:3]))
    assert not [message for message in caplog.messages if "at work" in message]


# affinity


def test_a_worker_keeps_to_the_group_that_it_has(fake) -> None:
    for name in "abcd":
        fake.add_node(name)
    tasks = [f"scene{scene}-f{fit}" for scene in range(8) for fit in range(6)]
    run_pool(fake, tasks, group=lambda task: task.split("-")[0])
    nodes: dict[str, set[str]] = {}
    for node, task in fake.log:
        nodes.setdefault(task.split("-")[0], set()).add(node)
    assert all(len(each) == 1 for each in nodes.values())


def test_a_group_is_shared_when_nothing_else_is_left(fake) -> None:
    for name in "abcd":
        fake.add_node(name)
    run_pool(fake, [f"scene-f{fit}" for fit in range(16)], group=lambda _: "scene")
    assert fake.clock.now < 60 and {node for node, _ in fake.log} == set("abcd")


def test_ray_remembers_the_names_of_a_bounded_number_of_tasks(fake, monkeypatch) -> None:
    """A driver of 100,000 fits had gigabytes of names."""
    monkeypatch.setattr("splatfix.workers.pool.MAX_NAMES", 5)
    named: list[str] = []
    monkeypatch.setattr(_Method, "options", lambda method, *, name: named.append(name) or method)
    fake.add_node("a")
    assert not failed(run_pool(fake, TASKS))
    assert named == TASKS[:5]
