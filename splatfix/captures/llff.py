"""LLFF: ``poses_bounds.npy``, with one row per image of ``images/`` in the order of their names.

A row is a 3x5 matrix (camera axes down, right, backward as columns, camera center, and height, width, focal length)
followed by the nearest and farthest depth. The principal point is the image center.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from numpy import ndarray

from splatfix.captures.capture import Capture
from splatfix.captures.capture_files import LOCAL, CaptureFiles
from splatfix.captures.lenses import make_lens
from splatfix.captures.options import DEFAULT_OPTIONS, PhotoOptions
from splatfix.captures.photos import (
    assemble_capture,
    choose_image_folder,
    find_image_folders,
    list_images,
    open_photo,
    read_photo_header,
)
from splatfix.captures.poses import pose_from_camera_to_world
from splatfix.file_kinds import refuse_pointer
from splatfix.shapes import Float

EXPECTED_FILES = "poses_bounds.npy (LLFF)"
AXES = np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, -1]])  # down, right, backward -> right, down, forward


def find(path: Path, _files: CaptureFiles = LOCAL) -> tuple[Path, Path] | None:
    """Find the folder of the capture and its table of poses; None if this is another format."""
    if path.is_file() and path.name == "poses_bounds.npy":
        return path.parent, path
    return (path, path / "poses_bounds.npy") if (path / "poses_bounds.npy").is_file() else None


def read(
    root: Path,
    file: Path,
    longest_side_px: int | None,
    files: CaptureFiles = LOCAL,
    options: PhotoOptions = DEFAULT_OPTIONS,
) -> Capture:
    """Open the capture. ValueError if the table is broken or does not match the images."""
    files.fetch([file])
    rows = _read_rows(file)
    folders = {folder: list_images(folder) for folder in find_image_folders(root)}
    selected = {folder: _select_images(images, len(rows), files) for folder, images in folders.items()}
    matching = {folder: images for folder, images in selected.items() if images}
    if not matching:
        found = ", ".join(f"{len(images)} images in {folder.name}/" for folder, images in folders.items())
        too_few = all(len(images) < len(rows) for images in folders.values())
        remedy = "add the missing images" if too_few else "remove the others"
        raise ValueError(
            f"{file}: {len(rows)} rows but {found or 'no images/ folder'}; wanted as many images as rows, in the "
            f"order of their names: {remedy}"
        )
    chosen = choose_image_folder([(folder, images[0]) for folder, images in matching.items()], longest_side_px, files)
    named = matching.get(root / "images", matching[chosen])  # names must not depend on the folder that is read
    files.fetch(matching[chosen], headers=True)
    views = []
    for index, (row, image, original) in enumerate(zip(rows, matching[chosen], named, strict=True)):
        where = f"{file}: row {index} ({original.name})"
        table = row[:15].reshape(3, 5)
        pose, _ = pose_from_camera_to_world(table[:, :4], where, AXES)
        height, width, focal = table[:, 4]
        lens = make_lens("SIMPLE_PINHOLE", width, height, (focal, width / 2, height / 2), where)
        views.append(open_photo(original.name, image, lens, pose, longest_side_px, where, files=files, options=options))
    notes = [f"images are read from {chosen.name}/"] if chosen.name != "images" else []
    strays = sorted(set(folders[chosen]) - set(matching[chosen]))
    if strays:
        notes.append(f"{len(strays)} images in {chosen.name}/ are no photos of the table (the first: {strays[0].name})")
    return assemble_capture(root, file, "llff", views, None, notes)


def _select_images(images: list[Path], num: int, files: CaptureFiles) -> list[Path]:
    """Select the photos in a folder with stray images: those of one suffix or size or both, if they are ``num``.

    Empty if there is no such choice, or more than one.
    """
    if len(images) == num:
        return images
    if len(images) < num:
        return []
    files.fetch(images, headers=True)
    suffixes = [image.suffix.lower() for image in images]
    sizes = [read_photo_header(image, files).size() for image in images]
    for kinds in (suffixes, sizes, list(zip(suffixes, sizes, strict=True))):
        groups = [kind for kind, count in Counter[object](kinds).items() if count == num]
        if groups:
            chosen = [image for image, kind in zip(images, kinds, strict=True) if kind == groups[0]]
            return chosen if len(groups) == 1 else []
    return []


def _read_rows(file: Path) -> Float[ndarray, "N 17"]:
    refuse_pointer(file)
    try:
        rows = np.load(file, allow_pickle=False)
    except Exception as error:  # numpy's header parser raises many kinds; each means that this is no whole array
        reason = str(error).split(". ")[0]
        raise ValueError(f"{file}: cannot be read as a NumPy array ({reason}); is the file whole?") from error
    if not isinstance(rows, ndarray) or rows.dtype.kind not in "fiu" or rows.shape[1:] != (17,):
        seen = f"{rows.dtype} of shape {rows.shape}" if isinstance(rows, ndarray) else type(rows).__name__
        raise ValueError(f"{file}: {seen}; wanted numbers of shape [images, 17]")
    return rows.astype(np.float64)
