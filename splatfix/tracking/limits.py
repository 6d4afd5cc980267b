"""Limits of MLflow: entries per call, lengths of values, and characters of names."""

from __future__ import annotations

import re

MAX_PER_CALL = {"metrics": 1000, "params": 100, "tags": 100}
MAX_KEY, MAX_PARAM, MAX_TAG = 250, 6000, 5000  # characters


def mlflow_name(key: object) -> str:
    """Turn a key into a name that MLflow takes for a param, metric or tag."""
    parts = re.sub(r"[^\w\-. :/]", "_", str(key)).split("/")
    return "/".join(part for part in parts if part not in ("", ".", ".."))[:MAX_KEY].rstrip("/") or "_"
