"""Families of restorers that can be trained. A new one is an entry in `FAMILIES`; the training loop stays as it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from splatfix.conditioning import Conditioning
from splatfix.restoration.nafnet.network import GuidedNet, NetworkConfig, use_layout, widen
from splatfix.training import nafnet
from splatfix.training.batches import Batch, NetworkInputs
from splatfix.training.config import TrainConfig
from splatfix.training.validation import WholeRepair


@dataclass(frozen=True, kw_only=True)
class Family:
    """What training needs of a family of restorers.

    Attributes:
        network_config: type of the field ``network`` in the training's config; it selects the family.
        build: a fresh network, from its config. Its ``forward`` takes the inputs of a batch.
        inputs: the input planes of the network, from its config.
        loss: the loss, from the network's output for a batch, the batch and the training's config.
        use_patch_size: let a network that is trained on patches of a size, in pixels, repair whole images.
        repair: a whole view with the whole correction: the repaired image, and its expected error if the network
            tells one.
        load: network, its config and provenance of a checkpoint (a folder, a training run or hf:USER/NAME).
        save: write a checkpoint folder as a whole: folder, network, the training's config, the share of the
            correction to apply, and provenance.
        widen: a network of a config that repairs as a trained one with fewer inputs; None if that cannot be. None for a
            family whose networks start from equal ones alone.
        example_inputs: inputs to time a network with, from its config: number of crops and their side in pixels.
        use_layout: have a network keep its images and weights in a memory layout; None for a family that has one only.
    """

    network_config: type[Any]
    build: Callable[[Any], nn.Module]
    inputs: Callable[[Any], NetworkInputs]
    loss: Callable[[Any, Batch, TrainConfig], Tensor]
    use_patch_size: Callable[[Any, int], None]
    repair: Callable[[Any, Conditioning], WholeRepair]
    load: Callable[[str | Path], tuple[nn.Module, Any, dict[str, Any]]]
    save: Callable[[Path, Any, TrainConfig, float, dict[str, Any]], None]
    widen: Callable[[Any, Any], nn.Module | None] | None = None
    example_inputs: Callable[[Any, int, int], Tensor] | None = None
    use_layout: Callable[[Any, torch.memory_format], None] | None = None


FAMILIES: dict[str, Family] = {
    "nafnet": Family(
        network_config=NetworkConfig,
        build=GuidedNet,
        inputs=nafnet.NafnetInputs,
        loss=nafnet.compute_loss,
        use_patch_size=nafnet.use_patch_size,
        repair=nafnet.repair,
        load=nafnet.load,
        save=nafnet.save,
        widen=widen,
        example_inputs=nafnet.example_inputs,
        use_layout=use_layout,
    ),
}


def family_of(network: Any) -> Family:
    """The family whose network this config describes."""
    for family in FAMILIES.values():
        if isinstance(network, family.network_config):
            return family
    raise ValueError(f"network is a {type(network).__name__}: wanted the config of one of {', '.join(FAMILIES)}")
