"""Pairs of many captures: plan the fits, lease them to workers, gather what they commit. What is done is kept."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from splatfix import storage
from splatfix.config import build_config, require, to_tree, to_yaml
from splatfix.pairs.ground_truth import DenseConfig
from splatfix.pairs.index import FITS, SUFFIX, Index, open_index
from splatfix.pairs.recipes import Recipe
from splatfix.pairs.shards import MANIFEST, is_written_name
from splatfix.pairs.sources import Source, find_sources
from splatfix.pairs.tasks import Task, plan_tasks
from splatfix.pairs.worker import PairWorker, TaskResult, WorkerSettings
from splatfix.process import progress, quiet
from splatfix.runs import RECORD, mark_started, refuse_changes
from splatfix.telemetry import Telemetry
from splatfix.workers import DiskFull, Outcome, Worker, WorkersConfig, run_tasks

log = logging.getLogger(__name__)

CONFIG, QUARANTINE = "config.yaml", "quarantine.json"
GATHER_SECONDS = 30.0  # between gatherings of the manifests
GATHER_SHARE = 0.05  # of the time, at most, goes into them


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """A set of pairs.

    Attributes:
        captures: folders of captures, globs, YAML lists, dataset roots or URLs.
        groups: scene -> group, for captures that show the same thing; others are a group of their own.
        fits_per_capture: sparse fits of each capture.
        seed: everything random follows it.
        device: auto, cpu, cuda or cuda:N.
        samples_per_shard: most pairs in a shard.
        recipes: how the fits differ, by name; each fit follows one of them.
        dense: the dense fits that recipes with ``clean: renders`` draw.
        workers: who makes the fits.
    """

    captures: tuple[str, ...] = ()
    groups: dict[str, str] = field(default_factory=dict)
    fits_per_capture: int = 4
    seed: int = 0
    device: str = "auto"
    samples_per_shard: int = 64
    recipes: dict[str, Recipe] = field(default_factory=lambda: {"photos": Recipe()})
    dense: DenseConfig = field(default_factory=DenseConfig)
    workers: WorkersConfig = field(default_factory=WorkersConfig)

    def __post_init__(self) -> None:
        require(self.fits_per_capture >= 1, "fits_per_capture", self.fits_per_capture, "at least 1 fit")
        require(self.seed >= 0, "seed", self.seed, "a whole number that is not negative")
        require(self.samples_per_shard >= 1, "samples_per_shard", self.samples_per_shard, "at least 1 pair")
        total = sum(recipe.weight for recipe in self.recipes.values())
        require(total > 0, "recipes", sorted(self.recipes), "at least one recipe with a weight above 0")


# what may change between runs into the same output; all else decides what the fits are
MAY_CHANGE = frozenset({"captures", "groups", "fits_per_capture", "device", "workers"})


@dataclass
class Summary:
    """What a generation did, and what stands in its output.

    Attributes:
        made, found, failed: fits that this run made, that were there before, and that ended in the quarantine.
        retried: attempts that failed and were followed by another.
        pairs, bytes, filtered: of all fits in the output.
        seconds: of this run.
        pairs_made: by this run.
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
        """For people."""
        lines = [
            f"fits: {self.made} made, {self.found} found, {self.failed} in quarantine; "
            f"{self.retried} attempts were repeated",
            f"pairs: {self.pairs} ({self.bytes / 1e6:.1f} MB), {self.filtered} views left out",
        ]
        if self.pairs_made and self.seconds > 0:
            rate = 60 * self.pairs_made / self.seconds
            lines.append(f"this run: {self.pairs_made} pairs in {self.seconds:.0f} s, {rate:.1f} a minute")
        return "\n".join(lines)


