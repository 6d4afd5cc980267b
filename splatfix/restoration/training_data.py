"""Which shards are trained on, which groups are held out, and the batches of each segment."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from splatfix.pairs import Pair, Shard, read_manifest, sample_pairs
from splatfix.pairs.pair import decode
from splatfix.pairs.shards import read_samples
from splatfix.restoration.batches import Batch, training_batches
from splatfix.restoration.guided import NetworkConfig


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Batches, and groups that are held out.

    Attributes:
        batch_size: crops per step and process.
        patch_px: side of a crop, in pixels.
        crops_per_pair: crops taken from each pair that is read.
        samples_per_visit: samples taken from a shard at a time.
        shuffle_buffer: samples that are mixed with each other.
        num_workers: processes that make batches; 0 makes them in the training process (enough on a laptop).
        groups: group of a scene, where the shards' own is not meant.
        validation_groups: groups to hold out; empty takes ``validation_share`` of them.
        validation_share: share of the groups to hold out where none is named; 0 holds out nothing.
        validation_pairs: pairs per held-out scene that are measured.
    """

    batch_size: int = 8
    patch_px: int = 128
    crops_per_pair: int = 2
    samples_per_visit: int = 16
    shuffle_buffer: int = 64
    num_workers: int = 0
    groups: dict[str, str] = field(default_factory=dict)
    validation_groups: tuple[str, ...] = ()
    validation_share: float = 0.15
    validation_pairs: int = 6


@dataclass(frozen=True, eq=False)
class Data:
    """What a training run reads.

    Attributes:
        url: folder of the shards.
        train, held_out: their shards.
        validation: the pairs of held-out groups that are measured.
        config, network, seed: what its batches follow.
    """

    url: str
    train: tuple[Shard, ...]
    held_out: tuple[Shard, ...]
    validation: tuple[Pair, ...]
    config: DataConfig
    network: NetworkConfig
    seed: int

    def batches(self, segment: int, rank: int) -> Iterator[Batch]:
        """Endless batches of a segment; they follow from seed, segment, rank and the number of workers alone."""
        dataset = _Batches(self, segment, rank)
        if self.config.num_workers == 0:
            return iter(dataset)
        return iter(DataLoader(dataset, batch_size=None, num_workers=self.config.num_workers, prefetch_factor=4))

    @property
    def digest(self) -> str:
        """Changes when the training data does."""
        return hashlib.sha256("\n".join(sorted(shard.sha256 for shard in self.train)).encode()).hexdigest()[:16]

    def provenance(self) -> dict[str, Any]:
        """For the checkpoint: what was trained on, and what was held out."""
        return {
            "num_pairs": sum(shard.samples for shard in self.train),
            "train_groups": sorted({self.group_of(shard) for shard in self.train}),
            "train_scenes": sorted({shard.scene for shard in self.train}),
            "validation_groups": sorted({self.group_of(shard) for shard in self.held_out}),
        }

    def group_of(self, shard: Shard) -> str:
        """The group that the shard's scene counts to."""
        return self.config.groups.get(shard.scene, shard.group)


def open_data(url: str | Path, config: DataConfig, network: NetworkConfig, seed: int) -> Data:
    """Read the manifest, hold groups out, and read the pairs to validate on.

    Raises:
        ValueError: no shards, an unknown group, or nothing left to train on.
    """
    train, held_out = split_by_group(
        read_manifest(url), config.groups, config.validation_groups, config.validation_share
    )
    validation = validation_pairs(url, held_out, config.validation_pairs)
    return Data(str(url), tuple(train), tuple(held_out), tuple(validation), config, network, seed)


def split_by_group(
    shards: Sequence[Shard], groups: dict[str, str], validation_groups: Sequence[str], validation_share: float
) -> tuple[list[Shard], list[Shard]]:
    """Shards to train on, and shards of the groups that are held out.

    ``groups`` names the group of a scene where the manifest's is not meant. Without ``validation_groups``, a share of
    the groups (one at least, if there are two) is taken, evenly over their sorted names.

    Raises:
        ValueError: a group that no shard has, or nothing left to train on.
    """
    group_of = {shard.name: groups.get(shard.scene, shard.group) for shard in shards}
    known = sorted(set(group_of.values()))
    unknown = sorted(set(validation_groups) - set(known))
    if unknown:
        raise ValueError(f"validation_groups: no shard of group {unknown[0]!r}; known: {', '.join(known)}")
    held_out = set(validation_groups)
    if not held_out and len(known) > 1 and validation_share > 0:
        num = min(len(known) - 1, max(1, round(validation_share * len(known))))
        held_out = {known[(2 * i + 1) * len(known) // (2 * num)] for i in range(num)}
    train = [shard for shard in shards if group_of[shard.name] not in held_out]
    if not train:
        raise ValueError(f"validation_groups = {sorted(held_out)}: nothing is left to train on")
    return train, [shard for shard in shards if group_of[shard.name] in held_out]


def validation_pairs(url: str | Path, shards: Sequence[Shard], per_scene: int) -> list[Pair]:
    """At most ``per_scene`` pairs of each scene, evenly over its shards; only these are decoded."""
    by_scene: dict[str, list[Shard]] = defaultdict(list)
    for shard in sorted(shards, key=lambda shard: shard.name):
        by_scene[shard.scene].append(shard)
    pairs = []
    for _, members in sorted(by_scene.items()):
        total, position = sum(shard.samples for shard in members), 0
        wanted = {i * total // per_scene for i in range(per_scene)}
        for shard in members:
            for sample in read_samples(url, shard):
                if position in wanted:
                    pairs.append(decode(sample, shard.name))
                position += 1
    return pairs


@dataclass(frozen=True, eq=False)
class _Batches(IterableDataset):
    """The batches of a segment, or a worker's share of them."""

    data: Data
    segment: int
    rank: int

    def __iter__(self) -> Iterator[Batch]:
        data, config, info = self.data, self.data.config, get_worker_info()
        worker = 0 if info is None else info.id
        if info is not None:
            torch.set_num_threads(1)
        pairs = sample_pairs(
            data.url,
            data.train,
            seed=data.seed,
            segment=self.segment,
            rank=self.rank,
            worker=worker,
            samples_per_visit=config.samples_per_visit,
            shuffle_buffer=config.shuffle_buffer,
        )
        return training_batches(
            pairs,
            data.network,
            batch_size=config.batch_size,
            patch_px=config.patch_px,
            crops_per_pair=config.crops_per_pair,
            rng=np.random.default_rng([data.seed, self.segment, self.rank, worker]),
        )
