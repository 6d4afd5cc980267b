"""A simulated Ray for tests of the pool, and a real one."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from splatfix.workers import cluster, members, pool, relay
from tests.conftest import ROOT
from tests.workers.fake_ray import Clock, FakeRay


@pytest.fixture
def fake(monkeypatch) -> FakeRay:
    """A simulated Ray without nodes, whose clock the pool reads."""
    clock = Clock()
    for module in (pool, members, relay):
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(pool, "POLL_SECONDS", 5.0)
    monkeypatch.setattr(cluster, "_autoscaler_groups", lambda _ray: [])
    monkeypatch.setattr(cluster, "draining_nodes", lambda _ray: set())

    def node_of_actor(_ray: FakeRay, handle: Any, _error: BaseException | None = None) -> str | None:
        return None if handle.node is None else handle.node.name

    monkeypatch.setattr(members, "node_of_actor", node_of_actor)
    return FakeRay(clock)


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """Ray on two cores for the tests of one file, whose modules the workers can import."""
    import ray

    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}},
    )
    yield
    ray.shutdown()
