"""GPUs or not, room for workers, waiting for nodes, and what the workers of a training get, without a cluster."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from splatfix.errors import MachineError
from splatfix.files import read_json
from splatfix.mirror import Mirror
from splatfix.pairs import write_shards
from splatfix.training import launch as launching
from splatfix.training.cluster import choose_gpus, describe_shortage, room_for, wait_for_room, watching_room
from splatfix.training.config import TrainConfig, TrainWorkersConfig
from tests.restoration.scenery import pair
from tests.training.small import CONFIG
from tests.waiting import wait_for


def node(
    cpus: float = 4, gpus: float = 0, kind: str | None = None, alive: bool = True, **labels: str
) -> dict[str, Any]:
    resources = {"CPU": cpus, "GPU": gpus} | ({f"accelerator_type:{kind}": 1.0} if kind else {})
    return {"Alive": alive, "Resources": resources, "Labels": labels}


def config(device: str = "auto", **workers: Any) -> TrainConfig:
    return replace(CONFIG, device=device, workers=TrainWorkersConfig(**{"num": 2, **workers}))


def test_gpus_are_used_where_there_are_enough():
    two, none = [node(gpus=1), node(gpus=1)], [node()]
    assert choose_gpus(config(), two)
    assert not choose_gpus(config(), none)
    assert not choose_gpus(config(gpus=0), two) and not choose_gpus(config(device="cpu"), two)
    assert choose_gpus(config(gpus=1), none) and choose_gpus(config(device="cuda"), none)  # which waits for them


def test_too_few_gpus_are_refused_rather_than_trained_without():
    with pytest.raises(
        ValueError, match=r"workers.gpus = null: the cluster has 1 GPUs for 2 workers.*--workers.gpus 0"
    ):
        choose_gpus(config(), [node(gpus=1), node()])
    assert choose_gpus(config(min_num=1), [node(gpus=1), node()])
    with pytest.raises(ValueError, match=r"has 1 GPUs for 2 workers"):  # the others are not of that type
        choose_gpus(config(accelerator="H100"), [node(gpus=1, kind="H100"), node(gpus=8, kind="L4")])
    with pytest.raises(ValueError, match=r"device = 'cuda': does not fit workers.gpus = 0"):
        choose_gpus(config(device="cuda", gpus=0), [node(gpus=2)])


def test_room_is_counted_node_by_node():
    workers = TrainWorkersConfig(num=2, cpus=3)
    assert room_for(workers, False, [node(4), node(4), node(2), node(9, alive=False)]) == 2
    assert room_for(workers, True, [node(4, gpus=1), node(6, gpus=1), node(8)]) == 2
    labeled = replace(workers, labels={"market": "on-demand", "zone": "in(a,b)"})
    assert room_for(labeled, False, [node(4, market="spot", zone="a"), node(6, market="on-demand", zone="b")]) == 2


def test_a_fixed_cluster_without_room_is_refused_at_once():
    with pytest.raises(
        ValueError, match=r"workers.num = 2: wants room for 2 workers with 1 CPUs, 1 GPU each, .* for 1;"
    ):
        wait_for_room(config().workers, True, find_nodes=lambda: [node(gpus=1)], ask=None)


def test_training_waits_for_the_nodes_that_it_asks_for(caplog):
    caplog.set_level("INFO")
    asked, slept = [], []

    def find_nodes() -> list[dict[str, Any]]:  # the head has no cores; nodes come after three minutes
        return [node(0), *([node(), node()] if sum(slept) >= 180 else [])]

    wait_for_room(config(cpus=3).workers, False, find_nodes=find_nodes, ask=lambda: asked.append(1), sleep=slept.append)
    assert len(asked) == 1 and sum(slept) == 180
    assert caplog.text.count("waiting for nodes: training wants room for 2 workers with 3 CPUs each") == 3
    with pytest.raises(ValueError, match=r"has room for 0 after 2 minutes \(workers.wait_minutes\)"):
        wait_for_room(config(wait_minutes=2).workers, False, find_nodes=list, ask=list, sleep=slept.append)


LOST = "room for 2 workers with 1 CPUs each, the cluster has room for 1"
HELD = "room: training wants 2 workers with 1 CPUs each, and other jobs hold what the cluster has for them"


def watching(nodes: list[dict[str, Any]], groups: list[dict[str, Any]], reasons: list[str], **workers: Any) -> Any:
    def find_groups() -> dict[str, dict[str, Any]]:
        return {str(number): group for number, group in enumerate(groups)}

    finders: Any = {"find_nodes": lambda: nodes, "find_groups": find_groups}
    seconds = {"poll_seconds": 0.01, "message_seconds": 0.02}
    return watching_room(config(**workers).workers, False, **finders, give_up=reasons.append, **seconds)


def group(state: str, num: int = 2) -> dict[str, Any]:
    return {"state": state, "bundles": {number: {"CPU": 1.0} for number in range(num)}}


def test_lost_nodes_are_told(caplog):
    caplog.set_level("INFO")
    with watching([node(1)], [], []):
        wait_for(lambda: LOST in caplog.text, seconds=10)


def test_room_that_others_hold_is_told_each_minute(caplog):
    caplog.set_level("INFO")
    message = f"waiting for {HELD}; training waits 15 minutes at most"
    with watching([node(4)], [group("REMOVED"), group("PENDING")], []):
        wait_for(lambda: [record.message for record in caplog.records].count(message) >= 2, seconds=10)


@pytest.mark.parametrize(("nodes", "groups", "wanted"), [([node(1)], [], LOST), ([node(4)], [group("PENDING")], HELD)])
def test_a_wait_that_is_too_long_is_given_up(nodes, groups, wanted, monkeypatch):
    monkeypatch.setattr("splatfix.training.cluster.LEAST_WAIT_SECONDS", 0.06)
    reasons: list[str] = []
    with watching(nodes, groups, reasons, wait_minutes=0.001):
        wait_for(lambda: len(reasons) >= 2, seconds=10)
    assert wanted in reasons[0] and "waited 0.001 minutes (workers.wait_minutes) for" in reasons[0]
    assert reasons[0].endswith("run the same command when there is room, or take fewer workers or a longer wait")


def test_a_wait_goes_on_between_two_placement_groups_and_without_answers(monkeypatch):
    """Ray Train removes its group and asks for another one; that must not begin the wait anew."""
    monkeypatch.setattr("splatfix.training.cluster.LEAST_WAIT_SECONDS", 0.0)
    looks = iter([{"1": group("PENDING")}, {"1": group("REMOVED")}, RuntimeError("away"), {"2": group("PENDING")}])
    is_done = threading.Event()

    def find_groups() -> dict[str, Any]:
        look = next(looks, None)
        if look is None:
            is_done.set()
            return {}
        if isinstance(look, Exception):
            raise look
        return look

    reasons: list[str] = []
    finders: Any = {"find_nodes": lambda: [node(4)], "find_groups": find_groups}
    workers = config(wait_minutes=0).workers
    with watching_room(workers, False, **finders, give_up=reasons.append, poll_seconds=0.01):
        assert is_done.wait(10)
    assert len(reasons) == 1


def test_training_that_has_its_room_waits_for_none():
    workers = config(placement="STRICT_PACK").workers
    assert describe_shortage(workers, False, [node(1)], [group("REMOVED"), group("CREATED")]) is None
    assert describe_shortage(workers, False, [node(4)], [group("REMOVED")]) is None
    strict = describe_shortage(workers, False, [node(1), node(1)], [group("PENDING")])
    assert strict is not None and "other jobs hold or workers.placement = STRICT_PACK rules out what" in strict


def test_a_gpu_that_torch_cannot_use_is_an_error_of_the_machine(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(MachineError, match=r"this worker holds a GPU, but torch .* sees no CUDA device"):
        launching._run_process(launching._Work("shards", Mirror(tmp_path), config("cuda"), {}, None))


@pytest.mark.parametrize(
    ("workers", "message"),
    [
        ({"num": 2, "min_num": 3}, "workers.min_num = 3: wanted 1 to workers.num = 2"),
        ({"wait_minutes": -1}, "0 or more"),
    ],
)
def test_settings_that_cannot_be_are_refused(workers, message):
    with pytest.raises(ValueError, match=message):
        TrainWorkersConfig(**workers)


class FakeRay:
    """A cluster of two nodes; what would be run on it is kept."""

    def __init__(self) -> None:
        self.work: Any = None

    def nodes(self) -> list[dict[str, Any]]:
        return [node(), node()]

    def fit(self, ray: Any, work: Any, gpus: bool, place: str) -> Any:  # noqa: ARG002
        self.work = work
        return type("Result", (), {"checkpoint": None})


@pytest.fixture
def fake(monkeypatch) -> FakeRay:
    fake = FakeRay()
    monkeypatch.setattr(launching, "_fit", fake.fit)
    return fake


def test_workers_get_the_address_of_mlflow_from_the_driver(tmp_path, fake, monkeypatch, caplog):
    """A worker's own environment lacks it: the records went to a database on the worker's disk."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "secret")
    tracked = replace(config(), tracking=replace(CONFIG.tracking, enabled=True))
    launching._train_on_ray(fake, "/shards", Mirror(tmp_path), tracked)
    assert fake.work.environment["MLFLOW_TRACKING_URI"] == "http://tracking:5000"
    assert fake.work.environment["MLFLOW_TRACKING_TOKEN"] == "secret"
    assert "MLflow's database" not in caplog.text
    seen: dict[str, str] = {}
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.setattr(launching, "check_token", lambda *_: seen.update(os.environ) or _stop())
    with pytest.raises(KeyboardInterrupt):
        launching._run_process(fake.work)  # as on another node
    assert seen["MLFLOW_TRACKING_URI"] == "http://tracking:5000"


