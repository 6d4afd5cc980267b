"""Pairs of many captures on one machine: plan the fits, make their pairs, write shards; what is done is kept."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from splatfix.captures import open_capture
from splatfix.pairs.make import PairsConfig, make_pairs
from splatfix.pairs.shards import MANIFEST, merge_manifests, write_shards
from splatfix.pairs.storage import exists, join
from splatfix.runs import choose_device, progress

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """A set of pairs.

    Attributes:
        captures: folders of captures.
        groups: folder name -> group, for captures that show the same thing; others are a group of their own.
        fits_per_capture: sparse fits of each capture.
        seed: everything random follows it.
        device: auto, cpu, cuda or cuda:N.
        pairs: how the fits differ.
    """

    captures: tuple[Path, ...] = ()
    groups: dict[str, str] = field(default_factory=dict)
    fits_per_capture: int = 4
    seed: int = 0
    device: str = "auto"
    pairs: PairsConfig = field(default_factory=PairsConfig)


def generate(captures: Sequence[Path], out: str, config: GenerateConfig) -> dict[str, Any]:
    """Make the pairs of all captures. A rerun does only the fits whose shards are missing.

    Returns the number of fits made, found and skipped, and of samples.

    Raises:
        ValueError: no captures, or one that cannot be opened; nothing is written then.
    """
    paths = [*captures, *config.captures]
    if not paths:
        raise ValueError("generate: no captures; name at least one folder of posed photos")
    opened = [open_capture(path, longest_side_px=config.pairs.size_px) for path in paths]
    plan = [(capture, index) for index in range(config.fits_per_capture) for capture in opened]
    device = choose_device(config.device)
    counts = {"made": 0, "found": 0, "empty": 0}
    with progress(total=len(plan), description="fits") as bar:
        for capture, index in plan:
            stem = f"{capture.name}-f{index:03d}"
            manifest = f"{stem}.{MANIFEST}"
            if exists(join(out, manifest)):
                counts["found"] += 1
            else:
                group = config.groups.get(capture.name, capture.name)
                pairs = list(
                    make_pairs(capture, index, seed=config.seed, config=config.pairs, device=device, group=group)
                )
                counts["made" if pairs else "empty"] += 1
                if pairs:
                    write_shards(pairs, out, stem=stem, manifest=manifest)
            bar.update()
    shards = merge_manifests(out)
    return counts | {"samples": sum(shard.samples for shard in shards)}
