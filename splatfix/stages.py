"""The stages of a run: their names in plain words, and how long the rest takes, refined while they are worked off.

The estimate is made of the seconds of a unit of work: of a training step, a repaired view and so on. They are measured
in the run itself; until a unit is measured, its seconds follow from those of a step (`STEPS_PER_UNIT`).
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from splatfix.messages import rough_duration

log = logging.getLogger(__name__)

STEP, START, REPAIR, TEST_VIEW, FRAME = "step", "start", "repaired view", "test view", "frame"
# The work of a unit in training steps, as seen in loops on the CPU at 96 to 320 px. Only until it is measured.
STEPS_PER_UNIT = {STEP: 1.0, START: 100.0, REPAIR: 25.0, TEST_VIEW: 8.0, FRAME: 1.0}
SKIPPED_TICKS = 3  # the first steps of a process may compile kernels
MIN_TICKS = 10  # from which the steps of a stage that is running count


@dataclass(frozen=True)
class Stage:
    """A stage of a run.

    Attributes:
        name: as `runs.Run.stage` times it; several stages may share it.
        title: in plain words.
        work: how much of each unit it consists of.
    """

    name: str
    title: str
    work: Mapping[str, float]


@dataclass(eq=False)
class StagePlan:
    """The stages of a run in order, and what has been measured of them.

    Attributes:
        stages: all of them.
        rates: seconds of a unit that are known from elsewhere.
    """

    stages: Sequence[Stage]
    rates: dict[str, float] = field(default_factory=dict)
    _current: int = -1
    _done: dict[str, float] = field(default_factory=lambda: defaultdict(float))  # of the current stage
    _noted: dict[str, tuple[float, float]] = field(default_factory=dict)  # amount and seconds of each unit
    _num_ticks: int = 0
    _first_tick: float = 0.0
    _last_tick: float = 0.0

    def enter(self, name: str) -> None:
        """Begin the next stage of this name, and say so; nothing where none is left."""
        places = range(self._current + 1, len(self.stages))
        place = next((place for place in places if self.stages[place].name == name), None)
        if place is None:
            return
        self._current = place
        self._done.clear()
        self._num_ticks = 0
        log.info("stage %d of %d: %s%s", place + 1, len(self.stages), self.stages[place].title, self._left_in_words())

    def tick(self) -> str | None:
        """Count a training step of the current stage; returns what is left of the run in words, once it is known."""
        self._num_ticks += 1
        self._last_tick = time.monotonic()
        if self._num_ticks == SKIPPED_TICKS:
            self._first_tick = self._last_tick
        left = self.seconds_left()
        return None if left is None else f"{rough_duration(left)} left in all"

    def note(self, unit: str, amount: float, seconds: float) -> None:
        """Add finished work of the current stage, and the seconds that it took.

        Of steps that were counted, the first are left out of the seconds: they may have compiled kernels.
        """
        if unit == STEP:
            if self._num_ticks >= SKIPPED_TICKS + MIN_TICKS:
                per_step = (self._last_tick - self._first_tick) / (self._num_ticks - SKIPPED_TICKS)
                seconds = min(seconds, amount * per_step)
            self._num_ticks = 0
        self._done[unit] += amount
        if amount > 0:
            before = self._noted.get(unit, (0.0, 0.0))
            self._noted[unit] = before[0] + amount, before[1] + seconds

    def skip(self, unit: str, amount: float) -> None:
        """Add work of the current stage that an earlier process has done."""
        self._done[unit] += amount

    def seconds_left(self) -> float | None:
        """Seconds until the run ends; None before anything is measured."""
        rates = {unit: self._rate(unit) for unit in STEPS_PER_UNIT}
        step = rates[STEP]
        total = 0.0
        for place, stage in enumerate(self.stages[max(self._current, 0) :], start=max(self._current, 0)):
            for unit, amount in stage.work.items():
                rate = rates[unit]
                if rate is None:
                    if step is None:
                        return None
                    rate = step * STEPS_PER_UNIT[unit]
                if place == self._current:
                    amount = max(amount - self._done[unit] - (self._num_ticks if unit == STEP else 0), 0.0)
                total += amount * rate
        return total

    def _rate(self, unit: str) -> float | None:
        """Seconds of a unit, measured in this run, or known from elsewhere."""
        amount, seconds = self._noted.get(unit, (0.0, 0.0))
        if unit == STEP and self._num_ticks >= SKIPPED_TICKS + MIN_TICKS:
            amount += self._num_ticks - SKIPPED_TICKS
            seconds += time.monotonic() - self._first_tick
        return seconds / amount if amount else self.rates.get(unit)

    def _left_in_words(self) -> str:
        left = self.seconds_left()
        return "" if left is None or left < 1 else f"; about {rough_duration(left)} left in all"


def fit_stages(*, steps: int, folds: int = 0) -> list[Stage]:
    """The stages of a sparse fit of so many steps, after ``folds`` probe fits that choose their number."""
    choose = Stage("choose", f"{folds} probe fits at reduced size, to choose when to stop", {STEP: 0.3 * folds * steps})
    return [*([choose] if folds else []), Stage("fit", f"the sparse fit, {steps} steps", {START: 1, STEP: steps})]


def measuring_stages(*, num_test: int, num_estimates: int, steps: int, num_arms: int, num_frames: int) -> list[Stage]:
    """The stages that measure splats and film them.

    Args:
        num_test: test photos; without any, ``num_estimates`` further fits leave out a training photo each.
        num_estimates: the number of these fits.
        steps: of each of these fits.
        num_arms: splats that are measured.
        num_frames: frames of the video; 0 for none.
    """
    stages = []
    if num_test:
        stages.append(Stage("evaluate", f"measuring on {num_test} test photos", {TEST_VIEW: num_test * num_arms}))
    elif num_estimates:
        title = f"an estimate from {num_estimates} fits without one photo each, {steps} steps each"
        stages.append(Stage("estimate", title, {START: num_estimates, STEP: num_estimates * steps}))
    if num_frames:
        stages.append(Stage("video", "the video", {FRAME: num_frames}))
    return stages