def _stop() -> None:
    raise KeyboardInterrupt


def test_several_nodes_without_a_server_are_warned(tmp_path, fake, monkeypatch, caplog):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracked = replace(config(), tracking=replace(CONFIG.tracking, enabled=True))
    launching._train_on_ray(fake, "/shards", Mirror(tmp_path), tracked)
    assert "MLflow's database mlflow.db is on that disk" in caplog.text and fake.work.token is not None
    stored = replace(tracked, workers=replace(tracked.workers, storage=str(tmp_path / "stored")))
    launching._train_on_ray(fake, "/shards", Mirror(tmp_path), stored)
    assert "is on the disk of one node, and lost with it" in caplog.text and fake.work.token is None


def test_a_relative_output_in_a_job_is_refused(monkeypatch):
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(ValueError, match="--out runs/a: is relative to the folder of this Ray job"):
        launching.launch("shards", Path("runs/a"), config())


def test_a_password_is_not_written(tmp_path):
    shards = tmp_path / "shards"
    write_shards([pair(i, scene) for scene in ("a", "b") for i in range(2)], shards)
    uri = "http://me:secret@127.0.0.1:9/"
    tracked = replace(CONFIG, tracking=replace(CONFIG.tracking, uri=uri))
    data = launching.open_data(shards, tracked.data, launching.family_of(tracked.network).inputs(tracked.network), 0)
    launching.open_training(tmp_path / "out", tracked, data)
    assert read_json(tmp_path / "out" / "run.json")["settings"]["tracking"]["uri"] == "http://127.0.0.1:9/"
    assert "secret" not in (tmp_path / "out" / "config.yaml").read_text()


def test_a_controller_that_never_asks_for_workers_is_given_up(monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr("splatfix.training.cluster.START_SECONDS", 0.3)
    reasons: list[str] = []
    with watching([node(4)], [], reasons):
        wait_for(lambda: bool(reasons), seconds=10)
    assert "waiting for Ray Train's controller; training waits 0.3 s at most" in caplog.text
    assert reasons[0].startswith("Ray Train's controller has asked for no workers after 0.3 s; run the same command")


def test_a_controller_that_has_asked_is_not_given_up(monkeypatch):
    monkeypatch.setattr("splatfix.training.cluster.START_SECONDS", 0.3)
    groups, reasons = [group("CREATED")], []
    with watching([node(4)], groups, reasons):
        time.sleep(0.1)
        groups.clear()
        time.sleep(0.5)
    assert not reasons
