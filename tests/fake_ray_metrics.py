"""A stand-in for ``ray.util.metrics`` that keeps what is sent, so that tests of metrics start no Ray."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

Labels = tuple[tuple[str, str], ...]


class FakeRayMetrics:
    """Has the classes of ``ray.util.metrics``.

    Attributes:
        sent: all values by the name of the metric and its labels except ``run``, in order.
        runs: the values of the label ``run``.
    """

    def __init__(self) -> None:
        self.sent: dict[str, dict[Labels, list[float]]] = defaultdict(lambda: defaultdict(list))
        self.runs: set[str] = set()
        outer = self

        class Metric:
            def __init__(self, name: str, description: str, tag_keys: tuple[str, ...], **_: Any) -> None:
                assert description and tag_keys[0] == "run"
                self._name, self._tag_keys = name, tag_keys

            def _record(self, value: float, tags: dict[str, str]) -> None:
                assert set(tags) == set(self._tag_keys)
                outer.runs.add(tags["run"])
                outer.sent[self._name][tuple(item for item in tags.items() if item[0] != "run")].append(value)

            set = observe = _record

        self.Counter = self.Gauge = self.Histogram = Metric

    def total(self, name: str, **labels: str) -> float:
        """The value of a counter."""
        return sum(self.sent[name][tuple(labels.items())])

    def last(self, name: str, **labels: str) -> float:
        """The last value of a gauge."""
        return self.sent[name][tuple(labels.items())][-1]
