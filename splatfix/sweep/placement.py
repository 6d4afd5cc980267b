"""Which nodes of a cluster a trial keeps away from. Nothing here imports Ray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def avoidable_nodes(nodes: Sequence[Mapping[str, Any]], avoided: set[str], resources: Mapping[str, float]) -> list[str]:
    """The living nodes to avoid; none where no other node has such resources at all.

    Args:
        nodes: as `ray.nodes` describes them.
        avoided: their ids.
        resources: that a trial needs.
    """
    fit = [
        node["NodeID"]
        for node in nodes
        if node["Alive"] and all(node["Resources"].get(name, 0) >= each for name, each in resources.items())
    ]
    return sorted(avoided & set(fit)) if set(fit) - avoided else []
