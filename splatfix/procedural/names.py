"""Names of procedural scenes: ``procedural:SEED`` for one, ``procedural:FIRST-LAST`` for a range."""

from __future__ import annotations

import re

PREFIX = "procedural:"
NUM_SCENES = 1_000_000


def is_procedural(name: object) -> bool:
    """Whether a name is meant to be that of procedural scenes; it may be invalid."""
    return str(name).startswith(PREFIX)


def parse_seed(name: str) -> int:
    """Read the seed in the name of a scene. ValueError if it is not one whole number from 0 to 999999."""
    first, last = _parse(name)
    if last is not None:
        raise ValueError(f"{name}: a range of scenes; wanted one here: {PREFIX}{first}")
    return first


def expand_range(name: str) -> list[str]:
    """List the names of the scenes that a name of one scene or a range stands for.

    Raises:
        ValueError: not such a name.
    """
    first, last = _parse(name)
    return [f"{PREFIX}{seed}" for seed in range(first, (first if last is None else last) + 1)]


def scene_name(seed: int) -> str:
    """Return the name of a scene in pairs and results, such as ``procedural_000123``."""
    return f"procedural_{seed:06d}"


def _parse(name: str) -> tuple[int, int | None]:
    wanted = f"wanted {PREFIX}SEED or {PREFIX}FIRST-LAST, whole numbers from 0 to {NUM_SCENES - 1}"
    match = re.fullmatch(rf"{PREFIX}([0-9]+)(?:-([0-9]+))?", name)
    if match is None:
        raise ValueError(f"{name}: {wanted}")
    first, last = int(match[1]), None if match[2] is None else int(match[2])
    if max(first, last or 0) >= NUM_SCENES:
        raise ValueError(f"{name}: no such scene; {wanted}")
    if last is not None and last < first:
        raise ValueError(f"{name}: the first scene comes after the last; {wanted}")
    return first, last
