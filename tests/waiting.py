"""Waiting for what other processes do, and looking into MLflow."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from splatfix.tracking import sender

LONG_ENOUGH = 120.0  # seconds, on a busy machine


def wait_for(condition: Callable[[], bool], seconds: float = LONG_ENOUGH) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that in time"
        time.sleep(0.02)


def client(uri: str) -> Any:
    return sender._import_mlflow().MlflowClient(tracking_uri=uri)


def all_runs(uri: str, experiment: str = "splatfix") -> list[Any]:
    at = client(uri)
    return list(at.search_runs([at.get_experiment_by_name(experiment).experiment_id]))