def generate(
    captures: Sequence[str | Path],
    out: str,
    config: GenerateConfig,
    *,
    fresh: bool = False,
    make_worker: Callable[[WorkerSettings], Worker] = PairWorker,
) -> Summary:
    """Make the pairs of all captures. A rerun does only the fits that are missing; ``fresh`` starts over.

    Raises:
        ValueError: no captures, or the output was made with other settings or captures; nothing is written then.
        DiskFull: no more room; what was committed is whole.
    """
    start = time.monotonic()
    out = storage.absolute(out)
    words = [*captures, *config.captures] or _stored_captures(out)
    sources = find_sources(words, config.groups)
    if fresh:
        remove_pairs(out)
    _keep_settings(out, config, words)
    mark_started(out)
    storage.drop_leftovers(out)
    index = open_index(out)
    sources = as_before(sources, index)
    run = _Generation(out, config, index, Telemetry())
    run.warn_of_twins()
    total = run.count(sources)
    settings = WorkerSettings(out, config.seed, config.device, config.recipes, config.dense, config.samples_per_shard)
    try:
        with quiet("splatfix.splats"), progress(total=total, initial=run.summary.found, description="fits") as bar:
            outcomes = run_tasks(
                run.missing(sources),
                partial(make_worker, settings),
                replace(config.workers, gpus=0.0) if config.device == "cpu" else config.workers,
                name=lambda task: task.stem,
                after=lambda task: task.after,
                on_retry=run.retried,
                on_busy=run.busy,
            )
            with contextlib.closing(outcomes):
                for outcome in outcomes:
                    run.take(outcome)
                    minutes = max(time.monotonic() - start, 1e-3) / 60
                    bar.set_postfix_str(
                        f"{run.summary.pairs_made} pairs, {run.summary.pairs_made / minutes:.1f} a minute",
                        refresh=False,
                    )
                    bar.update()
    except DiskFull as error:
        raise DiskFull(f"the disk is full ({error}); finished fits are intact: free some space") from None
    finally:
        run.summary.seconds = time.monotonic() - start
        run.gather(final=True)
    return run.summary


