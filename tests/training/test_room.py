"""The end of a Ray Train that waits for room, without Ray: it is replaced by a trainer that ends when it is killed."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import ray.train
from ray.train.torch import TorchTrainer

from splatfix.errors import RunAborted
from splatfix.mirror import Mirror
from splatfix.training import launch as launching
from splatfix.training.cluster import watching_room
from splatfix.training.config import TrainWorkersConfig
from tests.training.small import CONFIG
from tests.waiting import wait_for

JOB, OTHER_JOB = "04000000", "05000000"


class FakeRay:
    """A cluster with room for two workers, and placement groups; it notes what is killed and removed."""

    train, exceptions, PlacementGroupID = ray.train, ray.exceptions, ray.PlacementGroupID

    def __init__(self) -> None:
        self.groups: dict[str, dict[str, Any]] = {}
        self.util = SimpleNamespace(
            placement_group_table=lambda: dict(self.groups), remove_placement_group=lambda group: self.remove(group.id)
        )
        self.is_killed = threading.Event()
        self.aborts: list[float] = []

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(get_job_id=lambda: JOB)

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": 2.0}, "Labels": {}}]

    def add(self, number: int, job: str, state: str) -> str:
        name = f"{number:028x}{job}"
        self.groups[name] = {"state": state, "bundles": {0: {"CPU": 1.0}, 1: {"CPU": 1.0}}}
        return name

    def remove(self, group: Any) -> None:
        self.groups[group.hex()]["state"] = "REMOVED"

    def kill(self, controller: Any) -> None:
        assert controller.name == "controller"
        self.is_killed.set()

    def wait(self, _asked: list[Any], timeout: float) -> None:
        self.aborts.append(timeout)

    @property
    def states(self) -> dict[str, str]:
        return {name: group["state"] for name, group in self.groups.items()}


@pytest.fixture
def fake(monkeypatch) -> FakeRay:
    monkeypatch.setattr(launching, "watching_room", partial(watching_room, poll_seconds=0.01))
    monkeypatch.setattr("splatfix.training.cluster.LEAST_WAIT_SECONDS", 0.05)
    return FakeRay()


def fit(fake: FakeRay, monkeypatch, tmp_path, run: Any, **workers: Any) -> Any:
    """Run `_fit` with a trainer whose run is this function."""

    def fit_with(trainer: Any) -> None:
        remote = SimpleNamespace(remote=lambda: None)
        trainer._register_sigint_handler(SimpleNamespace(name="controller", abort=remote))
        run()

    monkeypatch.setattr(TorchTrainer, "fit", fit_with)
    config = replace(CONFIG, workers=TrainWorkersConfig(num=2, wait_minutes=0, **workers))
    work = launching._Work("shards", Mirror(tmp_path), config, {}, None)
    return launching._fit(fake, work, False, str(tmp_path))


def test_ray_train_sets_its_handler_of_ctrl_c_where_it_is_replaced():
    """Its handler waits for the controller, which does not answer while it waits for room."""
    assert callable(TorchTrainer._register_sigint_handler)


def test_a_wait_for_room_is_given_up_and_its_placement_group_removed(fake, monkeypatch, tmp_path):
    mine, theirs = fake.add(1, JOB, "CREATED"), fake.add(2, OTHER_JOB, "PENDING")  # neither is of this training

    def wait_until_killed() -> None:
        fake.add(3, JOB, "PENDING")
        assert fake.is_killed.wait(30)
        raise ray.exceptions.RayActorError

    with pytest.raises(RunAborted, match=r"^workers.num = 2: waited .* for room: training wants 2 workers with 1 CPUs"):
        fit(fake, monkeypatch, tmp_path, wait_until_killed)
    assert fake.states == {mine: "CREATED", theirs: "PENDING", f"{3:028x}{JOB}": "REMOVED"}
    assert fake.aborts == []  # which a controller that waits for room does not answer


@pytest.mark.parametrize("state", ["PENDING", "CREATED"])
def test_ctrl_c_keeps_its_handler_and_ends_the_controller(fake, monkeypatch, tmp_path, state):
    handler = signal.getsignal(signal.SIGINT)

    def interrupt() -> None:
        assert signal.getsignal(signal.SIGINT) is handler
        fake.add(3, JOB, state)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(fake, monkeypatch, tmp_path, interrupt)
    assert fake.is_killed.is_set() and list(fake.states.values()) == ["REMOVED"]
    assert fake.aborts == ([] if state == "PENDING" else [launching.ABORT_SECONDS])


@pytest.mark.slow
def test_a_ray_that_does_not_answer_holds_up_no_end(fake, monkeypatch, tmp_path):
    monkeypatch.setattr(launching, "END_SECONDS", 0.1)
    answer, asked = threading.Event(), threading.Event()

    def interrupt() -> None:
        def hang() -> dict[str, Any]:
            asked.set()
            answer.wait(60)
            return {}

        fake.util.placement_group_table = hang
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(fake, monkeypatch, tmp_path, interrupt)
    assert not answer.is_set()
    wait_for(asked.is_set, seconds=10)
    answer.set()


@pytest.mark.parametrize(
    ("workers", "seconds"), [({}, 960), ({"min_num": 1}, 450), ({"min_num": 1, "wait_minutes": 0}, 60)]
)
def test_ray_train_begins_no_wait_anew_except_for_fewer_workers(fake, monkeypatch, tmp_path, workers, seconds):
    monkeypatch.delenv(launching.START_TIMEOUT, raising=False)
    seen = []
    monkeypatch.setattr(TorchTrainer, "fit", lambda _: seen.append(float(os.environ[launching.START_TIMEOUT])))
    config = replace(CONFIG, workers=TrainWorkersConfig(num=2, **workers))
    launching._fit(fake, launching._Work("shards", Mirror(tmp_path), config, {}, None), False, str(tmp_path))
    assert seen == [seconds]


def test_a_controller_that_never_starts_is_given_up(fake, monkeypatch, tmp_path):
    monkeypatch.setattr("splatfix.training.cluster.START_SECONDS", 0.2)

    def wait_until_killed() -> None:
        assert fake.is_killed.wait(30)
        raise ray.exceptions.RayActorError

    with pytest.raises(RunAborted, match=r"^Ray Train's controller has asked for no workers after 0\.2 s"):
        fit(fake, monkeypatch, tmp_path, wait_until_killed)


def test_a_ray_that_never_answers_the_request_for_a_controller_ends_the_command(fake, monkeypatch, tmp_path):
    monkeypatch.setattr("splatfix.training.cluster.START_SECONDS", 0.2)
    reasons: list[str] = []
    monkeypatch.setattr(launching, "abort_command", reasons.append)
    monkeypatch.setattr(TorchTrainer, "fit", lambda _: wait_for(lambda: bool(reasons), seconds=30))
    config = replace(CONFIG, workers=TrainWorkersConfig(num=2))
    launching._fit(fake, launching._Work("shards", Mirror(tmp_path), config, {}, None), False, str(tmp_path))
    assert reasons[0].startswith("Ray Train's controller has asked for no workers after 0.2 s")
