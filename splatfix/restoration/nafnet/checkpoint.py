"""A trained restorer on disk: a folder with ``restorer.safetensors``, ``config.json`` and a model card, ``README.md``.

Nothing is ever unpickled. The tensors carry NAFNet's published names, so published weights (converted to safetensors)
load with ``head: residual``, no references, alpha, depth or error.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from splatfix.config import build_config, to_tree
from splatfix.files import read_json, sync, write_json, write_text
from splatfix.process import log
from splatfix.restoration.nafnet.card import model_card
from splatfix.restoration.nafnet.network import GuidedNet, NetworkConfig
from splatfix.restoration.tiles import TILE_OVERLAP_PX, TILE_PX

WEIGHTS, CONFIG, CARD = "restorer.safetensors", "config.json", "README.md"
FORMAT = "splatfix-restorer"


@dataclass(frozen=True, kw_only=True)
class RestorerConfig:
    """How a trained network is used.

    Attributes:
        network: its inputs, outputs and size.
        strength: share of the correction that is applied, in [0, 1]; chosen on validation groups.
        train_patch_px: size of the patches it was trained on; pooling windows at inference are 1.5 times as large
            (TLC). None pools over the whole image.
        tile_px: images with a longer side are repaired in tiles of this size, in pixels.
        tile_overlap_px: how much neighbouring tiles share, in pixels.
        provenance: where it comes from: version, commit, data, groups, steps, validation.
    """

    network: NetworkConfig = field(default_factory=NetworkConfig)
    strength: float = 0.5
    train_patch_px: int | None = 128
    tile_px: int = TILE_PX
    tile_overlap_px: int = TILE_OVERLAP_PX
    provenance: dict[str, Any] = field(default_factory=dict)


def save_checkpoint(folder: Path, network: GuidedNet, config: RestorerConfig) -> None:
    """Write a checkpoint folder, whole: aside, then swapped in for the one that is there."""
    folder = Path(folder)
    aside, old = (folder.with_name(f".{folder.name}.{suffix}") for suffix in ("partial", "old"))
    if old.exists() and not folder.exists():  # a process was killed between the two renames below
        old.rename(folder)
    for leftover in (aside, old):
        shutil.rmtree(leftover, ignore_errors=True)
    aside.mkdir(parents=True)
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.network.state_dict().items()}
    save_file(tensors, aside / WEIGHTS, metadata={"format": FORMAT})
    write_json(aside / CONFIG, {"format": FORMAT, "schema": 1, **to_tree(config)})
    write_text(aside / CARD, model_card(to_tree(config), num_parameters=sum(t.numel() for t in tensors.values())))
    for file in aside.iterdir():
        sync(file)
    if folder.exists():
        folder.rename(old)
    aside.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def load_checkpoint(place: str | Path, device: torch.device | str = "cpu") -> tuple[GuidedNet, RestorerConfig]:
    """The network (in evaluation mode) and how to use it, from a folder, a training run's folder, or a Hub id.

    Raises:
        ValueError: nothing there, or not a whole checkpoint of splatfix; one line names the file and the remedy.
    """
    folder = _folder(place)
    tree = read_json(folder / CONFIG)
    if not isinstance(tree, dict) or tree.pop("format", None) != FORMAT:
        raise ValueError(f"{folder / CONFIG}: not a restorer of splatfix (format is not {FORMAT!r})")
    if (schema := tree.pop("schema", None)) != 1:
        raise ValueError(f"{folder / CONFIG}: schema = {schema!r}, this splatfix reads 1; update splatfix")
    config = build_config(RestorerConfig, tree, source=str(folder / CONFIG))
    if not 0 <= config.strength <= 1:
        raise ValueError(f"{folder / CONFIG}: strength = {config.strength}, wanted 0 to 1")
    file = folder / WEIGHTS
    if not file.is_file():
        raise ValueError(f"{file}: no such file; a checkpoint folder holds {WEIGHTS}, {CONFIG} and {CARD}")
    try:
        tensors = load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{file}: cannot be read as safetensors ({error}); is the file whole?") from None
    network = GuidedNet(config.network)
    try:
        network.network.load_state_dict(tensors)
    except RuntimeError as error:
        first = " ".join(str(error).split("\n\t")[1 if "\n\t" in str(error) else 0].split())[:200]
        raise ValueError(f"{file}: its tensors do not fit {CONFIG} ({first})") from None
    return network.eval().requires_grad_(False).to(device), config


def _folder(place: str | Path) -> Path:
    folder = Path(place)
    if folder.is_dir():
        inner = folder / "restorer"  # a training run holds its restorer there
        return inner if not (folder / CONFIG).exists() and (inner / CONFIG).exists() else folder
    if folder.exists():
        raise ValueError(f"{folder}: is a file; wanted a checkpoint folder with {WEIGHTS} and {CONFIG}")
    if re.fullmatch(r"[\w-]+/[\w.-]+", str(place)):
        return _from_hub(str(place))
    raise ValueError(f"{folder}: no such folder; wanted a checkpoint with {WEIGHTS} and {CONFIG}")


def _from_hub(name: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ValueError(f"{name}: no such folder, and huggingface_hub is not installed to look for it") from None
    log.info("%s: no such folder here; asking the Hugging Face Hub", name)
    try:
        return Path(snapshot_download(name, allow_patterns=[WEIGHTS, CONFIG, CARD]))
    except Exception as error:  # offline, not found, gated, ...: the Hub's client raises dozens of kinds
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise ValueError(f"{name}: neither a folder nor a model that the Hub gives out ({reason})") from None