class _Generation:
    """The state of a run: the index, the quarantine, and the counts."""

    def __init__(self, out: str, config: GenerateConfig, index: Index, telemetry: Telemetry) -> None:
        self.out, self.config, self.index, self.telemetry = out, config, index, telemetry
        self.summary = Summary()
        self.quarantine = _read_quarantine(out)
        self.scene_of: dict[str, tuple[str, str]] = {}  # fingerprint of a capture -> scene and group
        self.told: set[str] = set()  # fingerprints
        self._gathered = time.monotonic()
        self._gather_took = 0.0
        self._left = 0

    def missing(self, sources: Sequence[Source]) -> Iterator[Task]:
        """The tasks that are not done yet."""
        tasks = plan_tasks(sources, self.config.recipes, self.config.fits_per_capture, self.config.seed)
        done = set(self.index)
        return (task for task in tasks if task.stem not in done)

    def count(self, sources: Sequence[Source]) -> int:
        """All tasks; sets what was found and what is left."""
        tasks = plan_tasks(sources, self.config.recipes, self.config.fits_per_capture, self.config.seed)
        total = 0
        for task in tasks:
            total += 1
            self.summary.found += task.stem in self.index
        self._left = total - self.summary.found
        return total

    def take(self, outcome: Outcome[Task]) -> None:
        """A task ended."""
        task, summary = outcome.task, self.summary
        self._left -= 1
        self.telemetry.set("splatfix_fits_left", self._left)
        if outcome.error is not None:
            summary.failed += 1
            self.quarantine[task.stem] = {
                "capture": task.source.url,
                "reason": outcome.error,
                "attempts": outcome.attempts,
            }
            self.telemetry.count("splatfix_fits_total", outcome="failed")
            log.warning("%s: left out after %d attempts: %s", task.stem, outcome.attempts, outcome.error)
        else:
            result: TaskResult = outcome.result
            fit = result.fit
            self.index.add(fit)
            self.quarantine.pop(task.stem, None)
            summary.made += result.is_new
            summary.found += not result.is_new
            summary.pairs_made += result.is_new * fit.record.get("pairs", 0)
            self._warn_of_twin(fit.record)
            if result.is_new:
                self._tell(fit.record)
        if time.monotonic() - self._gathered > max(GATHER_SECONDS, self._gather_took / GATHER_SHARE):
            self.gather(final=False)

    def retried(self, task: Task, reason: str) -> None:
        """An attempt failed, and another follows."""
        self.summary.retried += 1
        self.telemetry.count("splatfix_fits_total", outcome="retried")
        log.warning("%s: %s; trying again", task.stem, reason)

    def busy(self, busy: int, ready: int) -> None:
        """How many workers work."""
        self.telemetry.set("splatfix_workers", ready)
        self.telemetry.set("splatfix_workers_busy_ratio", busy / ready if ready else 0.0)

    def _tell(self, record: dict[str, Any]) -> None:
        self.telemetry.count("splatfix_fits_total", outcome="done")
        self.telemetry.count("splatfix_pairs_total", record.get("pairs", 0))
        self.telemetry.count("splatfix_pairs_filtered_total", record.get("filtered", 0))
        self.telemetry.count("splatfix_shard_bytes_total", record.get("bytes", 0))
        for stage, seconds in record.get("seconds", {}).items():
            self.telemetry.observe("splatfix_stage_seconds", seconds, stage=stage)

    def gather(self, *, final: bool) -> None:
        """Write the gathered manifests and the quarantine, with what other drivers made; at the end, sum up."""
        begun = time.monotonic()
        try:
            self.index.write()
            _write_quarantine(self.out, self.quarantine, self.index)
        except (OSError, ValueError) as error:  # they can be made again from the fits' manifests: lose nothing for it
            log.warning("%s: the manifests could not be gathered (%s)", self.out, error)
        self._gathered = time.monotonic()
        self._gather_took = self._gathered - begun
        if final:
            for fit in self.index.values():
                self.summary.pairs += fit.record.get("pairs", 0)
                self.summary.bytes += fit.record.get("bytes", 0)
                self.summary.filtered += fit.record.get("filtered", 0)

    def warn_of_twins(self) -> None:
        """Look at the captures of the fits that are done."""
        for fit in self.index.values():
            self._warn_of_twin(fit.record)

    def _warn_of_twin(self, record: dict[str, Any]) -> None:
        """The same photos under two names, in two groups, would be trained on and validated on."""
        print_, scene, group = record.get("fingerprint"), record.get("scene"), record.get("group")
        if not print_ or scene is None or group is None:
            return
        known_scene, known_group = self.scene_of.setdefault(print_, (scene, group))
        if known_group != group and print_ not in self.told:
            self.told.add(print_)
            log.warning(
                "%s and %s hold the same photos, but are in the groups %s and %s: give them one under groups:",
                *(known_scene, scene, known_group, group),
            )


def as_before(sources: Sequence[Source], index: Index) -> list[Source]:
    """The sources, named as in the fits that stand in the output.

    Raises:
        ValueError: a scene's name stands for another capture there, or its fits are in another group.
    """
    known: dict[str, tuple[str, str]] = {}  # capture -> scene and group
    capture_of: dict[str, str] = {}
    for fit in index.values():
        capture, scene = fit.record.get("capture"), fit.record.get("scene")
        if capture is not None and scene is not None:
            known[capture] = scene, fit.record.get("group", scene)
            capture_of[scene] = capture
    named = []
    for source in sources:
        scene, group = known.get(source.url, (source.name, source.group))
        other = capture_of.get(scene, source.url)
        if other != source.url:
            raise ValueError(
                f"{source.url}: the pairs in {index.url} have a scene {scene!r} already, of {other}; give this one "
                "another name in a .yaml list"
            )
        wanted = group if source.group == source.name else source.group  # of its own: nothing was asked for
        if wanted != group:
            raise ValueError(
                f"{source.url}: its pairs in {index.url} are in the group {group!r}, now it is {wanted!r}; take "
                "another --out, or give groups to the training instead (data.groups)"
            )
        named.append(replace(source, name=scene, group=group))
    return named


