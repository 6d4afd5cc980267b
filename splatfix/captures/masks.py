"""Decide for a whole capture what alpha channels and mask files of its photos mark: an object, or pixels to ignore.

The two must not be confused. Around an object everything is set on white, and points off the object are dropped.
Ignored pixels (passers-by, a tripod) say nothing about the scene, which keeps its background.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from splatfix.captures.capture import Capture
from splatfix.captures.options import MaskChoice, MaskMeaning
from splatfix.captures.photos import WHITE, PhotoFile
from splatfix.images import has_transparency

MAX_CHECKED = 9  # photos whose alpha is decoded on opening
NUM_AGREEING = 2, 3  # of the first ones that are checked: transparent ones, or opaque ones, that settle the matter


def apply_mask_choice(capture: Capture, choice: MaskChoice) -> Capture:
    """Decide what the masks of a capture mark, and say so in its notes; its background is white behind an object.

    Only headers are read, but where all photos have an alpha channel and ``choice`` is ``auto``.

    Raises:
        ValueError: a photo that is decoded is broken.
    """
    files = [view.load for view in capture.views if isinstance(view.load, PhotoFile)]
    with_alpha = [file for file in files if file.has_alpha]
    with_mask = [file for file in files if file.mask_path is not None]
    alpha_marks = mask_marks = choice if choice != "auto" else "ignore"
    notes = []
    if choice != "auto" and files and not with_alpha and not with_mask:
        notes.append(f"views.masks = {choice} has no effect: no image has an alpha channel or a mask")
    if with_alpha:
        if choice == "auto":
            alpha_marks, note = _judge_alpha(with_alpha, len(files))
        else:
            note = f"{_describe_number(len(with_alpha), len(files))} an alpha channel"
        notes.append(f"{note}: {_describe_meaning(alpha_marks, 'transparent', choice)}")
    if with_mask:
        if choice == "auto":
            mask_marks = with_mask[0].mask_marks  # of the file that names the masks
        note = f"{_describe_number(len(with_mask), len(files))} a mask file"
        notes.append(f"{note}: {_describe_meaning(mask_marks, 'black', choice)}")
    num_objects = sum(
        (file.has_alpha and alpha_marks == "object") or (file.mask_path is not None and mask_marks == "object")
        for file in files
    )
    if 0 < num_objects < len(files):
        notes.append(f"{len(files) - num_objects} of {len(files)} images have no mask: taken as they are")
    if not notes:
        return capture
    views = tuple(
        replace(view, load=replace(view.load, alpha_marks=alpha_marks, mask_marks=mask_marks))
        if isinstance(view.load, PhotoFile)
        else view
        for view in capture.views
    )
    background = WHITE if num_objects else capture.background
    return replace(capture, views=views, background=background, notes=(*capture.notes, *notes))


def _judge_alpha(with_alpha: Sequence[PhotoFile], num_photos: int) -> tuple[MaskMeaning, str]:
    """Judge what alpha marks; also the start of a note that says why.

    Alpha marks an object only if all photos have it and most of those that are checked have transparent pixels: a white
    background would be wrong for every other photo.
    """
    number = f"{_describe_number(len(with_alpha), num_photos)} an alpha channel"
    if len(with_alpha) < num_photos:
        return "ignore", f"{number} (the first: {with_alpha[0].path.name}), the others have none"
    seen: list[bool] = []
    for file in _spread_evenly(with_alpha):
        file.files.fetch([file.path])
        seen.append(has_transparency(file.path))
        if (all(seen) and len(seen) == NUM_AGREEING[0]) or (not any(seen) and len(seen) == NUM_AGREEING[1]):
            break
    if 2 * sum(seen) > len(seen):
        return "object", number
    opaque = f"opaque in {len(seen) - sum(seen)} of the {len(seen)} that were checked"
    return "ignore", f"{number}, {opaque}, so it marks no object"


def _spread_evenly(files: Sequence[PhotoFile]) -> list[PhotoFile]:
    """Choose files to check, spread evenly by name; the first, the last and the middle come first."""
    last = len(files) - 1
    places = [0, last, last // 2, *(last * step // (MAX_CHECKED - 1) for step in range(MAX_CHECKED))]
    return [files[place] for place in dict.fromkeys(places)]


def _describe_number(num: int, num_photos: int) -> str:
    return f"{num} of {num_photos} images {'has' if num == 1 else 'have'}"


def _describe_meaning(marks: MaskMeaning, dark: str, choice: MaskChoice) -> str:
    """Say what masks mark, and how to change that; ``dark`` are the pixels that a mask takes out."""
    if marks == "object":
        meaning, other = f"{dark} pixels are the surroundings of an object, which is set on white", "ignore"
    else:
        meaning, other = f"{dark} pixels are ignored, and the scene keeps its background", "object"
    return f"{meaning} (views.masks = {other} changes that)" if choice == "auto" else meaning
