"""Generate the pairs of many captures: plan the fits, lease them to workers, and index the fits that they commit.

Committed fits are kept, so that a rerun makes the missing ones only.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from splatfix import storage
from splatfix.extras import require_modules
from splatfix.lease import hold_lease
from splatfix.pairs.checkpoints import remove_checkpoints
from splatfix.pairs.config import GenerateConfig, read_captures, stored_settings, write_settings
from splatfix.pairs.index import FITS, MAX_WRITES, SUFFIX, Index, open_index
from splatfix.pairs.provenance import MixCheck
from splatfix.pairs.quarantine import QUARANTINE, describe_outcome, read_quarantine, write_quarantine
from splatfix.pairs.scenes import DuplicateCheck, keep_scene_names
from splatfix.pairs.shards import MANIFEST, is_generated_name
from splatfix.pairs.sources import Source, find_sources
from splatfix.pairs.tasks import Task, plan_tasks
from splatfix.pairs.worker import PairWorker, TaskResult, WorkerSettings
from splatfix.process import progress, quiet, seconds_left, stop_requested
from splatfix.runs import CONFIG, mark_started
from splatfix.shared_folder import shared_token
from splatfix.telemetry import Telemetry
from splatfix.workers import Failure, Outcome, RunAborted, Worker, run_tasks, workers_for_device

log = logging.getLogger(__name__)

MAX_NOTED = 20  # captures whose notes are logged
MIN_ENDED = 20  # fits of a run, before it is ended because too many failed
INDEX_SECONDS = 30.0  # least time between two writes of the index
MAX_INDEX_SHARE = 0.05  # of the run's time that is spent on writing the index


@dataclass
class Summary:
    """Counts of a generation and of its output.

    Attributes:
        made, found, failed: fits that this run made, that existed before, and that were put into quarantine.
        retried: failed attempts that were followed by another.
        pairs, bytes, filtered: of all fits in the output.
        seconds: duration of this run.
        pairs_made: number of pairs that this run made.
    """

    made: int = 0
    found: int = 0
    failed: int = 0
    retried: int = 0
    pairs: int = 0
    bytes: int = 0
    filtered: int = 0
    seconds: float = 0.0
    pairs_made: int = 0

    def text(self) -> str:
        """Format the counts for the terminal."""
        lines = [
            f"fits: {self.made} made, {self.found} found, {self.failed} in quarantine; {self.retried} attempts retried",
            f"pairs: {self.pairs} ({self.bytes / 1e6:.1f} MB), {self.filtered} views filtered",
        ]
        if self.failed:
            lines.append(f"{QUARANTINE} in the output says why fits failed; the same command tries them again")
        if self.pairs_made and self.seconds > 0:
            rate = 60 * self.pairs_made / self.seconds
            lines.append(f"this run: {self.pairs_made} pairs in {self.seconds:.0f} s, {rate:.1f} per minute")
        return "\n".join(lines)


def generate(
    captures: Sequence[str | Path],
    out: str,
    config: GenerateConfig,
    *,
    fresh: bool = False,
    make_worker: Callable[[WorkerSettings], Worker] = PairWorker,
) -> Summary:
    """Make the pairs of all captures. A rerun makes the missing fits only; ``fresh`` starts over.

    Raises:
        ValueError: no captures, or the output has other settings or captures, or another driver is at work there;
            nothing is written then.
        RunAborted: more fits failed than ``max_failed`` allows, or committed fits are not in the output.
        DiskFull: no space is left; finished fits are intact.
    """
    require_modules("webdataset", user="splatfix generate")
    out = storage.absolute(out)
    patterns = [*captures, *config.captures] or read_captures(out)
    sources = find_sources(patterns, config.groups)
    with hold_lease(out, "splatfix generate"):
        if fresh:
            remove_pairs(out)
        write_settings(out, config, patterns)
        mark_started(out)
        storage.drop_leftovers(out)
        with shared_token(out) as token:
            return _make_missing(out, config, sources, token, make_worker)


def _make_missing(
    out: str,
    config: GenerateConfig,
    sources: Sequence[Source],
    token: str,
    make_worker: Callable[[WorkerSettings], Worker],
) -> Summary:
    """Make the fits that the output lacks, and write its index."""
    start = time.monotonic()
    index = open_index(out)
    sources = keep_scene_names(sources, index)
    telemetry = Telemetry("generate", out)
    run = _Generation(out, config, sources, index, telemetry)
    settings = WorkerSettings(
        *(out, config.seed, config.device, config.recipes, config.dense, config.samples_per_shard, token)
    )
    try:
        with (
            quiet("splatfix.splats"),
            progress(total=run.num_tasks, initial=run.summary.found, description="fits") as bar,
            telemetry,
        ):
            run.send_start(bar)
            outcomes = run_tasks(
                run.missing_tasks(),
                partial(make_worker, settings),
                workers_for_device(config.workers, config.device),
                name=lambda task: task.stem,
                after=lambda task: task.after,
                group=lambda task: task.source.name,
                on_retry=run.record_retry,
                on_busy=run.record_busy,
            )
            with contextlib.closing(outcomes):
                for outcome in outcomes:
                    run.record_outcome(outcome)
                    minutes = max(time.monotonic() - start, 1e-3) / 60
                    bar.set_postfix_str(
                        f"{run.summary.pairs_made} pairs, {run.summary.pairs_made / minutes:.1f} per minute",
                        refresh=False,
                    )
                    bar.update()
                    run.check_failed()
    finally:
        run.summary.seconds = time.monotonic() - start
        run.write_index(is_stopping=stop_requested() is not None)
    run.check_made()
    run.sum_up()
    with contextlib.suppress(OSError):  # of attempts that were given up, or whose worker died after the commit
        remove_checkpoints(out, index)
    return run.summary


def remove_pairs(out: str) -> None:
    """Remove the pairs, their manifests and the settings of an output; other files are kept."""
    if stored_settings(out) is None:
        return
    remove_checkpoints(out)
    shards = [name for fit in open_index(out).values() for name in fit.file_names]
    manifests, others = [MANIFEST, FITS], [QUARANTINE, "dataset.html"]
    for name in storage.list_names(out):
        if name.endswith(SUFFIX):
            manifests.append(name)
        elif is_generated_name(name):
            others.append(name)
    for name in [*manifests, *shards, *others, CONFIG]:  # in this order it can be interrupted and repeated
        storage.delete(storage.join(out, name))


class _Generation:
    """The state of a run: the index, the quarantine, and the counts."""

    def __init__(
        self, out: str, config: GenerateConfig, sources: Sequence[Source], index: Index, telemetry: Telemetry
    ) -> None:
        self.out, self.config, self.sources, self.index, self.telemetry = out, config, sources, index, telemetry
        self.summary = Summary()
        self.quarantine = read_quarantine(out)
        self.num_tasks = 0
        for task in self._plan():
            self.num_tasks += 1
            self.summary.found += task.stem in index
        self._num_missing = self._num_remaining = self.num_tasks - self.summary.found
        self._made: set[str] = set()  # stems
        self._noted: set[str] = set()  # scenes whose notes were logged
        self._duplicates, self._mix = DuplicateCheck(), MixCheck(out)
        for fit in index.values():
            self._duplicates.add(fit.record)
            self._mix.add(fit.record)
        if self._num_missing > 0:
            self._mix.check_code()
        self._written = time.monotonic()
        self._write_seconds = 0.0

    def _plan(self) -> Iterator[Task]:
        return plan_tasks(self.sources, self.config.recipes, self.config.fits_per_capture, self.config.seed)

    def missing_tasks(self) -> Iterator[Task]:
        """List the tasks whose fits were not in the output at the start."""
        done = set(self.index)
        return (task for task in self._plan() if task.stem not in done)

    def send_start(self, bar: tqdm) -> None:
        """Send what is known before a worker is ready: alerts need it where none ever is."""
        self.telemetry.set("splatfix_workers", 0)
        self.telemetry.set("splatfix_workers_busy_ratio", 0)
        self.telemetry.set("splatfix_fits_left", self._num_remaining)
        self.telemetry.set("splatfix_seconds_left", partial(seconds_left, bar))
        if storage.is_local(self.out):
            self.telemetry.set("splatfix_output_free_bytes", lambda: shutil.disk_usage(self.out).free)

    def record_outcome(self, outcome: Outcome[Task]) -> None:
        """Add the fit of a task to the index, or the task to the quarantine."""
        task, summary = outcome.task, self.summary
        self._num_remaining -= 1
        self.telemetry.set("splatfix_fits_left", self._num_remaining)
        if outcome.error is not None:
            summary.failed += 1
            self.quarantine[task.stem] = describe_outcome(task.source.url, outcome)
            self.telemetry.count("splatfix_fits_total", outcome="failed")
            self.telemetry.count("splatfix_failed_attempts_total", kind=str(outcome.kind))
            log.warning("%s: in quarantine after %d attempts: %s", task.stem, outcome.attempts, outcome.error)
        else:
            result: TaskResult = outcome.result
            fit = result.fit
            self.index.add(fit)
            self._made.add(fit.stem)
            self.quarantine.pop(task.stem, None)
            summary.made += result.is_new
            summary.found += not result.is_new
            summary.pairs_made += result.is_new * fit.record.get("pairs", 0)
            self._log_notes(fit.record)
            self._duplicates.add(fit.record)
            if result.is_new:
                self._mix.add_new(fit.record)
                self._send_counts(fit.record)
        if time.monotonic() - self._written > max(INDEX_SECONDS, self._write_seconds / MAX_INDEX_SHARE):
            self.write_index()

    def check_failed(self) -> None:
        """Raise RunAborted if more fits of this run failed than ``max_failed`` allows."""
        limit, failed = self.config.max_failed, self.summary.failed
        num_ended = self._num_missing - self._num_remaining
        if limit is not None and num_ended >= MIN_ENDED and failed > limit * self._num_missing:
            stem, entry = list(self.quarantine.items())[-1]
            raise RunAborted(
                f"{failed} of {self._num_missing} fits failed, more than max_failed = {limit:g} allows; {QUARANTINE} "
                f"has all reasons, that of {stem} is: {entry['reason']}"
            )

    def check_made(self) -> None:
        """Raise RunAborted if fits that workers committed are not in the output."""
        lost = sorted(self._made - set(self.index))
        if lost:
            raise RunAborted(
                f"{self.out}: {len(lost)} of {len(self._made)} fits that workers committed are not there, {lost[0]} "
                "for one: workers wrote to another disk, or files were deleted meanwhile; give an --out that all nodes "
                "share, and run the same command again"
            )

    def record_retry(self, task: Task, failure: Failure) -> None:
        """Count a failed attempt that is followed by another."""
        self.summary.retried += 1
        self.telemetry.count("splatfix_fits_total", outcome="retried")
        self.telemetry.count("splatfix_failed_attempts_total", kind=failure.kind)
        log.warning("%s: %s; trying again", task.stem, failure.reason)

    def record_busy(self, busy: int, ready: int) -> None:
        """Send the number of workers that are ready, and the share of them that has a task."""
        self.telemetry.set("splatfix_workers", ready)
        self.telemetry.set("splatfix_workers_busy_ratio", busy / ready if ready else 0.0)

    def _log_notes(self, record: dict[str, Any]) -> None:
        """Log what the reader of a capture did, once for each of the first captures; the page has it for all."""
        scene = str(record.get("scene"))
        if scene not in self._noted and len(self._noted) < MAX_NOTED:
            self._noted.add(scene)
            for note in record.get("notes", []):
                log.info("%s: %s", scene, note)

    def _send_counts(self, record: dict[str, Any]) -> None:
        self.telemetry.count("splatfix_fits_total", outcome="done")
        self.telemetry.count("splatfix_pairs_total", record.get("pairs", 0))
        self.telemetry.count("splatfix_pairs_filtered_total", record.get("filtered", 0))
        self.telemetry.count("splatfix_shard_bytes_total", record.get("bytes", 0))
        for stage, seconds in record.get("seconds", {}).items():
            self.telemetry.observe("splatfix_stage_seconds", seconds, stage=stage)

    def write_index(self, *, is_stopping: bool = False) -> None:
        """Write the index and the quarantine. A run that is told to stop has little time, and writes them once."""
        start = time.monotonic()
        if is_stopping:
            log.info("%s: %d fits remain; writing the index", self.out, self._num_remaining)
        try:
            self.index.write(max_writes=1 if is_stopping else MAX_WRITES)
            self.quarantine = {stem: entry for stem, entry in self.quarantine.items() if stem not in self.index}
            write_quarantine(self.out, self.quarantine)
        except (OSError, ValueError) as error:  # not fatal: both can be rebuilt, and the fits are committed
            log.warning("%s: the index could not be written (%s)", self.out, error)
        self._written = time.monotonic()
        self._write_seconds = self._written - start

    def sum_up(self) -> None:
        """Add the pairs, bytes and filtered views of all fits in the output to the summary."""
        for fit in self.index.values():
            self.summary.pairs += fit.record.get("pairs", 0)
            self.summary.bytes += fit.record.get("bytes", 0)
            self.summary.filtered += fit.record.get("filtered", 0)
