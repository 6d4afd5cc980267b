"""Training data: shards to train on, groups to hold out, and the batches of each segment."""

from __future__ import annotations

import atexit
import itertools
import os
import signal
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from splatfix.config import require
from splatfix.errors import MachineError
from splatfix.files import hash_text
from splatfix.pairs import Pair, Shard, read_manifest, sample_pairs
from splatfix.pairs.index import open_index
from splatfix.pairs.pair import decode
from splatfix.pairs.shards import read_samples
from splatfix.pairs.stream import Balance
from splatfix.process import log, stop_requested
from splatfix.training.batches import (
    ByteBatch,
    Crop,
    JitterConfig,
    NetworkInputs,
    make_batch,
    require_buffers,
    training_crops,
)

BATCH_SECONDS = 1800.0  # that a batch may take, with the start of the processes that make them
POLL_SECONDS = 5.0  # between two looks for a batch, for dead processes and for a stop
MESSAGE_SECONDS = 60.0  # between two messages while a batch does not come


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Batches, and groups that are held out.

    Attributes:
        batch_size: crops per step, of all processes together; each crop of a batch comes from a separate stream.
        patch_px: side of a crop, in pixels.
        crops_per_pair: crops taken from each pair that is read.
        samples_per_visit: samples taken from a shard at a time.
        shuffle_buffer: samples that are mixed with each other, over all streams.
        recipe_weights: how often the recipes that a scene has are visited, relative to each other; a recipe that is
            not named has weight 1. Empty: as often as they have samples.
        even_difficulty: whether classes of 3 dB of artifact PSNR within a shard are equally likely.
        num_workers: processes that make batches, for each training process; 0 makes them in the training process
            (enough on a laptop).
        groups: group of a scene, in place of that in the shards.
        credits: license and credit of the training photos, by scene or group, for the model card.
        train_scenes: scenes to train on, of those that are not held out (for example where a licence allows no
            others); empty takes all.
        validation_groups: groups to hold out; empty takes ``validation_share`` of them.
        validation_share: share of the groups to hold out where none is named; 0 holds out nothing.
        validation_pairs: pairs per held-out scene that are measured.
    """

    batch_size: int = 8
    patch_px: int = 128
    crops_per_pair: int = 2
    samples_per_visit: int = 16
    shuffle_buffer: int = 64
    recipe_weights: dict[str, float] = field(default_factory=dict)
    even_difficulty: bool = False
    num_workers: int = 0
    groups: dict[str, str] = field(default_factory=dict)
    credits: dict[str, str] = field(default_factory=dict)
    train_scenes: tuple[str, ...] = ()
    validation_groups: tuple[str, ...] = ()
    validation_share: float = 0.15
    validation_pairs: int = 6

    def __post_init__(self) -> None:
        for name in ("batch_size", "patch_px", "crops_per_pair", "samples_per_visit", "shuffle_buffer"):
            require(getattr(self, name) >= 1, f"data.{name}", getattr(self, name), "at least 1")
        for name in ("num_workers", "validation_share"):
            require(getattr(self, name) >= 0, f"data.{name}", getattr(self, name), "0 or more")
        require(self.validation_pairs >= 1, "data.validation_pairs", self.validation_pairs, "at least 1 pair")


@dataclass(frozen=True, eq=False)
class Data:
    """Data of a training run.

    Attributes:
        url: folder of the shards.
        train, held_out: their shards.
        validation: the pairs of held-out groups that are measured.
        recipe_of: recipe of a shard, by its name.
        config, inputs, seed: determine its batches, together with the jitter.
    """

    url: str
    train: tuple[Shard, ...]
    held_out: tuple[Shard, ...]
    validation: tuple[Pair, ...]
    recipe_of: dict[str, str]
    config: DataConfig
    inputs: NetworkInputs
    seed: int

    def batches(
        self,
        segment: int,
        *,
        segment_steps: int,
        jitter: JitterConfig,
        rank: int = 0,
        num_processes: int = 1,
        pin_memory: bool = False,
    ) -> Iterator[ByteBatch]:
        """A process's share of the batches of this and all following segments, each of ``segment_steps`` steps.

        Seed, segment and step determine a batch, for any number of processes and workers. Each process takes
        some slots (positions in the batch); some take one more than others where the batch cannot be divided evenly.
        ``pin_memory`` is for training on a GPU, which then copies a batch while the host continues.

        Raises:
            ValueError: ``batch_size`` is smaller than the number of processes.
            MachineError: the processes that make batches made none in `BATCH_SECONDS`.
        """
        check_divides(self.config.batch_size, num_processes)
        slots = tuple(range(rank, self.config.batch_size, num_processes))
        num = min(self.config.num_workers, len(slots))
        dataset = _BatchStream(replace(self, validation=()), segment, segment_steps, slots, jitter)
        batches: Iterator[ByteBatch] = map(_raise_error, dataset)
        if num > 0:
            # spawn, not fork: a fork would lose the threads of object stores, CUDA and process groups
            how: dict[str, Any] = {"multiprocessing_context": "spawn", "worker_init_fn": _prepare_worker}
            how |= {"num_workers": num, "prefetch_factor": 4, "timeout": POLL_SECONDS}
            parts = _bounded(iter(DataLoader(dataset, batch_size=None, **how)), self.url)
            batches = _merge_workers(parts, [slots[worker::num] for worker in range(num)])
        return map(ByteBatch.pin_memory, batches) if pin_memory else batches

    @property
    def digest(self) -> str:
        """A hash of the fits and numbers of pairs in the shards to train on.

        It is none of their content: a shard that ``verify --repair`` makes again on a GPU, or on another machine, has
        the same pairs with other rounding, and a training continues with them.
        """
        shards = sorted(f"{shard.name_without_hash} {shard.samples}" for shard in self.train)
        return hash_text("\n".join(shards))

    def provenance(self) -> dict[str, Any]:
        """The record of the data in a checkpoint: the groups and scenes that were trained on or held out."""
        groups = {shard.scene: self.group_of(shard) for shard in self.train}
        given = self.config.credits
        credits = {scene: given.get(scene, given.get(groups[scene])) for scene in sorted(groups)}
        return {
            "num_pairs": sum(shard.samples for shard in self.train),
            "credits": {scene: credit for scene, credit in credits.items() if credit},
            "train_groups": sorted({self.group_of(shard) for shard in self.train}),
            "train_scenes": sorted({shard.scene for shard in self.train}),
            "validation_groups": sorted({self.group_of(shard) for shard in self.held_out}),
            "validation_scenes": {shard.scene: self.group_of(shard) for shard in self.held_out},
        }

    def group_of(self, shard: Shard) -> str:
        """The group that the shard's scene belongs to."""
        return self.config.groups.get(shard.scene, shard.group)


