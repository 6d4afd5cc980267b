"""Find the models of a COLMAP project and choose one, and check that its binary and text files agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from splatfix.captures.capture_files import CaptureFiles
from splatfix.captures.colmap_model import PosedImage, count_images, read_cameras, read_images
from splatfix.captures.lenses import Lens
from splatfix.captures.photos import find_image_folders

PLACES = ("sparse", "colmap/sparse", "colmap_sparse", "colmap_text")
DISTORTED = "distorted/sparse"  # of 3DGS's convert.py: of the photos in input/, before they are undistorted
MAX_ROUNDING = 1e-3  # relative; text files may have few digits


@dataclass(frozen=True)
class ModelFiles:
    """The files of a model, binary before text; upper and lower case do not matter."""

    folder: Path
    cameras: tuple[Path, ...]
    images: tuple[Path, ...]
    points: tuple[Path, ...]

    @property
    def all(self) -> tuple[Path, ...]:
        """All files that are read."""
        return (*self.cameras, *self.images, *self.points)


def find_model_files(folder: Path) -> ModelFiles:
    """Find the files of a model in a folder; none of them if there is no such folder."""
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    by_lower = {name.lower(): name for name in names} | {name: name for name in names}

    def find(stem: str) -> tuple[Path, ...]:
        files = (by_lower.get(stem + suffix) or by_lower.get((stem + suffix).lower()) for suffix in (".bin", ".txt"))
        return tuple(folder / name for name in files if name is not None)

    return ModelFiles(folder, find("cameras"), find("images"), find("points3D"))


def find_models(path: Path) -> list[Path]:
    """Find the models of a project or of its ``sparse`` folder, those in usual places first.

    ``distorted/sparse`` counts where no undistorted images were made from it.
    """
    places = [path / place for place in PLACES]
    if (path / DISTORTED).is_dir() and not any(any(folder.iterdir()) for folder in find_image_folders(path)):
        places.insert(0, path / DISTORTED)
    places += [folder for folder in sorted(path.glob("sparse*")) if folder.is_dir()]
    models = [model for place in dict.fromkeys(places) for model in _models_in(place)]
    if models:
        return models
    return _models_in(path) if path.name.startswith("sparse") or _is_model(path) else []


def _models_in(folder: Path) -> list[Path]:
    """Return the models in a folder: the numbered ones in order and the folder itself, or else those with names."""
    if not folder.is_dir():
        return []
    children = sorted(child for child in folder.iterdir() if _is_model(child))
    numbered = sorted((child for child in children if child.name.isdecimal()), key=lambda child: int(child.name))
    return numbered + ([folder] if _is_model(folder) else []) or children


def _is_model(folder: Path) -> bool:
    files = find_model_files(folder)
    return bool(files.cameras or files.images)


def choose_model(models: list[Path], files: CaptureFiles) -> tuple[ModelFiles, list[str]]:
    """Choose the model with most images, and among equals the first; also returns a note on the others.

    Raises:
        ValueError: the files of the model are not complete.
    """
    found = [find_model_files(model) for model in models]
    notes: list[str] = []
    chosen = found[0]
    if len(found) > 1:
        counts = _count_images(found, files)
        most = int(np.argmax(counts))
        chosen = found[most]
        others = [f"{m.folder} ({count})" for m, count in zip(found, counts, strict=True) if m is not chosen]
        which = "the first model with" if counts.count(counts[most]) > 1 else "the model with"
        notes.append(f"{chosen.folder} is read, {which} most images ({counts[most]}); not read: {', '.join(others)}")
    for name, file in (("cameras", chosen.cameras), ("images", chosen.images)):
        if not file:
            raise ValueError(f"{chosen.folder}: {name}.bin (or .txt) is missing; wanted a whole COLMAP model")
    if len({file[0].suffix for file in (chosen.cameras, chosen.images)}) > 1:
        notes.append(f"{chosen.cameras[0].name} and {chosen.images[0].name} are read together")
    return chosen, notes


def describe_larger_model(root: Path, num_views: int, files: CaptureFiles) -> list[str]:
    """Describe the model beside another format that has more images than that has views: one note, or none."""
    models = [find_model_files(folder) for folder in find_models(root)]
    counts = _count_images(models, files)
    most = max(counts, default=0)
    if most <= num_views:
        return []
    place = models[counts.index(most)].folder
    return [f"{place} is not read, a COLMAP model with {most} images: pass that folder to read it"]


def _count_images(models: Sequence[ModelFiles], files: CaptureFiles) -> list[int]:
    """Count the images of each model; 0 where it has none or is broken."""
    tables = [model.images[0] if model.images else None for model in models]
    files.fetch([table for table in tables if table is not None], headers=True)
    files.fetch([table for table in tables if table is not None and table.suffix == ".txt"])
    counts = [0] * len(models)
    for index, table in enumerate(tables):
        if table is not None:
            with suppress(ValueError):
                counts[index] = count_images(table, files.size(table))
    return counts


def refuse_different_twins(found: ModelFiles, cameras: Mapping[int, Lens], images: Mapping[int, PosedImage]) -> None:
    """Check that the text files beside binary ones say the same. ValueError with the first difference if not."""
    remedy = "delete the file that is out of date"
    if len(found.images) > 1:
        difference = _compare_images(images, read_images(found.images[1]))
        if difference:
            raise ValueError(f"{found.images[0]}: {found.images[1].name} beside it differs: {difference}; {remedy}")
    if len(found.cameras) > 1:
        difference = _compare_cameras(cameras, read_cameras(found.cameras[1]))
        if difference:
            raise ValueError(f"{found.cameras[0]}: {found.cameras[1].name} beside it differs: {difference}; {remedy}")


def _compare_images(images: Mapping[int, PosedImage], others: Mapping[int, PosedImage]) -> str | None:
    if len(images) != len(others):
        return f"{len(images)} images against {len(others)}"
    other_named = {image.name: image for image in others.values()}
    for image in images.values():
        other = other_named.get(image.name)
        if other is None:
            return f"no image {image.name}"
        sign = 1 if image.quaternion @ other.quaternion >= 0 else -1
        size = max(1e-9, float(np.abs(image.translation).max()))
        is_turned = np.abs(image.quaternion - sign * other.quaternion).max() > MAX_ROUNDING
        if is_turned or np.abs(image.translation - other.translation).max() > MAX_ROUNDING * size:
            return f"another pose of {image.name}"
    return None


def _compare_cameras(cameras: Mapping[int, Lens], others: Mapping[int, Lens]) -> str | None:
    if cameras.keys() != others.keys():
        return f"{len(cameras)} cameras against {len(others)}, or other numbers"
    for number, lens in cameras.items():
        other = others[number]
        same_kind = (lens.model, lens.width_px, lens.height_px) == (other.model, other.width_px, other.height_px)
        if not same_kind or not np.allclose(lens.params, other.params, rtol=MAX_ROUNDING, atol=1e-6):
            return f"another camera {number}"
    return None
