"""Find the image files of the frames of a ``transforms*.json``, also where folders were moved or renamed since."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from splatfix.captures.capture_files import CaptureFiles
from splatfix.captures.finder import ImageFinder, is_absolute, with_slashes
from splatfix.captures.photos import choose_image_folder, describe_spellings, find_image_folders, refuse_masks

OTHER_FOLDERS = ("resized_images", "resized_undistorted_images")  # of ScanNet++
WRAPPERS = ("nerfstudio",)  # folders whose images may be in the folder above


def name_views(file_paths: Sequence[str], root: Path | None = None) -> list[str]:
    """Name views by their file paths, relative to the deepest common folder.

    Where absolute paths are mixed with relative ones or those of Windows, the absolute ones are shortened to their end
    below ``root``, or to the file name.
    """
    texts = [with_slashes(text) for text in file_paths]
    absolute = [is_absolute(text) for text in texts]
    has_drives = len({text.startswith("/") for text, far in zip(texts, absolute, strict=True) if far}) > 1
    if any(absolute) and (has_drives or not all(absolute)):
        finder = ImageFinder()
        texts = [_shorten(finder, text, root) if far else text for text, far in zip(texts, absolute, strict=True)]
    paths = [PurePosixPath(os.path.normpath(text)) for text in texts]
    if not paths:
        return []
    common = PurePosixPath(os.path.commonpath([path.parent for path in paths]) or ".")
    return [str(path.relative_to(common)) for path in paths]


def _shorten(finder: ImageFinder, text: str, root: Path | None) -> str:
    found = None if root is None else finder.find_tail(root, text)
    if found is None or root is None:
        return PurePosixPath(text).name
    found, root = found.resolve(), root.resolve()
    return found.relative_to(root).as_posix() if found.is_relative_to(root) else found.name


def find_frame_images(
    root: Path, file_paths: Sequence[str], names: Sequence[str], longest_side_px: int | None, files: CaptureFiles
) -> tuple[list[Path | None], list[str]]:
    """Find the image of each frame, and describe those that are not where the file says.

    An absolute path of another machine is found by its end. Where no frame has its image, the images are looked for by
    the names of the views in the downscaled folders ``images_2``, ``images_4``, ... (DL3DV) and those of ScanNet++.

    Args:
        root: folder of the file.
        file_paths: of all frames.
        names: of their views.
        longest_side_px: of the images that are wanted.
        files: of the capture.

    Returns:
        The path of each frame, None where there is none; and notes.

    Raises:
        ValueError: several files match a path, one file matches several, or it is a mask.
    """
    finder = ImageFinder()
    found = [finder.find(root, text) for text in file_paths]
    notes: list[str] = []
    far = [k for k, text in enumerate(file_paths) if found[k] is None and is_absolute(text)]
    for k in far:
        found[k] = finder.find_tail(root, file_paths[k])
    moved = [k for k in far if found[k] is not None]
    if moved:
        path, count = Counter(path for path in found if path is not None).most_common(1)[0]
        if count > 1:
            raise ValueError(f"{path}: is meant by {count} frames, by the end of their paths; wanted a file for each")
        notes.append(f"{len(moved)} frames name absolute paths of another place (the first: {file_paths[moved[0]]})")
    if not any(found):
        found, folder_notes = _find_elsewhere(finder, root, names, longest_side_px, files)
        notes += folder_notes
    by_name = {name: path for name, path in zip(names, found, strict=True) if path is not None}
    refuse_masks(by_name, files)
    return found, notes + describe_spellings(by_name)


def _find_elsewhere(
    finder: ImageFinder, root: Path, names: Sequence[str], longest_side_px: int | None, files: CaptureFiles
) -> tuple[list[Path | None], list[str]]:
    places = [root, root.parent] if root.name in WRAPPERS else [root]
    folders = [folder for place in places for folder in find_image_folders(place)]
    folders += [place / name for place in places for name in OTHER_FOLDERS if (place / name).is_dir()]
    found = {folder: finder.find_all(folder, names) for folder in folders}
    most = max((len(photos) for photos in found.values()), default=0)
    if most == 0:
        return [None] * len(names), []
    complete = [(folder, next(iter(each.values()))) for folder, each in found.items() if len(each) == most]
    folder = choose_image_folder(complete, longest_side_px, files)
    place = os.path.relpath(folder, root)
    return [found[folder].get(name) for name in names], [f"images are read from {place}/, not where file_path says"]
