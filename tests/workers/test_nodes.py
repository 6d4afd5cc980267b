"""The pool on real nodes of Ray: one that fails every task, one where workers die as they start, one without CUDA."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from splatfix.workers import RunAborted, WorkersConfig, run_tasks
from splatfix.workers.cluster import current_node

pytestmark = [pytest.mark.slow, pytest.mark.starts_ray]
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class NodeWorker:
    """Fails on one node, and dies on another as it starts."""

    fails_on: str
    dies_on: str = ""

    def __post_init__(self) -> None:
        if current_node() == self.dies_on:
            os._exit(1)

    def run(self, task: str, upcoming: str | None) -> str:  # noqa: ARG002 - of the protocol
        if current_node() == self.fails_on:
            raise ValueError("/mnt/captures/room: no such folder")
        time.sleep(0.2)
        return os.environ.get("CUDA_VISIBLE_DEVICES", "all")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without cores, and three nodes, one of which says that it has a GPU."""
    import ray
    from ray.cluster_utils import Cluster

    patch = pytest.MonkeyPatch()
    patch.setenv("PYTHONPATH", str(ROOT))
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes.ids = [nodes.add_node(num_cpus=1).node_id, nodes.add_node(num_cpus=1).node_id]
    nodes.ids.append(nodes.add_node(num_cpus=1, num_gpus=1).node_id)
    ray.init(address=nodes.address, log_to_driver=False, logging_level=logging.ERROR)
    yield nodes
    ray.shutdown()
    nodes.shutdown()
    patch.undo()


def test_a_bad_node_and_one_where_workers_die_cost_no_task(cluster, caplog) -> None:
    good, failing, dying = cluster.ids
    tasks = [f"task{number}" for number in range(24)]
    make = partial(NodeWorker, failing, dying)
    outcomes = list(run_tasks(tasks, make, WorkersConfig(gpus=0), name=str))
    assert sorted(outcome.task for outcome in outcomes) == sorted(tasks)
    assert [outcome.error for outcome in outcomes if outcome.error is not None] == []
    assert {outcome.result for outcome in outcomes} == {""}  # no GPU is visible
    assert "a worker died before it was ready" in caplog.text
    assert good  # the only one that is left


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_share_of_a_gpu_that_torch_cannot_use_ends_the_run(cluster) -> None:
    with pytest.raises(RunAborted, match=r"this worker holds 0.5 of a GPU, but torch .* sees no CUDA device"):
        list(run_tasks(["a"], partial(NodeWorker, ""), WorkersConfig(num=1, gpus=0.5), name=str))
    assert cluster.ids
