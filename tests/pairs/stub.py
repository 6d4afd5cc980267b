"""A worker without fits: it sleeps, and commits a few pairs that the task determines."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from splatfix.pairs import Pair
from splatfix.pairs.index import commit_fit
from splatfix.pairs.tasks import Task
from splatfix.pairs.worker import TaskResult, WorkerSettings

MORE: dict[str, Any] = {}  # further fields of the record of each fit


@dataclass(frozen=True)
class StubWorker:
    """Commits ``num_pairs`` pairs of each task after ``seconds``, and fails for captures with "broken" in their name.

    Each process creates a file in the folder ``pids``, with its process id as the name.
    """

    settings: WorkerSettings
    seconds: float = 0.0
    num_pairs: int = 2
    pids: Path | None = None

    def __post_init__(self) -> None:
        if self.pids is not None:
            (self.pids / str(os.getpid())).touch()

    def run(self, task: Task, upcoming: Task | None) -> TaskResult:  # noqa: ARG002
        time.sleep(self.seconds)
        if "broken" in task.source.name:
            raise ValueError(f"{task.source.url}: cannot be fitted")
        pairs = [make_gray_pair(task, k) for k in range(self.num_pairs)] if task.kind == "pairs" else []
        record = {
            "kind": task.kind,
            "scene": task.source.name,
            "capture": task.source.url,
            "group": task.source.group,
            "recipe": task.recipe,
            "source": "stub",
            "bands": {"near": len(pairs)},
            "psnr": {"12": len(pairs)},
            "clean_from": {"photo": len(pairs)},
            "settings": {"num_steps": 10},
            "seconds": {"fit": self.seconds},
        }
        return TaskResult(*commit_fit(self.settings.out, task.stem, pairs, record | MORE))


def make_gray_pair(task: Task, number: int) -> Pair:
    """Make a small gray pair; the task and the number determine the gray."""
    gray = np.full((8, 8, 3), (task.fit_index * 16 + number) % 256, np.uint8)
    meta = {"group": task.source.group, "band": "near", "artifact_psnr": 12.0, "clean_from": "photo"}
    alpha, nearness = gray[..., 0], gray[..., 0].astype(np.uint16)
    return Pair(
        task.source.name, f"f{task.fit_index:03d}", f"view{number}", gray, 255 - gray, alpha, nearness, meta=meta
    )
