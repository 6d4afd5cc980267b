"""Which nodes a trial avoids, and how long it waits for one."""

from __future__ import annotations

from typing import Any

import pytest

from splatfix.errors import RunAborted
from splatfix.sweep.placement import BoundedWait, avoidable_nodes


def node(name: str, cpus: float = 4, gpus: float = 0, alive: bool = True) -> dict[str, Any]:
    return {"NodeID": name, "Alive": alive, "Resources": {"CPU": cpus, "GPU": gpus}}


@pytest.mark.parametrize(
    ("nodes", "resources", "expected"),
    [
        ([node("bad"), node("good")], {"CPU": 1.0}, ["bad"]),
        ([node("bad")], {"CPU": 1.0}, []),  # there is no other
        ([node("bad"), node("good", alive=False)], {"CPU": 1.0}, []),
        ([node("bad", gpus=1), node("good")], {"CPU": 1.0, "GPU": 0.5}, []),  # the other one has no GPU
        ([node("head", cpus=0), node("bad"), node("good")], {"CPU": 1.0, "GPU": 0.0}, ["bad"]),
        ([node("bad", alive=False), node("good")], {"CPU": 1.0}, []),  # nothing to avoid
    ],
)
def test_a_node_is_avoided_only_where_another_has_room(nodes, resources, expected):
    assert avoidable_nodes(nodes, {"bad"}, resources) == expected


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
    assert [record.message for record in caplog.records] == [
        "no trial runs: waiting up to 10 minutes for a node with 2 CPU"
    ]
    now[0] = 1101
    with pytest.raises(
        RunAborted, match=r"for 10 minutes no node had room for a trial \(2 CPU\).*the same command resumes"
    ):
        wait.check(num_waiting=1, num_running=0)
