"""Which nodes a trial avoids."""

from __future__ import annotations

from typing import Any

import pytest

from splatfix.sweep.placement import avoidable_nodes


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
