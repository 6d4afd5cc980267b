"""The settings of a generation, and the file ``config.yaml`` that keeps them in the output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from splatfix import storage
from splatfix.config import build_config, parse_yaml, require, to_public_tree, to_tree, to_yaml
from splatfix.messages import without_secrets
from splatfix.pairs.ground_truth import DenseConfig
from splatfix.pairs.recipes import Recipe
from splatfix.pairs.sources import absolute_pattern
from splatfix.runs import CONFIG, RECORD, refuse_changes
from splatfix.workers import WorkersConfig

# settings that a later run into the same output may change; all others determine the fits
MAY_CHANGE = frozenset({"captures", "groups", "fits_per_capture", "device", "max_failed", "workers"})


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """The settings of a generation of pairs.

    Attributes:
        captures: folders of captures, globs, YAML lists, dataset roots, URLs, or procedural scenes (procedural:0-99).
        groups: group of a scene, by the scene's name, for captures that show the same thing; by default, each scene is
            a separate group.
        fits_per_capture: number of sparse fits of each capture.
        seed: seed of all random choices.
        device: auto, cpu, cuda or cuda:N.
        samples_per_shard: largest number of pairs in a shard.
        max_failed: largest share of the fits of a run that may fail; a run in which more fail ends early, with exit
            code 1; null for no limit.
        recipes: how the fits differ, by name; each fit follows one of them.
        dense: settings of the dense fits that recipes with ``clean: renders`` render.
        workers: number of workers, and the resources of each.
    """

    captures: tuple[str, ...] = ()
    groups: dict[str, str] = field(default_factory=dict)
    fits_per_capture: int = 4
    seed: int = 0
    device: str = "auto"
    samples_per_shard: int = 64
    max_failed: float | None = 0.05
    recipes: dict[str, Recipe] = field(default_factory=lambda: {"photos": Recipe()})
    dense: DenseConfig = field(default_factory=DenseConfig)
    workers: WorkersConfig = field(default_factory=WorkersConfig)

    def __post_init__(self) -> None:
        require(self.fits_per_capture >= 1, "fits_per_capture", self.fits_per_capture, "at least 1 fit")
        require(self.seed >= 0, "seed", self.seed, "a whole number that is not negative")
        require(self.samples_per_shard >= 1, "samples_per_shard", self.samples_per_shard, "at least 1 pair")
        is_share = self.max_failed is None or 0 <= self.max_failed <= 1
        require(is_share, "max_failed", self.max_failed, "a share from 0 to 1, or null")
        total = sum(recipe.weight for recipe in self.recipes.values())
        require(total > 0, "recipes", sorted(self.recipes), "at least one recipe with a weight above 0")


def read_settings(out: str) -> GenerateConfig:
    """Read the settings of an output. ValueError if there are none."""
    where = storage.join(out, CONFIG)
    tree = parse_yaml(storage.read_bytes(where), where)
    if not isinstance(tree, dict):
        raise ValueError(f"{where}: wanted the settings of splatfix generate")
    return build_config(GenerateConfig, tree, source=where)


def read_captures(out: str) -> list[str]:
    """Read the captures from the settings of an output; empty if there are no settings."""
    return list(read_settings(out).captures) if storage.exists(storage.join(out, CONFIG)) else []


def stored_settings(out: str, command: str = "generate") -> dict[str, Any] | None:
    """Read the settings that a rerun does not name from its output; None where no generation has begun there.

    Captures are left out: a rerun that names captures makes the pairs of those alone, and one that names none takes
    all captures of the output.

    Raises:
        ValueError: the output belongs to another command.
    """
    if storage.exists(storage.join(out, RECORD)):
        raise ValueError(f"{out}: holds a run, not pairs of splatfix {command}; choose another --out")
    if not storage.exists(storage.join(out, CONFIG)):
        return None
    return {name: value for name, value in to_tree(read_settings(out)).items() if name != "captures"}


def write_settings(out: str, config: GenerateConfig, captures: Sequence[str | Path]) -> None:
    """Write the settings into an output; if it has some, compare them and add the captures.

    Raises:
        ValueError: the output is a file, or has other settings.
    """
    where = storage.join(out, CONFIG)
    places = (without_secrets(absolute_pattern(capture)) for capture in captures)
    config = replace(config, captures=tuple(dict.fromkeys(places)))
    try:
        if storage.create(where, to_yaml(config).encode()):
            return
    except (FileExistsError, NotADirectoryError):
        raise ValueError(f"{out}: is a file; wanted a folder for the pairs") from None
    stored = read_settings(out)
    orders = [list(settings.recipes) for settings in (stored, config)]
    if sorted(orders[0]) == sorted(orders[1]):  # otherwise the comparison of all settings names the recipe
        refuse_changes(out, *({"order of recipes": order} for order in orders))
    refuse_changes(out, to_public_tree(stored), to_public_tree(config), MAY_CHANGE)
    config = replace(config, captures=tuple(dict.fromkeys([*stored.captures, *config.captures])))
    if config != stored:
        storage.write_bytes(where, to_yaml(config).encode())
