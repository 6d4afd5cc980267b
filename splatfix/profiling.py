"""Where the time of a stretch of work goes, stage by stage.

``stage("draw")`` marks a stage wherever it runs; it does next to nothing unless a ``profiled()`` stretch is open. Time
counts for the innermost open stage alone.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

REST = "rest"  # what no stage marks
OPTIMIZERS = "optimizers"  # the stage that every training step has once


class Profile:
    """Seconds and calls by stage, of a stretch that is open or over."""

    def __init__(self, settle: Callable[[], object]) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        self._settle = settle
        self._open = [REST]
        self._since = time.perf_counter()

    @property
    def total_seconds(self) -> float:
        """Of all stages."""
        return sum(self.seconds.values())

    def enter(self, name: str) -> None:
        """A stage begins; the one around it pauses."""
        self._count()
        self._open.append(name)
        self.calls[name] += 1

    def leave(self) -> None:
        """The innermost stage ends; the one around it goes on."""
        self._count()
        if len(self._open) > 1:
            self._open.pop()

    def _count(self) -> None:
        self._settle()
        now = time.perf_counter()
        self.seconds[self._open[-1]] += now - self._since
        self._since = now

    @property
    def num_steps(self) -> int:
        """Training steps: how often the optimizers were called."""
        return self.calls.get(OPTIMIZERS, 0)

    def table(self) -> str:
        """For people: milliseconds per training step and share of the time by stage, the largest first."""
        total, steps = max(self.total_seconds, 1e-12), max(self.num_steps, 1)
        lines = [f"{'stage':24s}{'ms per step':>12s}{'share':>8s}"]
        for name, seconds in sorted(self.seconds.items(), key=lambda item: -item[1]):
            lines.append(f"{name:24s}{1000 * seconds / steps:12.2f}{seconds / total:8.1%}")
        lines.append(f"{'all':24s}{1000 * total / steps:12.2f}{1:8.1%}")
        return "\n".join(lines)

    def to_json(self) -> dict:
        """Steps, and seconds and calls by stage."""
        return {"steps": self.num_steps, "seconds": dict(self.seconds), "calls": dict(self.calls)}


_current: Profile | None = None


def settle_on(device: torch.device) -> Callable[[], object]:
    """What to wait with before time is taken: on CUDA, work is only queued."""
    return torch.cuda.synchronize if device.type == "cuda" else lambda: None


@contextmanager
def profiled(settle: Callable[[], object] = lambda: None) -> Iterator[Profile]:
    """Profile what runs inside. ``settle`` is called before time is taken (`settle_on`)."""
    global _current
    before, _current = _current, Profile(settle)
    try:
        yield _current
    finally:
        _current.leave()
        _current = before


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Mark a stage."""
    profile = _current
    if profile is None:
        yield
        return
    profile.enter(name)
    try:
        yield
    finally:
        profile.leave()
