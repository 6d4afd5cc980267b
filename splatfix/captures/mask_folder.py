"""Find the masks in a folder ``masks`` beside photos whose poses name no masks, as segmentation tools write them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from splatfix.captures.finder import ImageFinder, has_image_suffix
from splatfix.captures.options import MaskChoice

FOLDERS = ("masks", "mask")  # in any case


def find_folder_masks(root: Path, photos: Mapping[str, Path], choice: MaskChoice) -> tuple[dict[str, Path], list[str]]:
    """Find the mask of each photo, named as in COLMAP (``a.jpg.png``) or as the photo with any suffix; and notes.

    Nothing in such a folder says what the masks mark, so they are used only if the user does.

    Args:
        root: folder of the capture.
        photos: files of the photos by name.
        choice: what masks mark; with ``auto`` they are only noted.

    Raises:
        ValueError: several files match a photo, and the masks are used.
    """
    notes = []
    folders = sorted(entry for entry in root.iterdir() if entry.name.lower() in FOLDERS and entry.is_dir())
    folders += [inner for folder in folders if (inner := folder / "images").is_dir()]
    for folder in folders:
        masks, num_ambiguous = _find_masks(folder, photos, may_fail=choice != "auto")
        num_images = sum(has_image_suffix(entry.name) for entry in folder.iterdir())
        if masks or num_ambiguous:
            if choice != "auto":
                return masks, []
            number = f"{len(masks) + num_ambiguous} of {len(photos)}"
            note = f"{folder.relative_to(root)}/ has masks of {number} images, but nothing says what they mark"
            return {}, [f"{note}: views.masks = ignore (black pixels are not learned) or object uses them"]
        if num_images:
            name = next(iter(photos), "a.jpg")
            wanted = f"for {name}: {name}.png, or {Path(name).stem} with any suffix"
            place = folder.relative_to(root)
            notes.append(
                f"{place}/ has {num_images} images, but none has the name of a photo ({wanted}): not used as masks"
            )
    return {}, notes


def _find_masks(folder: Path, photos: Mapping[str, Path], *, may_fail: bool) -> tuple[dict[str, Path], int]:
    """Find the masks in a folder; also counts the photos for which several files could be meant."""
    finder = ImageFinder()
    masks, num_ambiguous = {}, 0
    for name in photos:
        try:
            mask = finder.find(folder, f"{name}.png") or finder.find(folder, name)
        except ValueError:
            if may_fail:
                raise
            num_ambiguous += 1
            continue
        if mask is not None:
            masks[name] = mask
    return masks, num_ambiguous