def check_divides(batch_size: int, num_processes: int) -> None:
    """ValueError where a batch has too few crops to give one to each process."""
    if batch_size < num_processes:
        raise ValueError(f"data.batch_size = {batch_size}: wanted at least {num_processes}, the number of processes")


def open_data(url: str | Path, config: DataConfig, inputs: NetworkInputs, seed: int) -> Data:
    """Read the manifest, hold groups out, and read the pairs to validate on.

    Raises:
        ValueError: no shards, an unknown group, no group remaining to train on, or a held-out pair without the buffers
            that the network is given.
    """
    train, held_out = split_by_group(
        read_manifest(url), config.groups, config.validation_groups, config.validation_share
    )
    train = _select_scenes(train, config.train_scenes)
    validation = validation_pairs(url, held_out, config.validation_pairs)
    if inputs.with_buffers:
        for pair in validation:
            require_buffers(pair)
    recipe_of = _read_recipes(url, config.recipe_weights) if config.recipe_weights else {}
    return Data(str(url), tuple(train), tuple(held_out), tuple(validation), recipe_of, config, inputs, seed)


def _select_scenes(shards: Sequence[Shard], scenes: Sequence[str]) -> list[Shard]:
    known = {shard.scene for shard in shards}
    for scene in scenes:
        if scene not in known:
            raise ValueError(
                f"data.train_scenes: no shard to train on of scene {scene!r}; known: {', '.join(sorted(known))}"
            )
    return [shard for shard in shards if not scenes or shard.scene in scenes]


def _read_recipes(url: str | Path, weights: Mapping[str, float]) -> dict[str, str]:
    found = {shard.name: fit.record.get("recipe", "") for fit in open_index(url).values() for shard in fit.shards}
    unknown = sorted(set(weights) - set(found.values()))
    if unknown:
        known = ", ".join(sorted(set(found.values()))) or "none"
        raise ValueError(f"data.recipe_weights: no fit of recipe {unknown[0]!r} in {url}; known: {known}")
    if min(weights.values()) < 0:
        raise ValueError(f"data.recipe_weights = {dict(weights)}: wanted no negative weight")
    return found


