"""An endless stream of pairs for training: random, balanced by scene, and the same again for the same numbers.

The stream of a segment follows from (seed, segment, rank, worker) alone. Training runs segments of fixed length and
saves at their ends; a resumed run asks for the next segment and sees exactly what an unbroken one would have seen.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import webdataset as wds

from splatfix.pairs.pair import Pair, decode
from splatfix.pairs.shards import Shard, read_samples


def sample_pairs(
    url: str | Path,
    shards: Sequence[Shard],
    *,
    seed: int,
    segment: int,
    rank: int = 0,
    worker: int = 0,
    samples_per_visit: int = 16,
    shuffle_buffer: int = 64,
) -> Iterator[Pair]:
    """Endless random pairs of these shards.

    Each visit chooses a scene evenly, then one of its shards in proportion to their samples, and takes at most
    ``samples_per_visit`` of it; a buffer of undecoded samples mixes the visits.

    Raises:
        ValueError: no shards, or a shard that is cut short.
    """
    if not shards:
        raise ValueError(f"{url}: no shards to train on")
    origin = f"{seed}/{segment}/{rank}/{worker}"
    pipeline = wds.DataPipeline(
        lambda: _visits(url, shards, samples_per_visit, random.Random(origin)),
        wds.detshuffle(bufsize=shuffle_buffer, initial=shuffle_buffer, seed=random.Random(origin).getrandbits(32)),
    )
    for sample in pipeline:
        yield decode(sample, str(sample["__url__"]))


def _visits(
    url: str | Path, shards: Sequence[Shard], samples_per_visit: int, rng: random.Random
) -> Iterator[dict[str, Any]]:
    by_scene: dict[str, list[Shard]] = defaultdict(list)
    for shard in sorted(shards, key=lambda shard: shard.name):
        by_scene[shard.scene].append(shard)
    scenes = sorted(by_scene)
    while True:
        candidates = by_scene[rng.choice(scenes)]
        (shard,) = rng.choices(candidates, weights=[shard.samples for shard in candidates])
        chosen = set(rng.sample(range(shard.samples), min(samples_per_visit, shard.samples)))
        for i, sample in enumerate(read_samples(url, shard)):
            if i in chosen:
                yield sample
