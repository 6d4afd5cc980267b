"""Where the time of a computation goes, by section of the code.

``section("draw")`` marks a section wherever it runs; outside of ``record_profile()`` it costs next to nothing. Time in
nested sections counts for the innermost alone. The stages of a run, in ``run.json``, are timed by `runs.Run.stage`.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

REST = "rest"  # outside of all sections
OPTIMIZERS = "optimizers"  # the section that every training step enters once


class Profile:
    """Seconds and calls by section, while it is open and afterwards."""

    def __init__(self, settle: Callable[[], object]) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        self._settle = settle
        self._open = [REST]
        self._since = time.perf_counter()

    @property
    def total_seconds(self) -> float:
        """Sum over all sections."""
        return sum(self.seconds.values())

    def enter(self, name: str) -> None:
        """Begin a section; the one around it pauses."""
        self._count()
        self._open.append(name)
        self.calls[name] += 1

    def leave(self) -> None:
        """End the innermost section; the one around it resumes."""
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
        """Format milliseconds per training step and share of the time by section, the largest first."""
        total, steps = max(self.total_seconds, 1e-12), max(self.num_steps, 1)
        lines = [f"{'section':24s}{'ms per step':>12s}{'share':>8s}"]
        for name, seconds in sorted(self.seconds.items(), key=lambda item: -item[1]):
            lines.append(f"{name:24s}{1000 * seconds / steps:12.2f}{seconds / total:8.1%}")
        lines.append(f"{'all':24s}{1000 * total / steps:12.2f}{1:8.1%}")
        return "\n".join(lines)

    def to_json(self) -> dict:
        """The number of steps, and seconds and calls by section."""
        return {"steps": self.num_steps, "seconds": dict(self.seconds), "calls": dict(self.calls)}


_current: Profile | None = None


def settle_on(device: torch.device) -> Callable[[], object]:
    """A function that waits until the device has done its queued work; on the CPU nothing is queued."""
    return torch.cuda.synchronize if device.type == "cuda" else lambda: None


@contextmanager
def record_profile(settle: Callable[[], object] = lambda: None) -> Iterator[Profile]:
    """Profile the code inside. ``settle`` is called before each look at the clock (`settle_on`)."""
    global _current
    before, _current = _current, Profile(settle)
    try:
        yield _current
    finally:
        _current.leave()
        _current = before


@contextmanager
def section(name: str) -> Iterator[None]:
    """Count the time of the code inside for the section ``name``."""
    profile = _current
    if profile is None:
        yield
        return
    profile.enter(name)
    try:
        yield
    finally:
        profile.leave()
