"""Fixtures for trainings."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from accelerate.state import AcceleratorState, PartialState

from splatfix.pairs import write_shards
from tests.restoration.scenery import pair


@pytest.fixture(autouse=True)
def fresh_accelerator() -> Iterator[None]:
    """Let each training of a test set up its own accelerator."""
    yield
    AcceleratorState._reset_state()
    PartialState._reset_state()


@pytest.fixture(scope="session")
def shards(tmp_path_factory) -> str:
    """Shards with five pairs of each of four scenes."""
    folder = tmp_path_factory.mktemp("shards")
    scenes = [pair(i, scene) for scene in ("a", "b", "c", "d") for i in range(5)]
    write_shards(scenes, folder, samples_per_shard=4)
    return str(folder)