def split_by_group(
    shards: Sequence[Shard], groups: dict[str, str], validation_groups: Sequence[str], validation_share: float
) -> tuple[list[Shard], list[Shard]]:
    """Shards to train on, and shards of the groups that are held out.

    ``groups`` overrides the manifest's group of a scene. Without ``validation_groups``, a share of the groups (at least
    one, if there are two) is held out, evenly over their sorted names.

    Raises:
        ValueError: a group that no shard has, or no group remaining to train on.
    """
    group_of = {shard.name: groups.get(shard.scene, shard.group) for shard in shards}
    known = sorted(set(group_of.values()))
    unknown = sorted(set(validation_groups) - set(known))
    if unknown:
        raise ValueError(
            f"data.validation_groups: no shard is of group {unknown[0]!r}; name groups of these pairs "
            f"({', '.join(known)}), or leave the field empty to hold out a share of them"
        )
    held_out = set(validation_groups)
    if not held_out and len(known) > 1 and validation_share > 0:
        num = min(len(known) - 1, max(1, round(validation_share * len(known))))
        held_out = {known[(2 * i + 1) * len(known) // (2 * num)] for i in range(num)}
    train = [shard for shard in shards if group_of[shard.name] not in held_out]
    if not train:
        raise ValueError(
            f"data.validation_groups = {sorted(held_out)}: no group remains to train on; hold out fewer groups"
        )
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
class _BatchStream(IterableDataset):
    """Batches of one crop for each of these slots, or for a worker's share of them."""

    data: Data
    segment: int
    segment_steps: int
    slots: tuple[int, ...]
    jitter: JitterConfig

    def __iter__(self) -> Iterator[ByteBatch | ValueError]:
        """Yield batches, then an error for the user, if any: one raised in a worker would come with its traceback."""
        try:
            yield from self._batches()
        except ValueError as error:
            yield error

    def _batches(self) -> Iterator[ByteBatch]:
        info = get_worker_info()
        slots = self.slots
        if info is not None:
            torch.set_num_threads(1)
            slots = slots[info.id :: info.num_workers]
        streams = [self._crops(slot) for slot in slots]
        while True:
            yield make_batch([next(stream) for stream in streams], self.data.inputs)

    def _crops(self, slot: int) -> Iterator[Crop]:
        data, config = self.data, self.data.config
        for segment in itertools.count(self.segment):
            pairs = sample_pairs(
                data.url,
                data.train,
                seed=data.seed,
                segment=segment,
                slot=slot,
                samples_per_visit=config.samples_per_visit,
                shuffle_buffer=max(1, config.shuffle_buffer // config.batch_size),
                balance=Balance(data.recipe_of, config.recipe_weights, config.even_difficulty),
                num_warps=data.inputs.num_references,
                with_buffers=data.inputs.with_buffers,
            )
            crops = training_crops(
                pairs,
                self.jitter,
                patch_px=config.patch_px,
                crops_per_pair=config.crops_per_pair,
                rng=np.random.default_rng([data.seed, segment, slot]),
            )
            yield from itertools.islice(crops, self.segment_steps)


def _prepare_worker(_worker: int) -> None:
    """Let a worker exit without cleanup, since libraries abort in theirs where they have running threads, and ignore
    Ctrl-C, which reaches all processes of a terminal: it ends with the main process.
    """
    atexit.register(os._exit, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _raise_error(batch: ByteBatch | ValueError) -> ByteBatch:
    if isinstance(batch, ValueError):
        raise batch
    return batch


def _bounded(batches: Iterator[ByteBatch | ValueError], url: str) -> Iterator[ByteBatch | ValueError]:
    """Yield the batches of a loader whose ``timeout`` is `POLL_SECONDS`, each of which may take `BATCH_SECONDS`.

    A loader with a longer timeout would be told of a dead process only at its end where training is not in the main
    thread, as in Ray Train. A stop signal interrupts no step here, so it acts at the next look.

    Raises:
        MachineError: no batch came in time, as when the disk of the shards does not answer.
    """
    while True:
        start = last_message = time.monotonic()
        while (batch := _poll(batches)) is None:
            now = time.monotonic()
            if (stopped := stop_requested()) is not None:
                raise KeyboardInterrupt(stopped)
            if now - start > BATCH_SECONDS:
                raise MachineError(
                    f"{url}: no batch came from the processes of data.num_workers in {BATCH_SECONDS:g} s; check that "
                    "these shards can be read from here, and run the same command again"
                )
            if now - last_message > MESSAGE_SECONDS:
                last_message = now
                log.info("waiting for a batch from %s for %.0f s (at most %g s)", url, now - start, BATCH_SECONDS)
        yield batch


def _poll(batches: Iterator[ByteBatch | ValueError]) -> ByteBatch | ValueError | None:
    """The next batch of a loader; None if it does not come within the loader's timeout."""
    try:
        return next(batches)
    except RuntimeError as error:
        if not str(error).startswith("DataLoader timed out"):
            raise
        return None


def _merge_workers(parts: Iterator[ByteBatch | ValueError], slots: Sequence[Sequence[int]]) -> Iterator[ByteBatch]:
    """Concatenate the batches of the workers, which come in turn, and sort them by slot."""
    order = torch.tensor([slot for each in slots for slot in each]).argsort()
    while True:
        fields = zip(*(_raise_error(next(parts)) for _ in slots), strict=True)
        yield ByteBatch(*(torch.cat(field).index_select(0, order) for field in fields))
