"""The desk of a sweep: hands out proposals in order, takes each round's figures in, and keeps all of it on disk.

A sweep is resumed by asking and telling the search all over again with what is on disk: so finished trials stay, those
under way are handed out again, and the proposals are those of a sweep that was never broken off.
"""

from __future__ import annotations

import errno
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from splatfix.sweep.config import SweepConfig
from splatfix.sweep.proposals import Search, goes_on
from splatfix.sweep.record import TrialRecord, read_record
from splatfix.sweep.trial import trial_folder
from splatfix.workers import DiskFull, RunAborted

ENDED = ("complete", "stopped", "failed")
MAX_FAILED_FIRST = 5  # trials, before any was complete: then it is not the trials


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
        """``begun``: time.time() less the seconds that the trials have taken so far."""
        self._config, self._sweep, self._parallel = config, sweep, parallel
        self._begun, self._on_change = begun, on_change
        self._search = Search(config, source=source)
        self._num_told = 0
        self._out: set[int] = set()  # handed out, and not ended
        self._again: deque[int] = deque()  # to be handed out once more
        self._attempts: Counter[int] = Counter()
        self.num_trials = self._search.num_trials
        self.records: list[TrialRecord] = []
        self.hopeless: RunAborted | None = None

    @property
    def num_running(self) -> int:
        """Trials that are handed out and have not ended."""
        return len(self._out)

    @property
    def is_over(self) -> bool:
        """Whether nothing is under way and nothing is left to hand out."""
        left = self._again or self._out or len(self.records) < self.num_trials
        return self.hopeless is not None or not left

    def next(self) -> TrialRecord | None:
        """The next trial to run; None where it has to wait for others, or where there is none left.

        Raises:
            ValueError: what is on disk was proposed otherwise.
        """
        if self.hopeless is not None:
            return None
        if self._again:
            return self._handed_out(self.records[self._again.popleft()])
        while len(self.records) < self.num_trials:
            number = len(self.records)
            while self._num_told <= number - self._parallel:
                record = self.records[self._num_told]
                if record.status not in ENDED:
                    return None
                self._search.tell(record)
                self._num_told += 1
            record = self._proposed(number, self._search.ask())
            self.records.append(record)
            self._on_change(record)
            if record.status not in ENDED:
                return self._handed_out(record)
        return None

    def _proposed(self, number: int, values: dict[str, Any]) -> TrialRecord:
        folder = trial_folder(self._sweep, number)
        held = read_record(folder)
        if held is None:
            record = TrialRecord(number=number, values=values)
            record.write(folder)
            return record
        if held.values != values:
            raise ValueError(
                f"{folder}: was proposed as {held.values}, and is proposed as {values} now: the sweep was begun with "
                f"other versions ({self._sweep / 'state.json'} names them); go on with those, or take another folder"
            )
        return held

    def _handed_out(self, record: TrialRecord) -> TrialRecord:
        self._out.add(record.number)
        return record

    def take(self, number: int, made: dict[str, Any]) -> bool:
        """Take in what `trial.attempt` yields: a round or the end; whether the trial goes on after it."""
        try:
            if "end" in made:
                self._take_end(number, made["end"], made.get("error"))
                return False
            if self._reported(number, made):
                return True
            self._ended(number, "stopped")
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            self.hopeless = DiskFull(str(error.filename or error))
        return False

    def _take_end(self, number: int, end: str, error: str | None) -> None:
        self._out.discard(number)
        if end == "disk full":
            self.hopeless = DiskFull(str(error))
        elif end == "error":
            self._attempts[number] += 1
            if self._attempts[number] < self._config.workers.attempts:
                self._again.append(number)
            else:
                self._ended(number, "failed", error)
        else:
            self._ended(number, end, error)

    def _reported(self, number: int, figures: dict[str, Any]) -> bool:
        record = self.records[number]
        if all(made["round"] != figures["round"] for made in record.rounds):
            record.rounds.append(figures)
            record.write(trial_folder(self._sweep, number))
            self._on_change(record)
        last = self._num_rounds(record)
        if self._config.halving is None or figures["round"] >= last:
            return True
        name = self._config.objectives[0]
        earlier = [  # those that have ended whenever this one could be proposed: the same on every run
            value
            for other in self.records[: max(0, number - self._parallel + 1)]
            if self._num_rounds(other) == last and (value := other.reached(figures["round"], name)) is not None
        ]
        return goes_on(figures["round"], record.reached(figures["round"], name), earlier, self._config.halving)

    def _num_rounds(self, record: TrialRecord) -> int:
        return record.values.get("repair.rounds", self._config.loop.repair.rounds)

    def _ended(self, number: int, status: str, error: str | None = None) -> None:
        assert status in ENDED, status
        self._out.discard(number)
        record = self.records[number]
        if record.status in ENDED:
            return
        record.status, record.error = status, error  # type: ignore[assignment]
        record.elapsed = round(time.time() - self._begun, 1)
        record.write(trial_folder(self._sweep, number))
        self._on_change(record)
        if status == "failed":
            self._stop_if_all_fail(error)

    def _stop_if_all_fail(self, error: str | None) -> None:
        """Give up where the first trials all failed, and forget that they did: what is wrong may be mended."""
        failed = [record for record in self.records if record.status == "failed"]
        some = any(record.status in ("complete", "stopped") for record in self.records)
        if some or len(failed) < min(MAX_FAILED_FIRST, self.num_trials):
            return
        self.hopeless = RunAborted(f"the first {len(failed)} trials failed, the last with: {error}")
        for record in failed:
            record.status, record.error, record.elapsed = "running", None, None
            record.write(trial_folder(self._sweep, record.number))
