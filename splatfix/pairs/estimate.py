"""What a generation would take, before it is started: fits, pairs, shards, bytes and hours.

Seconds and bytes come from the fits that already stand in the output; for recipes of which there are none, from short
fits of the first captures, made here and now.
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
from splatfix.captures import Capture
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
    """What is planned, and what of it is left.

    Attributes:
        captures: number of them.
        fits: planned ones by recipe, with ``dense fit``.
        done: fits that stand in the output.
        pairs, shards, bytes: of the fits that are left, expected.
        seconds: of work in them, on one worker of this machine.
        workers: that share it.
        hours: of wall time.
        measured: where seconds and bytes come from.
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
        """For people."""
        by_recipe = ", ".join(f"{number} {name}" for name, number in self.fits.items())
        total = sum(self.fits.values())
        return "\n".join(
            [
                f"captures: {self.captures}",
                f"fits: {total} ({by_recipe}); {self.done} are done, {total - self.done} are left",
                f"left to make: about {self.pairs} pairs in {self.shards} shards, {self.bytes / 1e9:.2f} GB",
                f"time: {self.seconds / 3600:.2f} hours of work, {self.hours:.2f} hours on {self.workers} workers",
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
    """Plan and measure; nothing is written.

    Args:
        captures: besides those of the config.
        out: where the pairs would go, or go already.
        config: the settings.
        on_workers: number of workers to divide the time by; None takes the settings', or this machine's cores.
        speed: how fast such a worker is, relative to one of this machine.

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
    left = [task for task in tasks if task.stem not in index]
    known = _from_records([fit.record for fit in index.values()])
    kinds = Counter(_kind(task) for task in left)
    missing = [kind for kind in kinds if kind not in known]
    costs = known | (_probed(left, missing, config) if missing else {})
    seconds = sum(costs[kind].seconds * num for kind, num in kinds.items())
    pairs = sum(costs[kind].pairs * num for kind, num in kinds.items())
    size = sum(costs[kind].bytes * num for kind, num in kinds.items())
    shards = sum(num * math.ceil(costs[kind].pairs / config.samples_per_shard) for kind, num in kinds.items())
    room = max(1, (os.cpu_count() or 1) // config.workers.cpus)
    workers = on_workers or (room if config.workers.num is None else max(1, config.workers.num))
    sources_of = [f"{len(index)} fits of this output"] if known else []
    sources_of += [f"short fits made just now on this machine for {', '.join(missing)}"] if missing else []
    return Estimate(
        captures=len(sources),
        fits=dict(Counter(_kind(task) for task in tasks)),
        done=len(tasks) - len(left),
        pairs=round(pairs),
        shards=shards,
        bytes=round(size),
        seconds=seconds / speed,
        workers=workers,
        hours=seconds / speed / workers / 3600,
        measured="measured on " + " and ".join(sources_of) if sources_of else "nothing is left to make",
    )


class _Cost(NamedTuple):
    """Of a fit, on average."""

    seconds: float
    pairs: float
    bytes: float


def _kind(task: Task) -> str:
    return "dense fit" if task.kind == "dense" else task.recipe


def _from_records(records: Sequence[dict[str, Any]]) -> dict[str, _Cost]:
    by_kind: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        by_kind["dense fit" if record.get("kind") == "dense" else str(record.get("recipe"))].append(record)
    return {
        kind: _mean(
            _Cost(sum(record.get("seconds", {}).values()), record.get("pairs", 0), record.get("bytes", 0))
            for record in found
        )
        for kind, found in by_kind.items()
    }


def _mean(costs: Iterable[_Cost]) -> _Cost:
    return _Cost(*(statistics.fmean(values) for values in zip(*costs, strict=True)))


def _probed(tasks: Sequence[Task], kinds: Sequence[str], config: GenerateConfig) -> dict[str, _Cost]:
    """Two short fits of each of some captures give the seconds of a step, and of what does not depend on steps."""
    opened = []
    for source in dict.fromkeys(task.source for task in tasks):
        if storage.is_local(source.url):
            size_px = max(recipe.size_px for recipe in config.recipes.values())
            opened.append(source.open(size_px))
        if len(opened) == PROBED_CAPTURES:
            break
    if not opened:
        raise ValueError("dry run: no capture is on this machine, and none of the output's fits tells what one costs")
    found: dict[str, _Cost] = {}
    for kind in kinds:
        recipe = config.recipes.get(kind, Recipe(size_px=config.dense.size_px, num_fits=(1, 1)))
        with quiet("splatfix.splats"), using_threads(config.workers.cpus):
            found[kind] = _mean(_probe(capture, recipe, config, dense=kind == "dense fit") for capture in opened)
    return found


def _probe(capture: Capture, recipe: Recipe, config: GenerateConfig, *, dense: bool) -> _Cost:
    device = choose_device(config.device)
    short = replace(recipe, clean="photos", cycle=False, num_fits=(1, 1), growth=0.0, completed=(1.0, 1.0))
    times = []
    make_pairs(capture, 0, seed=config.seed, recipe=replace(short, steps=3), device=device)  # compiles
    for steps in PROBE_STEPS:
        start = time.perf_counter()
        made = make_pairs(capture, 0, seed=config.seed, recipe=replace(short, steps=steps), device=device)
        times.append(time.perf_counter() - start)
    a_step = max((times[1] - times[0]) / (PROBE_STEPS[1] - PROBE_STEPS[0]), 1e-4)
    rest = max(times[0] - PROBE_STEPS[0] * a_step, 0.0)
    if dense:
        return _Cost(rest + a_step * config.dense.steps, 0, 0)
    low, high = recipe.num_fits
    fits = (low + high) / 2 * (2 if recipe.cycle else 1)
    with_mean = (high - max(low, 2) + 1) / (high - low + 1) if high > 1 else 0.0
    num_steps = recipe.steps * sum(recipe.completed) / 2
    pairs = (1 + with_mean) * (recipe.max_views if recipe.clean == "renders" else len(made.pairs))
    return _Cost(rest + fits * num_steps * a_step, pairs, pairs * _mean_bytes(made.pairs[:4]))


def _mean_bytes(pairs: Sequence[Pair]) -> float:
    sizes = [sum(len(part) for part in encode(pair).values() if isinstance(part, bytes)) for pair in pairs]
    return statistics.fmean(sizes) if sizes else 0.0
