"""Decide whether a photo is turned by the orientation in its EXIF data.

Poses belong either to the pixels as they are stored (COLMAP) or to the photo as viewers show it (programs that turn
photos first). Where both have other shapes, width and height of the camera tell which.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from splatfix.captures.options import OrientationChoice
from splatfix.images import Header

Size = tuple[int, int]
Reason = Literal["none", "shape", "assumption", "option"]
_WORDING: dict[tuple[Reason, bool], str] = {
    ("shape", True): "turned by it, as the width and height of their cameras tell",
    ("shape", False): "not turned by it, as the width and height of their cameras tell",
    ("assumption", False): "assumed to have poses for the pixels as stored: if they are wrong, views.orientation apply",
    ("option", True): "turned by it, as views.orientation asks",
    ("option", False): "not turned by it, as views.orientation asks",
}


@dataclass(frozen=True)
class Turn:
    """Whether a photo is turned upright by its EXIF orientation, and why; ``none`` if it has no orientation."""

    is_applied: bool
    reason: Reason


NO_TURN = Turn(False, "none")


def choose_turn(header: Header, fits: Callable[[Size], bool], choice: OrientationChoice) -> Turn:
    """Choose whether to turn a photo.

    Args:
        header: of the photo.
        fits: whether width and height can be those of the photo when its pose was found.
        choice: of the user.
    """
    if header.orientation == 1:
        return NO_TURN
    if choice != "auto":
        return Turn(choice == "apply", "option")
    stored, upright = header.size(), header.size(upright=True)
    if stored != upright and fits(stored) != fits(upright):
        return Turn(fits(upright), "shape")
    return Turn(False, "assumption")


def tell_by_size(header: Header, size: Size) -> Callable[[Size], bool]:
    """Return a test that tells stored from upright by the size of the camera: equal to it, else of its aspect ratio."""
    if size in (header.size(), header.size(upright=True)):
        return lambda other: other == size
    return lambda other: have_same_aspect(other, size)


def have_same_aspect(a: Size, b: Size) -> bool:
    """Whether two sizes have the same aspect ratio: within 1 % or, for small images, within a pixel of rounding."""
    scale_x, scale_y = a[0] / b[0], a[1] / b[1]
    near = abs(scale_x / scale_y - 1) <= 0.01
    return near or abs(a[0] - b[0] * scale_y) <= 1 or abs(a[1] - b[1] * scale_x) <= 1


def describe_turns(turns: Sequence[Turn]) -> list[str]:
    """Describe what was done with the photos that have an EXIF orientation: a note for each decision."""
    counts = Counter(turn for turn in turns if turn.reason != "none")
    return [
        f"{count} photos have an EXIF orientation and are {_WORDING[turn.reason, turn.is_applied]}"
        for turn, count in sorted(counts.items(), key=lambda item: (item[0].reason, item[0].is_applied))
    ]
