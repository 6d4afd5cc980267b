"""Every metric that splatfix sends, and how it is sent. Ray exports them to Prometheus as ``ray_<name>``.

Each metric has the label ``run``: the name of the output folder and a hash of its path. All other labels are declared
here with their values, since a time series costs memory for good: no label names a scene, a view or a trial.

Ray's counters start when they are first increased, so that Prometheus misses the first increase; here they start at 0
as soon as the process is connected to Ray. Ray drops a gauge that was not set for twice its report interval (20 s);
here a thread repeats the last values.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import re
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from splatfix import storage
from splatfix.messages import without_secrets

log = logging.getLogger(__name__)

REPEAT_SECONDS = 1.0  # between two reports of each gauge; Ray reports at most once a second
BUCKETS_SECONDS = [0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000]
OTHER = "other"  # in place of a label value that is not declared

Sender = Literal["generate", "launch", "train", "sweep"]
Value = float | None | Callable[[], float | None]
SENDERS: tuple[Sender, ...] = ("generate", "launch", "train", "sweep")


@dataclass(frozen=True)
class Metric:
    """A metric.

    Attributes:
        kind: counter (grows), gauge or histogram.
        unit: of its values.
        meaning: what is counted or measured.
        labels: the values of each label, besides ``run``.
        senders: drivers and processes that send it: ``generate``, the driver of a training (``launch``), its main
            process (``train``), and ``sweep``.
    """

    kind: Literal["counter", "gauge", "histogram"]
    unit: str
    meaning: str
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    senders: tuple[Sender, ...] = ()


def _metrics(*senders: Sender, **metrics: Metric) -> dict[str, Metric]:
    return {
        f"splatfix_{name}": Metric(metric.kind, metric.unit, metric.meaning, metric.labels, senders)
        for name, metric in metrics.items()
    }


KINDS = ("content", "machine")  # of failures: of what a task reads, or of the machine that it ran on
STAGES = ("wait for photos", "load", "fit", "fit again", "dense fit", "render")
METRICS: dict[str, Metric] = {
    **_metrics(
        "generate",
        "train",
        "sweep",
        seconds_left=Metric("gauge", "seconds", "Remaining time, as the progress bar estimates it"),
    ),
    **_metrics(
        "generate",
        fits_total=Metric(
            "counter",
            "fits",
            "Fits that ended: done, or failed for good (in quarantine); and failed attempts that were retried",
            {"outcome": ("done", "failed", "retried")},
        ),
        failed_attempts_total=Metric(
            "counter",
            "attempts",
            "Attempts that failed, by kind: of the content of a capture, or of the machine",
            {"kind": KINDS},
        ),
        fits_left=Metric("gauge", "fits", "Fits that are planned and have not ended"),
        pairs_total=Metric("counter", "pairs", "Training pairs that were committed"),
        pairs_filtered_total=Metric("counter", "pairs", "Views that were left out: their render covers too little"),
        shard_bytes_total=Metric("counter", "bytes", "Size of the shards that were committed"),
        stage_seconds=Metric("histogram", "seconds", "Duration of the stages of a fit", {"stage": STAGES}),
        workers=Metric("gauge", "workers", "Workers that are ready"),
        workers_busy_ratio=Metric("gauge", "ratio", "Share of the ready workers that have a task"),
        output_free_bytes=Metric("gauge", "bytes", "Free space on the disk of the output, as the driver sees it"),
    ),
    **_metrics(
        "launch",
        train_processes=Metric("gauge", "processes", "Processes that Ray Train was asked for"),
    ),
    **_metrics(
        "train",
        train_steps_total=Metric("counter", "steps", "Optimizer steps"),
        train_crops_total=Metric("counter", "crops", "Crops of pairs that were trained on, by all processes"),
        train_seconds_total=Metric(
            "counter",
            "seconds",
            "Time of the main process, by what it did",
            {"part": ("wait for data", "step", "validate and save")},
        ),
        train_steps_left=Metric("gauge", "steps", "Steps that are planned and have not been made"),
        train_loss=Metric("gauge", "loss", "Loss of the last step, the mean over processes"),
        train_learning_rate=Metric("gauge", "rate", "Learning rate of the last step"),
        train_gain_db=Metric("gauge", "dB", "Gain of PSNR on held-out groups, at the last validation"),
        train_best_gain_db=Metric("gauge", "dB", "The largest gain of all validations, whose weights are kept"),
        train_gpu_memory_bytes=Metric("gauge", "bytes", "GPU memory that torch holds in the main process"),
    ),
    **_metrics(
        "sweep",
        sweep_trials=Metric(
            "gauge",
            "trials",
            "Trials of the search, by state",
            {"state": ("waiting", "running", "complete", "stopped", "failed")},
        ),
        sweep_best=Metric(
            "gauge", "dB or SSIM", "The first objective of the best trial so far", {"objective": ("gain", "gain_worst")}
        ),
        sweep_rounds_total=Metric("counter", "rounds", "Rounds of the loop that trials have completed"),
        sweep_failed_attempts_total=Metric(
            "counter",
            "attempts",
            "Attempts at trials that failed, by kind: of the settings, or of the machine",
            {"kind": KINDS},
        ),
    ),
}


def run_label(out: str | Path) -> str:
    """Return the label ``run`` of an output: the name of its folder, and a hash of its path or URL."""
    url = storage.absolute(out).rstrip("/")
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", without_secrets(url).rsplit("/", 1)[-1])[:32]
    return f"{name}-{hashlib.sha256(url.encode()).hexdigest()[:6]}"


class Telemetry:
    """Sends the metrics of a run to Ray while this process is connected to it; otherwise does nothing.

    A context manager: within it, gauges are repeated. Errors are logged, never raised.
    """

    def __init__(self, sender: Sender, out: str | Path, *, enabled: bool = True) -> None:
        """``out``: the output folder or URL, which names the run. ``enabled`` false: send nothing."""
        self._sender, self._run, self._enabled = sender, run_label(out), enabled
        self._metrics: dict[str, Any] = {}  # Ray's, by name; empty until connected
        self._gauges: dict[tuple[str, tuple[tuple[str, str], ...]], Value] = {}
        self._lock = threading.RLock()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Telemetry:
        if self._enabled:
            self._thread = threading.Thread(target=self._repeat_gauges, name="splatfix-telemetry", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closing.set()
        if self._thread is not None:
            self._thread.join(timeout=5 * REPEAT_SECONDS)

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter."""
        if amount > 0:
            self._send(name, amount, labels)

    def set(self, name: str, value: Value, **labels: str) -> None:
        """Set a gauge, also to a function that is called for each report; None stops the reports for the moment."""
        with self._lock:
            self._gauges[name, tuple(labels.items())] = value
        self._send_gauge(name, value, labels)

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Add a value to a histogram."""
        self._send(name, value, labels)

    def _repeat_gauges(self) -> None:
        while not self._closing.wait(REPEAT_SECONDS):
            self._connect()
            with self._lock:
                gauges = list(self._gauges.items())
            for (name, labels), value in gauges:
                if not self._closing.is_set():
                    self._send_gauge(name, value, dict(labels))

    def _send_gauge(self, name: str, value: Value, labels: dict[str, str]) -> None:
        try:
            number = value() if callable(value) else value
        except Exception as error:  # such as a disk that is gone
            log.debug("%s: %s", name, error)
            return
        if number is not None:
            self._send(name, number, labels)

    def _send(self, name: str, value: float, labels: dict[str, str]) -> None:
        assert self._sender in METRICS[name].senders, f"{self._sender} does not send {name}"
        if not self._connect():
            return
        try:
            self._metrics[name].send(float(value), self._complete(name, labels))
        except Exception as error:  # the run continues without its metrics
            log.debug("%s: %s", name, error)

    def _connect(self) -> bool:
        """Whether this process is connected to Ray; the first time it is, start the counters at 0."""
        if not self._enabled or (module := _connected_metrics()) is None:
            return False
        with self._lock:
            if not self._metrics:
                try:
                    self._metrics = {
                        name: _RayMetric(module, name, metric)
                        for name, metric in METRICS.items()
                        if self._sender in metric.senders
                    }
                    for name in self._metrics:
                        if METRICS[name].kind == "counter":
                            for labels in _all_labels(METRICS[name]):
                                self._metrics[name].send(0.0, self._complete(name, labels))
                except Exception as error:
                    log.warning("no metrics are sent: %s", error)
                    self._enabled = False
        return self._enabled

    def _complete(self, name: str, labels: dict[str, str]) -> dict[str, str]:
        declared = METRICS[name].labels
        assert set(labels) == set(declared), f"{name} has the labels {list(declared)}, not {list(labels)}"
        bounded = {label: value if value in declared[label] else OTHER for label, value in labels.items()}
        return {"run": self._run, **bounded}


class _RayMetric:
    """One of Ray's metrics, with one method for all kinds."""

    def __init__(self, module: Any, name: str, metric: Metric) -> None:
        settings: dict[str, Any] = {
            "description": f"{metric.meaning} ({metric.unit})",
            "tag_keys": ("run", *metric.labels),
        }
        if metric.kind == "histogram":
            self._metric = module.Histogram(name, boundaries=BUCKETS_SECONDS, **settings)
            self.send = self._metric.observe
        elif metric.kind == "gauge":
            self._metric = module.Gauge(name, **settings)
            self.send = self._metric.set
        else:
            self._metric = module.Counter(name, **settings)
            self.send = self._metric._record  # `inc` refuses 0


def _all_labels(metric: Metric) -> list[dict[str, str]]:
    return [dict(zip(metric.labels, values, strict=True)) for values in itertools.product(*metric.labels.values())]


def _connected_metrics() -> Any | None:
    """Return the module of Ray's metrics if this process is connected to Ray; does not import Ray."""
    is_initialized = getattr(sys.modules.get("ray"), "is_initialized", None)  # absent while Ray is being imported
    if is_initialized is None or not is_initialized():
        return None
    from ray.util import metrics

    return metrics
