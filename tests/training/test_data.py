"""Training data: the same batches however they are made, groups held out whole, few and spread validation pairs."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import pytest
import torch

from splatfix.errors import MachineError
from splatfix.pairs import write_shards
from splatfix.pairs.shards import Shard
from splatfix.training.batches import (
    ByteBatch,
    JitterConfig,
)
from splatfix.training.data import DataConfig, _bounded, open_data, split_by_group, validation_pairs
from splatfix.training.nafnet import NafnetInputs
from tests.restoration.scenery import pair
from tests.training.small import CONFIG, INPUTS, NETWORK


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [1, 2, 9])
def test_batches_are_the_same_in_any_number_of_processes_and_workers(shards, num_workers):
    alone = open_data(shards, CONFIG.data, INPUTS, 0)
    with_workers = replace(alone, config=replace(CONFIG.data, num_workers=num_workers))

    def batches(data, segment: int, num: int, **more) -> list[ByteBatch]:
        stream = data.batches(segment, segment_steps=3, jitter=JitterConfig(), **more)
        return list(islice(stream, num))

    expected = batches(alone, 0, 8)
    assert not torch.equal(expected[0].inputs, expected[3].inputs)
    for a, b in zip(expected, batches(with_workers, 0, 8), strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    for a, b in zip(expected[3:], batches(alone, 1, 5), strict=True):  # from the next segment on
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    shares = [batches(with_workers, 0, 8, rank=rank, num_processes=2) for rank in (0, 1)]
    for a, first, second in zip(expected, *shares, strict=True):
        assert torch.equal(a.inputs[0::2], first.inputs) and torch.equal(a.inputs[1::2], second.inputs)
        assert torch.equal(a.colors[1::2], second.colors)
    thirds = [batches(alone, 0, 8, rank=rank, num_processes=3) for rank in (0, 1, 2)]
    for a, first, second, third in zip(expected, *thirds, strict=True):
        assert torch.equal(a.inputs[0::3], first.inputs) and len(first.inputs) == 2  # one more than the others
        assert torch.equal(a.inputs[1:2], second.inputs) and torch.equal(a.inputs[2:3], third.inputs)
    with pytest.raises(ValueError, match=r"batch_size = 4: wanted at least 5, the number of processes"):
        batches(alone, 0, 1, num_processes=5)


@pytest.mark.parametrize("field", ["batch_size", "patch_px", "crops_per_pair", "samples_per_visit", "shuffle_buffer"])
def test_data_settings_that_would_never_end_are_refused(field):
    with pytest.raises(ValueError, match=rf"data\.{field} = 0: wanted at least 1"):
        DataConfig(**{field: 0})


def test_held_out_pairs_without_the_buffers_of_the_network_are_refused_before_training(shards):
    inputs = NafnetInputs(replace(NETWORK, buffers=("seen",)))
    with pytest.raises(ValueError, match=r"has no buffers\.png, since an earlier version made it; generate the pairs"):
        open_data(shards, CONFIG.data, inputs, 0)


def shard(scene: str, group: str | None = None) -> Shard:
    return Shard(f"{scene}.tar", scene, group or scene, 1, 1, scene)


def test_groups_are_held_out_whole():
    shards = [shard("banana"), shard("sample_banana", "banana"), shard("can"), shard("castle"), shard("entry")]
    groups = {"entry": "castle"}
    train_shards, held_out = split_by_group(shards, groups, ["castle"], 0.5)
    assert [s.scene for s in held_out] == ["castle", "entry"]
    assert [s.scene for s in train_shards] == ["banana", "sample_banana", "can"]
    train_shards, held_out = split_by_group(shards, groups, [], 0.3)
    assert {s.scene for s in held_out} == {"can"}
    assert split_by_group(shards, groups, [], 0.0)[1] == []
    with pytest.raises(ValueError, match=r"name groups of these pairs \(banana, can, castle\)"):
        split_by_group(shards, groups, ["nowhere"], 0.5)
    with pytest.raises(ValueError, match="no group remains"):
        split_by_group([shard("can")], {}, ["can"], 0.5)


def test_validation_pairs_are_few_and_spread(tmp_path):
    shards = write_shards([pair(i, scene) for scene in ("a", "b") for i in range(9)], tmp_path, samples_per_shard=4)
    chosen = validation_pairs(tmp_path, shards, 3)
    assert [(one.scene, one.view) for one in chosen] == [
        (scene, f"photos/{i:03d}.png") for scene in ("a", "b") for i in (0, 3, 6)
    ]
    assert len(validation_pairs(tmp_path, shards, 100)) == 18


@pytest.fixture
def with_worker(shards):
    return replace(open_data(shards, CONFIG.data, INPUTS, 0), config=replace(CONFIG.data, num_workers=1))


@pytest.mark.slow
def test_a_batch_that_does_not_come_in_time_is_an_error_that_names_the_shards(with_worker, monkeypatch):
    monkeypatch.setattr("splatfix.training.data.POLL_SECONDS", 0.01)  # less than the start of a process takes
    monkeypatch.setattr("splatfix.training.data.BATCH_SECONDS", 0.0)
    with pytest.raises(MachineError, match=rf"^{with_worker.url}: no batch came .* data\.num_workers in 0 s; check"):
        next(with_worker.batches(0, segment_steps=3, jitter=JitterConfig()))


@pytest.mark.slow
def test_a_late_batch_is_waited_for_with_messages(with_worker, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr("splatfix.training.data.POLL_SECONDS", 0.01)
    monkeypatch.setattr("splatfix.training.data.MESSAGE_SECONDS", 0.0)
    batches = with_worker.batches(0, segment_steps=3, jitter=JitterConfig())
    alone = replace(with_worker, config=CONFIG.data).batches(0, segment_steps=3, jitter=JitterConfig())
    for a, b in islice(zip(alone, batches, strict=True), 4):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert f"waiting for a batch from {with_worker.url} for 0 s (at most 1800 s)" in caplog.text


@pytest.mark.slow
def test_a_stop_ends_the_wait_for_a_batch(with_worker, monkeypatch):
    monkeypatch.setattr("splatfix.training.data.POLL_SECONDS", 0.01)
    monkeypatch.setattr("splatfix.process._requested", "terminated")
    with pytest.raises(KeyboardInterrupt, match="terminated"):
        next(with_worker.batches(0, segment_steps=3, jitter=JitterConfig()))


def test_other_errors_of_a_loader_are_raised():
    def fail():
        raise RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly")
        yield

    with pytest.raises(RuntimeError, match="exited unexpectedly"):
        next(_bounded(fail(), "shards"))
