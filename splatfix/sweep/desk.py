"""The desk of a sweep: hands out proposals in order, takes each round's figures in, and keeps all of it on disk.

A sweep is resumed by asking and telling the search all over again with what is on disk: so finished trials stay, those
under way are handed out again, and the proposals are those of a sweep that was never broken off.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from splatfix.sweep.config import SweepConfig
from splatfix.sweep.record import TrialRecord, read_record
from splatfix.sweep.search import Search, goes_on
from splatfix.sweep.space import apply
from splatfix.sweep.trial import trial_folder
from splatfix.workers import Hopeless

ENDED = ("complete", "stopped", "failed")


class Desk:
    """All trials of a sweep; used by one thread.

    Attributes:
        records: of the trials that were proposed, by number.
        hopeless: why no other trial will work either, once that is known.
    """

    def __init__(
        self,
        config: SweepConfig,
        sweep: Path,
        *,
        parallel: int,
        source: str,
        begun: float,
        on_change: Callable[[TrialRecord], object] = lambda _: None,
    ) -> None:
        """``begun``: time.time() less the seconds that the sweep has taken so far."""
        self._config, self._sweep, self._parallel, self._source = config, sweep, parallel, source
        self._begun, self._on_change = begun, on_change
        self._search = Search(config, source=source)
        self._num_told = 0
        self.num_trials = self._search.num_trials
        self.records: list[TrialRecord] = []
        self.hopeless: Hopeless | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing left to hand out."""
        return len(self.records) >= self.num_trials or self.hopeless is not None

    def next(self) -> TrialRecord | None:
        """The next trial to run; None where it has to wait for others, or where there is none left.

        Raises:
            ValueError: what is on disk was proposed otherwise.
        """
        while not self.is_empty:
            number = len(self.records)
            while self._num_told <= number - self._parallel:
                record = self.records[self._num_told]
                if record.status not in ENDED:
                    return None
                self._search.tell(record)
                self._num_told += 1
            values = self._search.ask()
            folder = trial_folder(self._sweep, number)
            held = read_record(folder)
            if held is not None and held.values != values:
                raise ValueError(
                    f"{folder}: was proposed as {held.values}, and is proposed as {values} now: the sweep was begun "
                    "with another version of optuna or splatfix; go on with that one, or take another folder"
                )
            record = held or TrialRecord(number=number, values=values)
            self.records.append(record)
            if held is None:
                record.write(folder)
            self._on_change(record)
            if record.status not in ENDED:
                return record
        return None

    @property
    def num_running(self) -> int:
        """Trials that are handed out and have not ended."""
        return sum(record.status == "running" for record in self.records[self._num_told :])

    def take(self, number: int, made: dict[str, Any]) -> bool:
        """Take in what `trial.attempt` yields: a round or the end; whether the trial goes on after it."""
        if "end" in made:
            self.ended(number, made["end"], made.get("error"))
            return False
        if self._reported(number, made):
            return True
        self.ended(number, "stopped")
        return False

    def _reported(self, number: int, figures: dict[str, Any]) -> bool:
        record = self.records[number]
        if all(made["round"] != figures["round"] for made in record.rounds):
            record.rounds.append(figures)
            record.write(trial_folder(self._sweep, number))
            self._on_change(record)
        last = apply(self._config.loop, record.values).repair.rounds
        if self._config.halving is None or figures["round"] >= last:
            return True
        name = self._config.objectives[0]
        earlier = [  # those that have ended whenever this one could be proposed: the same on every run
            value
            for other in self.records[: max(0, number - self._parallel + 1)]
            if (value := other.reached(figures["round"], name)) is not None
        ]
        return goes_on(figures["round"], record.reached(figures["round"], name), earlier, self._config.halving)

    def ended(self, number: int, status: str, error: str | None = None) -> None:
        """A trial ended: complete, stopped or failed."""
        assert status in ENDED, status
        record = self.records[number]
        if record.status in ENDED:
            return
        record.status, record.error = status, error  # type: ignore[assignment]
        record.elapsed = round(time.time() - self._begun, 1)
        record.write(trial_folder(self._sweep, number))
        self._on_change(record)

    def give_up(self, reason: Hopeless) -> None:
        """No other trial will work either; those under way keep what they have."""
        self.hopeless = reason
