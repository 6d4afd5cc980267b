"""Find the masks in a folder ``masks`` beside photos whose poses name no masks, as segmentation tools write them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from splatfix.captures.finder import ImageFinder
from splatfix.captures.options import MaskChoice

FOLDERS = ("masks", "mask")


def find_folder_masks(root: Path, photos: Mapping[str, Path], choice: MaskChoice) -> tuple[dict[str, Path], list[str]]:
    """Find the mask of each photo, named as in COLMAP (``a.jpg.png``) or as the photo with any suffix; and notes.

    Nothing in such a folder says what the masks mark, so they are used only if the user does.

    Args:
        root: folder of the capture.
        photos: files of the photos by name.
        choice: what masks mark; with ``auto`` they are only noted.

    Raises:
        ValueError: several files match a photo.
    """
    finder = ImageFinder()
    folder = next((root / name for name in FOLDERS if (root / name).is_dir()), None)
    if folder is None:
        return {}, []
    found = {name: finder.find(folder, f"{name}.png") or finder.find(folder, name) for name in photos}
    masks = {name: path for name, path in found.items() if path is not None}
    if masks and choice == "auto":
        note = f"{folder.name}/ has masks of {len(masks)} of {len(photos)} images, but nothing says what they mark"
        return {}, [f"{note}: views.masks = ignore (black pixels are not learned) or object uses them"]
    return masks, []
