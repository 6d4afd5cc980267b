"""Stream random pairs for training without end: balanced by scene, and reproducible.

Seed, segment and slot determine a stream. Each slot of a batch has a stream, so that batches do not depend on the
number of processes and data workers. Training is divided into segments of fixed length and saves at the end of each; a
resumed run starts the next segment, and sees the same pairs as a run without interruption.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from splatfix.pairs.pair import Pair, decode, read_meta
from splatfix.pairs.shards import Shard, read_samples

CLASS_DB = 3.0  # width of a class of difficulty, in artifact PSNR


@dataclass(frozen=True)
class Balance:
    """How often shards and samples are chosen within a scene. All scenes are visited equally often.

    Attributes:
        recipe_of: recipe of each shard, by the name of the shard.
        recipe_weights: how often the recipes of a scene are visited, relative to each other; others have the weight 1.
            If empty, shards are visited in proportion to their samples.
        even_difficulty: whether classes of 3 dB of artifact PSNR within a shard are equally likely.
    """

    recipe_of: Mapping[str, str] = field(default_factory=dict)
    recipe_weights: Mapping[str, float] = field(default_factory=dict)
    even_difficulty: bool = False


def sample_pairs(
    url: str | Path,
    shards: Sequence[Shard],
    *,
    seed: int,
    segment: int,
    slot: int = 0,
    samples_per_visit: int = 16,
    shuffle_buffer: int = 64,
    balance: Balance | None = None,
    num_warps: int | None = None,
    with_buffers: bool = True,
) -> Iterator[Pair]:
    """Yield random pairs of these shards without end.

    Each visit chooses a scene with equal probability, then one of its shards (see `Balance`), and takes at most
    ``samples_per_visit`` of its samples. A buffer of undecoded samples mixes the visits. At most ``num_warps`` warps of
    a pair are decoded, and its buffers only ``with_buffers``.

    Raises:
        ValueError: no shards, or a shard that is truncated.
    """
    if not shards:
        raise ValueError(f"{url}: no shards to train on")
    from webdataset import DataPipeline, detshuffle  # here, because settings of a training do without

    origin = f"{seed}/{segment}/{slot}"
    pipeline = DataPipeline(
        lambda: _visit_shards(url, shards, samples_per_visit, balance or Balance(), random.Random(origin)),
        detshuffle(bufsize=shuffle_buffer, initial=shuffle_buffer, seed=random.Random(origin).getrandbits(32)),
    )
    for sample in pipeline:
        yield decode(sample, str(sample["__url__"]), num_warps=num_warps, with_buffers=with_buffers)


def _visit_shards(
    url: str | Path, shards: Sequence[Shard], samples_per_visit: int, balance: Balance, rng: random.Random
) -> Iterator[dict[str, Any]]:
    by_scene: dict[str, list[Shard]] = defaultdict(list)
    for shard in sorted(shards, key=lambda shard: shard.name):
        by_scene[shard.scene].append(shard)
    scenes = sorted(by_scene)
    while True:
        candidates = by_scene[rng.choice(scenes)]
        if balance.recipe_weights:
            candidates = _choose_recipe_shards(candidates, balance, rng)
        (shard,) = rng.choices(candidates, weights=[shard.samples for shard in candidates])
        if balance.even_difficulty:
            yield from _choose_by_difficulty(list(read_samples(url, shard)), samples_per_visit, rng, shard.name)
            continue
        chosen = set(rng.sample(range(shard.samples), min(samples_per_visit, shard.samples)))
        for i, sample in enumerate(read_samples(url, shard)):
            if i in chosen:
                yield sample


def _choose_recipe_shards(shards: Sequence[Shard], balance: Balance, rng: random.Random) -> list[Shard]:
    by_recipe: dict[str, list[Shard]] = defaultdict(list)
    for shard in shards:
        by_recipe[balance.recipe_of.get(shard.name, "")].append(shard)
    weights = [balance.recipe_weights.get(recipe, 1.0) for recipe in by_recipe]
    if sum(weights) <= 0:  # the scene has no other recipes
        return list(shards)
    return by_recipe[rng.choices(list(by_recipe), weights=weights)[0]]


def _choose_by_difficulty(
    samples: Sequence[dict[str, Any]], num: int, rng: random.Random, where: str
) -> list[dict[str, Any]]:
    """Choose samples such that each class of difficulty is equally likely; ``where`` names their shard in errors.

    Weighted sampling without replacement after Efraimidis and Spirakis (2006).
    """
    classes = [_difficulty_class(sample, where) for sample in samples]
    sizes = Counter(classes)
    keys = [rng.random() ** sizes[class_] for class_ in classes]
    return [samples[i] for i in sorted(range(len(samples)), key=lambda i: -keys[i])[:num]]


def _difficulty_class(sample: dict[str, Any], where: str) -> int:
    psnr = read_meta(sample, f"{where}: {sample['__key__']}").get("artifact_psnr") if "meta.json" in sample else None
    return -1 if psnr is None else int(psnr // CLASS_DB)
