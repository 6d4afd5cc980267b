"""Every metric that splatfix reports: name, type, unit and labels. Ray exports them to Prometheus as ``ray_<name>``.

No label takes a value of which there may be many (scenes, views): a time series costs memory for good.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

SECONDS = [0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000]


@dataclass(frozen=True)
class Metric:
    """A metric: its kind, unit, meaning and labels."""

    kind: Literal["counter", "gauge", "histogram"]
    unit: str
    meaning: str
    labels: tuple[str, ...] = ()


METRICS: dict[str, Metric] = {
    "splatfix_fits_total": Metric("counter", "fits", "Fits that ended, by outcome", ("outcome",)),
    "splatfix_pairs_total": Metric("counter", "pairs", "Training pairs that were committed"),
    "splatfix_pairs_filtered_total": Metric("counter", "pairs", "Views left out, since their render covers too little"),
    "splatfix_shard_bytes_total": Metric("counter", "bytes", "Bytes of shards that were committed"),
    "splatfix_stage_seconds": Metric("histogram", "seconds", "Time of one fit's stages", ("stage",)),
    "splatfix_workers": Metric("gauge", "workers", "Workers that are ready"),
    "splatfix_workers_busy_ratio": Metric("gauge", "ratio", "Share of the ready workers that have a task"),
    "splatfix_fits_left": Metric("gauge", "fits", "Fits that are planned and not done"),
}


class Telemetry:
    """Sends metrics to Ray where this process is connected to it; else does nothing."""

    def __init__(self) -> None:
        self._metrics: dict[str, Any] = {}

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter."""
        if amount > 0 and (metric := self._metric(name)) is not None:
            metric.inc(amount, labels)

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        if (metric := self._metric(name)) is not None:
            metric.set(value, labels)

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Add a value to a histogram."""
        if (metric := self._metric(name)) is not None:
            metric.observe(value, labels)

    def _metric(self, name: str) -> Any | None:
        declared = METRICS[name]
        if name not in self._metrics:
            import sys

            if "ray" not in sys.modules:
                return None
            import ray
            from ray.util import metrics

            if not ray.is_initialized():
                return None
            settings: dict[str, Any] = {"description": f"{declared.meaning} ({declared.unit})"}
            settings["tag_keys"] = declared.labels
            if declared.kind == "histogram":
                settings["boundaries"] = SECONDS
            kind = {"counter": metrics.Counter, "gauge": metrics.Gauge, "histogram": metrics.Histogram}[declared.kind]
            self._metrics[name] = kind(name, **settings)
        return self._metrics[name]