def _keep_settings(out: str, config: GenerateConfig, words: Sequence[str | Path]) -> None:
    """Write the settings into the output; where there are some, compare them, and add the captures."""
    where = storage.join(out, CONFIG)
    config = replace(config, captures=tuple(dict.fromkeys(storage.absolute(word) for word in words)))
    try:
        if storage.create(where, to_yaml(config).encode()):
            return
    except (FileExistsError, NotADirectoryError):
        raise ValueError(f"{out}: is a file; wanted a folder for the pairs") from None
    stored = read_settings(out)
    orders = [list(settings.recipes) for settings in (stored, config)]
    if sorted(orders[0]) == sorted(orders[1]):  # else the first difference is a recipe
        refuse_changes(out, *({"order of recipes": order} for order in orders))
    refuse_changes(out, to_tree(stored), to_tree(config), MAY_CHANGE)
    config = replace(config, captures=tuple(dict.fromkeys([*stored.captures, *config.captures])))
    if config != stored:
        storage.write_bytes(where, to_yaml(config).encode())


def stored_settings(out: str, command: str = "generate") -> dict[str, Any] | None:
    """The settings in an output, for those that a rerun does not name; None where no pairs were begun there.

    Without the captures: a rerun that names some makes their pairs alone, and one that names none takes all.

    Raises:
        ValueError: another command has run there.
    """
    if storage.exists(storage.join(out, RECORD)):
        raise ValueError(f"{out}: holds a run, not pairs of splatfix {command}; choose another --out")
    if not storage.exists(storage.join(out, CONFIG)):
        return None
    return {name: value for name, value in to_tree(read_settings(out)).items() if name != "captures"}


def _stored_captures(out: str) -> list[str]:
    return list(read_settings(out).captures) if storage.exists(storage.join(out, CONFIG)) else []


def remove_pairs(out: str) -> None:
    """Remove the pairs, their manifests and the settings of an output; anything else stays."""
    if stored_settings(out) is None:
        return
    shards = [name for fit in open_index(out).values() for name in fit.file_names]
    manifests, rest = [MANIFEST, FITS], [QUARANTINE, "dataset.html"]
    for name in storage.list_names(out):
        (manifests if name.endswith(SUFFIX) else rest if is_written_name(name) else []).append(name)
    for name in [*manifests, *shards, *rest, CONFIG]:  # in this order it can be interrupted and repeated
        storage.delete(storage.join(out, name))


def read_settings(out: str) -> GenerateConfig:
    """The settings that an output was made with. ValueError where there are none."""
    where = storage.join(out, CONFIG)
    tree = yaml.safe_load(storage.read_bytes(where))
    if not isinstance(tree, dict):
        raise ValueError(f"{where}: wanted the settings of a generation")
    return build_config(GenerateConfig, tree, source=where)


def _read_quarantine(out: str) -> dict[str, dict[str, Any]]:
    where = storage.join(out, QUARANTINE)
    if not storage.exists(where):
        return {}
    try:
        tree = json.loads(storage.read_bytes(where))["fits"]
    except (ValueError, KeyError, TypeError):
        return {}
    return tree if isinstance(tree, dict) else {}


def _write_quarantine(out: str, quarantine: dict[str, dict[str, Any]], index: Index) -> None:
    for stem in [stem for stem in quarantine if stem in index]:
        del quarantine[stem]
    where = storage.join(out, QUARANTINE)
    if quarantine:
        storage.write_bytes(where, (json.dumps({"schema": 1, "fits": quarantine}, indent=1) + "\n").encode())
    else:
        storage.delete(where)
