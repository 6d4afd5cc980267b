"""A trained NAFNet on disk: a folder with ``restorer.safetensors``, ``config.json`` and a model card, ``README.md``.

Nothing is unpickled. The tensors carry NAFNet's published names, so published weights (converted to safetensors)
load with ``head: residual``, no references, alpha, depth or error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from splatfix.config import build_config, require, to_tree
from splatfix.files import write_bytes, write_text
from splatfix.restoration.checkpoint import (
    CARD,
    CONFIG,
    FORMAT,
    find_checkpoint,
    read_config,
    replace_folder,
    write_config,
)
from splatfix.restoration.nafnet import NafnetOptions
from splatfix.restoration.nafnet.card import model_card
from splatfix.restoration.nafnet.network import GuidedNet, NetworkConfig, expected_shapes
from splatfix.restoration.tiles import TILE_OVERLAP_PX, TILE_PX
from splatfix.saved_states import digest_tensors

WEIGHTS = "restorer.safetensors"
NAME = "nafnet"  # the kind in config.json
DIGEST = "sha256"  # of the tensors, in the metadata of the weights
MAX_PX = 65_536  # of patches and of the overlap of tiles
T = TypeVar("T")
RETRY = "copy or train the checkpoint again"


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """How a trained network is used: ``config.json`` of its checkpoint.

    Attributes:
        network: its inputs, outputs and size.
        strength: share of the correction that is applied, in [0, 1]; chosen on validation groups.
        max_correction: bound of the correction of each channel, in sRGB, before ``strength`` applies.
        calibrated: whether the confidence is that of the calibrated error (`calibration`), not of the predicted one.
        train_patch_px: size of the patches it was trained on; pooling windows at inference are 1.5 times as large
            (TLC). None pools over the whole image.
        tile_px: images with a longer side are repaired in tiles of this size, in pixels.
        tile_overlap_px: how much neighboring tiles share, in pixels.
        provenance: where it comes from: version, commit, data, groups, steps, validation.
    """

    network: NetworkConfig = field(default_factory=NetworkConfig)
    strength: float = 0.5
    max_correction: float = 1.0
    calibrated: bool = False
    train_patch_px: int | None = 128
    tile_px: int = TILE_PX
    tile_overlap_px: int = TILE_OVERLAP_PX
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(0 <= self.strength <= 1, "strength", self.strength, "0 to 1")
        require(0 < self.max_correction <= 1, "max_correction", self.max_correction, "above 0, 1 at most")
        patch_px = self.train_patch_px
        require(patch_px is None or 1 <= patch_px <= MAX_PX, "train_patch_px", patch_px, f"1 to {MAX_PX}, or null")
        require(0 <= self.tile_overlap_px <= MAX_PX, "tile_overlap_px", self.tile_overlap_px, f"0 to {MAX_PX} pixels")
        wanted = f"more than tile_overlap_px = {self.tile_overlap_px}"
        require(self.tile_px > self.tile_overlap_px, "tile_px", self.tile_px, wanted)

    @property
    def calibration(self) -> tuple[float, float]:
        """Scale and power of ``found = scale * predicted ** power``, from the validation of the training.

        Raises:
            ValueError: the training stored none.
        """
        validation = self.provenance.get("validation") or {}
        try:
            return float(validation["calibration"]["scale"]), float(validation["calibration"]["power"])
        except (KeyError, TypeError, ValueError):
            wanted = "false: this restorer was trained without validation, or before errors were calibrated"
            raise ValueError(f"calibrated = True: wanted {wanted}") from None

    def with_options(self, options: NafnetOptions) -> CheckpointConfig:
        """Replace what the options set. ValueError where that does not fit the rest."""
        given = {name: value for name, value in vars(options).items() if value is not None}
        return replace(self, **given)


def save_checkpoint(folder: Path, network: GuidedNet, config: CheckpointConfig) -> None:
    """Write a checkpoint folder as a whole, in place of the one that exists."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.network.state_dict().items()}

    def write(aside: Path) -> None:
        # not save_file, which lets nobody but the user read the file, and hides that the disk is full
        write_bytes(aside / WEIGHTS, save(tensors, metadata={"format": FORMAT, DIGEST: digest_tensors(tensors)}))
        write_config(aside, NAME, to_tree(config))
        write_text(aside / CARD, model_card(to_tree(config), num_parameters=sum(t.numel() for t in tensors.values())))

    replace_folder(folder, write)


def load_checkpoint(place: str | Path, device: torch.device | str = "cpu") -> tuple[GuidedNet, CheckpointConfig]:
    """The network (in evaluation mode) and how to use it, from a folder, a training run's folder, or hf:USER/NAME.

    Raises:
        ValueError: no checkpoint, an incomplete one, or one of another kind; one line names the file and the remedy.
    """
    folder = find_checkpoint(place, [WEIGHTS, CONFIG, CARD])
    config = build_config(CheckpointConfig, read_config(folder, NAME), source=str(folder / CONFIG))
    file = folder / WEIGHTS
    if not file.is_file():
        raise ValueError(f"{file}: no such file; a checkpoint folder holds {WEIGHTS}, {CONFIG} and {CARD}")
    tensors = _read_tensors(file, expected_shapes(config.network))
    network = GuidedNet(config.network)
    network.network.load_state_dict(tensors)
    return network.eval().requires_grad_(False).to(device), config


def _read_tensors(file: Path, wanted: Mapping[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Read weights of the shapes wanted. ValueError if they have others, are damaged or are not finite."""
    names = _read(file, lambda opened: list(opened.keys()))
    shapes = _read(file, lambda opened: {name: tuple(opened.get_slice(name).get_shape()) for name in names})
    _check_shapes(file, shapes, wanted)
    tensors = _read(file, lambda opened: {name: opened.get_tensor(name) for name in names})
    digest = _read(file, lambda opened: (opened.metadata() or {}).get(DIGEST))
    if digest is not None and digest != digest_tensors(tensors):
        raise ValueError(f"{file}: damaged weights (they do not match their digest); {RETRY}")
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor.float()).all()):
            raise ValueError(f"{file}: {name} is not finite; {RETRY}")
    return tensors


def _read(file: Path, part: Callable[[Any], T]) -> T:
    """Read a part of a file of weights. ValueError if it is no safetensors."""
    try:
        with safe_open(file, framework="pt") as opened:
            return part(opened)
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{file}: cannot be read as safetensors ({error}); is the file complete?") from None


def _check_shapes(file: Path, found: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]]) -> None:
    """Compare the weights in a file with those of the network, before any are allocated."""
    for name in (*wanted, *found):
        if found.get(name) != wanted.get(name):
            kinds = [f"{name} is {shapes[name]}" if name in shapes else f"no {name}" for shapes in (found, wanted)]
            raise ValueError(f"{file}: its tensors do not fit {CONFIG} ({kinds[0]}, wanted {kinds[1]}); {RETRY}")
