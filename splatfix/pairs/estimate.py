"""Estimate the fits, pairs, shards, bytes and hours of a generation before it is started.

Seconds and bytes are averages of the fits in the output. Recipes without fits there are measured by short fits of the
first captures on this machine.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from splatfix import storage
from splatfix.captures import Capture, is_procedural
from splatfix.messages import format_bytes, rough_duration
from splatfix.pairs.config import GenerateConfig
from splatfix.pairs.index import open_index
from splatfix.pairs.make import make_pairs
from splatfix.pairs.pair import Pair, encode
from splatfix.pairs.recipes import Recipe
from splatfix.pairs.scenes import keep_scene_names
from splatfix.pairs.sources import find_sources
from splatfix.pairs.tasks import Task, plan_tasks
from splatfix.process import choose_device, quiet, using_threads

PROBED_CAPTURES = 3
PROBE_STEPS = (40, 120)


@dataclass(frozen=True)
class Estimate:
    """The planned fits of a generation, and the cost of those that are missing.

    Attributes:
        captures: number of captures.
        fits: number of planned fits by recipe; dense fits are counted as ``dense fit``.
        done: number of planned fits that exist in the output.
        pairs, shards, bytes: expected of the missing fits.
        seconds: work of the missing fits on one worker.
        workers: number of workers that share the work.
        hours: wall time of the missing fits.
        measured: the fits from which seconds and bytes were estimated, as a sentence.
    """

    captures: int
    fits: dict[str, int]
    done: int
    pairs: int
    shards: int
    bytes: int
    seconds: float
    workers: int
    hours: float
    measured: str

    def text(self) -> str:
        """Format the estimate for the terminal."""
        by_recipe = ", ".join(f"{name}: {number}" for name, number in self.fits.items())
        total = sum(self.fits.values())
        return "\n".join(
            [
                f"captures: {self.captures}",
                f"fits: {total} ({by_recipe}); {self.done} done, {total - self.done} missing",
                f"missing: about {self.pairs} pairs in {self.shards} shards, {format_bytes(self.bytes)}",
                f"time: {rough_duration(self.seconds)} of work, {rough_duration(3600 * self.hours)} on {self.workers} "
                f"worker{'s' if self.workers != 1 else ''}",
                f"({self.measured})",
            ]
        )


def estimate(
    captures: Sequence[str | Path],
    out: str,
    config: GenerateConfig,
    *,
    on_workers: int | None = None,
    speed: float = 1.0,
) -> Estimate:
    """Plan a generation and estimate its cost. Nothing is written.

    Args:
        captures: patterns of captures as in `find_sources`, besides those of the config.
        out: folder or URL of the pairs; it may hold some already.
        config: settings of the generation.
        on_workers: number of workers that share the work; None takes the number in the config, or as many as this
            machine has cores for.
        speed: speed of each worker, relative to a worker of this machine.

    Raises:
        ValueError: no captures, or ``speed`` is not positive.
    """
    if speed <= 0:
        raise ValueError(f"speed = {speed}: wanted a factor above 0, relative to a worker of this machine")
    if on_workers is not None and on_workers < 1:
        raise ValueError(f"on_workers = {on_workers}: wanted at least 1 worker")
    index = open_index(out)
    sources = keep_scene_names(find_sources([*captures, *config.captures], config.groups), index)
    tasks = list(plan_tasks(sources, config.recipes, config.fits_per_capture, config.seed))
    missing = [task for task in tasks if task.stem not in index]
    known = _average_records([fit.record for fit in index.values()])
    kinds = Counter(_kind(task) for task in missing)
    unknown = [kind for kind in kinds if kind not in known]
    costs = known | (_probe_kinds(missing, unknown, config) if unknown else {})
    seconds = sum(costs[kind].seconds * num for kind, num in kinds.items())
    pairs = sum(costs[kind].pairs * num for kind, num in kinds.items())
    size = sum(costs[kind].bytes * num for kind, num in kinds.items())
    shards = sum(num * math.ceil(costs[kind].pairs / config.samples_per_shard) for kind, num in kinds.items())
    num_local = max(1, (os.cpu_count() or 1) // config.workers.cpus)
    workers = on_workers or (num_local if config.workers.num is None else max(1, config.workers.num))
    origins = [f"{len(index)} fits of this output"] if known else []
    origins += [f"short fits made just now on this machine for {', '.join(unknown)}"] if unknown else []
    return Estimate(
        captures=len(sources),
        fits=dict(Counter(_kind(task) for task in tasks)),
        done=len(tasks) - len(missing),
        pairs=round(pairs),
        shards=shards,
        bytes=round(size),
        seconds=seconds / speed,
        workers=workers,
        hours=seconds / speed / workers / 3600,
        measured="measured on " + " and ".join(origins) if origins else "no fit is missing",
    )


class _Cost(NamedTuple):
    """The average cost of a fit."""

    seconds: float
    pairs: float
    bytes: float


def _kind(task: Task) -> str:
    return "dense fit" if task.kind == "dense" else task.recipe


def _average_records(records: Sequence[dict[str, Any]]) -> dict[str, _Cost]:
    by_kind: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        by_kind["dense fit" if record.get("kind") == "dense" else str(record.get("recipe"))].append(record)
    return {
        kind: _average(
            _Cost(sum(record.get("seconds", {}).values()), record.get("pairs", 0), record.get("bytes", 0))
            for record in records_of_kind
        )
        for kind, records_of_kind in by_kind.items()
    }


def _average(costs: Iterable[_Cost]) -> _Cost:
    return _Cost(*(statistics.fmean(values) for values in zip(*costs, strict=True)))


def _probe_kinds(tasks: Sequence[Task], kinds: Sequence[str], config: GenerateConfig) -> dict[str, _Cost]:
    """Measure the cost of each kind of fit with short fits of the first captures, of those on this machine if any."""
    sources = sorted(
        dict.fromkeys(task.source for task in tasks),
        key=lambda source: is_procedural(source.url) or not storage.is_local(source.url),
    )
    largest = max(config.recipes.values(), key=lambda recipe: recipe.size_px)
    captures = [source.open(largest.size_px, largest.photo_options) for source in sources[:PROBED_CAPTURES]]
    costs: dict[str, _Cost] = {}
    for kind in kinds:
        recipe = config.recipes.get(kind, Recipe(size_px=config.dense.size_px, num_fits=(1, 1)))
        with quiet("splatfix.splats"), using_threads(config.workers.cpus):
            costs[kind] = _average(_probe(capture, recipe, config, dense=kind == "dense fit") for capture in captures)
    return costs


def _probe(capture: Capture, recipe: Recipe, config: GenerateConfig, *, dense: bool) -> _Cost:
    """Extrapolate from two short fits, which give the seconds of a step and of everything else."""
    device = choose_device(config.device)
    short = replace(recipe, clean="photos", cycle=False, num_fits=(1, 1), growth=0.0, completed=(1.0, 1.0))
    times = []
    make_pairs(capture, 0, seed=config.seed, recipe=replace(short, steps=3), device=device)  # compiles the kernels
    for steps in PROBE_STEPS:
        start = time.perf_counter()
        fit_pairs = make_pairs(capture, 0, seed=config.seed, recipe=replace(short, steps=steps), device=device)
        times.append(time.perf_counter() - start)
    step_seconds = max((times[1] - times[0]) / (PROBE_STEPS[1] - PROBE_STEPS[0]), 1e-4)
    other_seconds = max(times[0] - PROBE_STEPS[0] * step_seconds, 0.0)
    if dense:
        return _Cost(other_seconds + step_seconds * config.dense.steps, 0, 0)
    low, high = recipe.num_fits
    fits = (low + high) / 2 * (2 if recipe.cycle else 1)
    mean_share = (high - max(low, 2) + 1) / (high - low + 1) if high > 1 else 0.0
    num_steps = recipe.steps * sum(recipe.completed) / 2
    pairs = (1 + mean_share) * (recipe.max_views if recipe.clean == "renders" else len(fit_pairs.pairs))
    return _Cost(other_seconds + fits * num_steps * step_seconds, pairs, pairs * _mean_bytes(fit_pairs.pairs[:4]))


def _mean_bytes(pairs: Sequence[Pair]) -> float:
    sizes = [sum(len(part) for part in encode(pair).values() if isinstance(part, bytes)) for pair in pairs]
    return statistics.fmean(sizes) if sizes else 0.0
