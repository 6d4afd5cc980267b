"""Training knows nothing of a family but what its entry in FAMILIES gives."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn

from splatfix.restoration.nafnet.network import NetworkConfig
from splatfix.training.batches import planes_from_bytes
from splatfix.training.config import TrainConfig, TrainTrackingConfig
from splatfix.training.data import DataConfig
from splatfix.training.families import FAMILIES, Family, family_of
from splatfix.training.losses import l1
from splatfix.training.train import train
from splatfix.training.validation import WholeRepair

CONFIG = TrainConfig(
    data=DataConfig(batch_size=2, patch_px=24, validation_pairs=2),
    steps=30,
    segment_steps=15,
    validate_every=1,
    learning_rate=1e-2,
    warmup_steps=0,
    ema_decay=0.5,
    device="cpu",
    tracking=TrainTrackingConfig(enabled=False),
)


@dataclass(frozen=True)
class RenderAlone:
    """The render is all that the network is given."""

    num_references: int = 0
    with_buffers: bool = False

    def encode(self, pairs):
        return torch.from_numpy(np.stack([pair.artifact for pair in pairs]))

    def decode(self, images):
        return planes_from_bytes(images)

    def map_colors(self, inputs, change):
        return change(inputs)


def save(folder, network, config, strength, provenance):  # noqa: ARG001
    folder.mkdir(exist_ok=True)
    torch.save(network.state_dict(), folder / "weights.pt")
    (folder / "config.json").write_text(json.dumps({"strength": strength, "step": provenance["step"]}))


def load(place):
    network = nn.Conv2d(3, 3, 1)
    network.load_state_dict(torch.load(f"{place}/weights.pt"))
    return network, CONFIG.network, {}


def repair(network, conditioning):
    return WholeRepair(network(conditioning.rgb.permute(2, 0, 1)[None])[0].permute(1, 2, 0).detach())


COLOR_MATRIX = Family(
    network_config=NetworkConfig,
    build=lambda config: nn.Conv2d(3, 3, 1),  # noqa: ARG005
    inputs=lambda config: RenderAlone(),  # noqa: ARG005
    loss=lambda output, batch, config: l1(output, batch.clean, batch.weight),  # noqa: ARG005
    use_patch_size=lambda network, patch_px: None,  # noqa: ARG005
    repair=repair,
    load=load,
    save=save,
)


def test_another_family_trains_resumes_and_continues_from_its_checkpoint(shards, tmp_path, monkeypatch):
    monkeypatch.setitem(FAMILIES, "nafnet", COLOR_MATRIX)
    train(shards, tmp_path / "run", replace(CONFIG, steps=15))
    progress = train(shards, tmp_path / "run", CONFIG)
    losses = [record["loss"] for record in progress.history]
    assert progress.step == 30 and losses[1] < losses[0]
    kept = json.loads((tmp_path / "run/restorer/config.json").read_text())
    (best,) = (record for record in progress.history if record["step"] == kept["step"])
    assert kept["strength"] == best["validation"]["strength"]
    again = replace(CONFIG, start_from=str(tmp_path / "run/restorer"), steps=15)
    assert train(shards, tmp_path / "more", again).history[0]["loss"] < losses[0]


def test_a_network_config_of_no_family_is_refused():
    assert family_of(NetworkConfig()) is FAMILIES["nafnet"]
    with pytest.raises(ValueError, match="network is a DataConfig: wanted the config of one of nafnet"):
        family_of(DataConfig())
