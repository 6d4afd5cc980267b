"""Which nodes a trial avoids, and how long it waits for one."""

from __future__ import annotations

from typing import Any

import pytest

from splatfix.errors import RunAborted
from splatfix.loop import LoopConfig
from splatfix.mirror import Mirror
from splatfix.sweep.placement import BoundedWait, SlowRounds, avoidable_nodes
from splatfix.workers import WorkersConfig


def node(name: str, cpus: float = 4, gpus: float = 0, alive: bool = True, **labels: str) -> dict[str, Any]:
    return {"NodeID": name, "Alive": alive, "Resources": {"CPU": cpus, "GPU": gpus}, "Labels": labels}


@pytest.mark.parametrize(
    ("nodes", "needs", "expected"),
    [
        ([node("bad"), node("good")], {}, ["bad"]),
        ([node("bad")], {}, []),  # there is no other
        ([node("bad"), node("good", alive=False)], {}, []),
        ([node("bad", gpus=1), node("good")], {"gpus": 0.5}, []),  # the other one has no GPU
        ([node("head", cpus=0), node("bad"), node("good")], {"gpus": 0.0}, ["bad"]),
        ([node("bad", alive=False), node("good")], {}, []),  # nothing to avoid
        ([node("bad"), node("good")], {"memory_gb": 1.0}, []),  # none has memory
        ([node("bad", market="spot"), node("good")], {"labels": {"market": "spot"}}, []),
        ([node("bad", market="spot"), node("good", market="spot")], {"labels": {"market": "spot"}}, ["bad"]),
        ([node("bad", gpus=1), node("good", gpus=1)], {"gpus": 1.0, "accelerator": "A100"}, []),
    ],
)
def test_a_node_is_avoided_only_where_another_has_room(nodes, needs, expected):
    workers = WorkersConfig(**needs)
    assert avoidable_nodes(nodes, {"bad"}, workers, workers.gpus or 0.0) == expected


def test_a_trial_asks_for_what_other_workers_ask_for(tmp_path):
    from splatfix.sweep import ray_tune

    workers = WorkersConfig(cpus=2, gpus=0.5, memory_gb=3.0, accelerator="A100", labels={"market": "!spot"})
    work = ray_tune._Work(Mirror(tmp_path), "token", LoopConfig(), (), "psnr", workers, 0.5)
    trial = type("Trial", (ray_tune.TuneTrial,), {"work": work})
    wanted = trial.default_resource_request({"avoid": ["b", "a"]})
    assert wanted.bundles == [{"CPU": 2.0, "GPU": 0.5, "memory": 3e9, "accelerator_type:A100": 0.001}]
    assert wanted._bound.arguments["bundle_label_selector"] == [{"market": "!spot", "ray.io/node-id": "!in(a, b)"}]
    work = ray_tune._Work(Mirror(tmp_path), "token", LoopConfig(), (), "psnr", WorkersConfig(), 0.0)
    trial = type("Trial", (ray_tune.TuneTrial,), {"work": work})
    assert trial.default_resource_request({"avoid": []}).bundles == [{"CPU": 1.0}]  # Tune leaves out zeros


def test_trials_do_not_wait_for_ever(caplog):
    now = [0.0]
    wait = BoundedWait(10, {"CPU": 2.0, "GPU": 0.0}, clock=lambda: now[0])
    wait.check(num_waiting=3, num_running=0)
    now[0] = 500
    wait.check(num_waiting=3, num_running=1)  # one runs: from now on they wait anew
    wait.check(num_waiting=3, num_running=0)
    assert caplog.text == ""
    now[0] = 1000
    for _ in range(2):
        wait.check(num_waiting=3, num_running=0)
    assert caplog.messages == ["no trial has run for 8 minutes: waiting up to 10 minutes for a node with 2 CPU"]
    now[0] = 1101
    with pytest.raises(
        RunAborted, match=r"for 10 minutes no node had room for a trial \(2 CPU\).*the same command resumes"
    ):
        wait.check(num_waiting=1, num_running=0)


def test_the_wait_for_a_node_is_reported_again(caplog):
    now = [0.0]
    wait = BoundedWait(60, {"CPU": 2.0}, clock=lambda: now[0])
    for minute in range(50):
        now[0] = 60.0 * minute
        wait.check(num_waiting=1, num_running=0)
    minutes = [message.split("for ")[1].split(":")[0] for message in caplog.messages]
    assert minutes == ["2 minutes", "12 minutes", "22 minutes", "32 minutes", "42 minutes"]


def test_a_round_that_takes_too_long_is_found_once():
    now = [0.0]
    rounds = SlowRounds(10, clock=lambda: now[0])
    assert not rounds.is_over("a", "trial 0", None)  # it waits for a place
    for seconds, num_rounds in ((1000, 0), (1500, 0), (1599, 1), (2198, 1)):
        now[0] = seconds
        assert not rounds.is_over("a", "trial 0", num_rounds) and not rounds.ended
    now[0] = 2200
    assert rounds.is_over("a", "trial 0", 1) and rounds.ended == {"a"}
    assert not rounds.is_over("a", "trial 0", 1)
