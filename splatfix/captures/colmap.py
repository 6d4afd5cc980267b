"""COLMAP: a sparse model (binary or text) and its images; also the Mip-NeRF 360 and Tanks and Temples layouts.

Views are named as in the model. Of ``images``, ``images_2``, ``images_4``, ... the smallest folder that still holds the
wanted size is read; intrinsics follow the files.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from splatfix.cameras import rotation_from_quaternion
from splatfix.captures.capture import Capture, Points
from splatfix.captures.colmap_model import PosedImage, read_cameras, read_images, read_points3d
from splatfix.captures.photos import (
    assemble,
    find_image,
    image_folders,
    missing_note,
    photo_view,
    smallest_sufficient,
)

WANTS = "sparse/0/{cameras,images,points3D}.{bin,txt} (COLMAP)"
MODELS = ("sparse/0", "sparse", "colmap/sparse/0", "colmap/sparse", "colmap_sparse/0", "colmap_text", ".")
OTHER_IMAGE_FOLDERS = ("input", "rgb", "colmap/images", ".")


def find(path: Path) -> tuple[Path, Path] | None:
    """The capture's folder and its model's folder; None where this is another format."""
    if not path.is_dir():
        return None
    for name in MODELS:
        model = path / name
        if _model_file(model, "cameras") or _model_file(model, "images"):
            return (_root_above(path) if name == "." else path), model
    return None


def _model_file(model: Path, stem: str) -> Path | None:
    """A file of the model; binary before text, as in COLMAP."""
    return next((file for file in (model / f"{stem}.bin", model / f"{stem}.txt") if file.is_file()), None)


def _root_above(model: Path) -> Path:
    """The folder with the images of a model that was itself given as the capture."""
    above = [model, *model.resolve().parents[:3]]
    return next((folder for folder in above if image_folders(folder)), model)


def read(root: Path, model: Path, longest_side_px: int | None) -> Capture:
    """Open the capture. ValueError where the model is broken or none of its images exists."""
    cameras_file, images_file = _model_file(model, "cameras"), _model_file(model, "images")
    if cameras_file is None or images_file is None:
        absent = "cameras" if cameras_file is None else "images"
        raise ValueError(f"{model}: {absent}.bin (or .txt) is missing; wanted a whole COLMAP model")
    cameras, images = read_cameras(cameras_file), read_images(images_file)
    if not images:
        raise ValueError(f"{images_file}: no images; wanted at least one registered image")
    folder, files = _image_files(root, [image.name for image in images.values()], longest_side_px)
    if not files:
        raise ValueError(
            f"{root}: none of the {len(images)} images of {images_file} was found (the first: "
            f"{next(iter(images.values())).name}); wanted them in {root / 'images'}"
        )
    views = []
    for image_id, image in images.items():
        where = f"{images_file}: image {image_id} ({image.name})"
        if image.camera_id not in cameras:
            raise ValueError(f"{where}: camera {image.camera_id} is not in {cameras_file}")
        if image.name in files:
            pose = _pose(image, where)
            lens_where = f"{cameras_file}: camera {image.camera_id}"
            views.append(
                photo_view(image.name, files[image.name], cameras[image.camera_id], pose, longest_side_px, lens_where)
            )
    missing = sorted(image.name for image in images.values() if image.name not in files)
    notes = missing_note(missing, len(images))
    if folder.name != "images":
        notes.append(f"images are read from {folder.relative_to(root)}/")
    points, said = _points(model, images)
    others = sorted(p.name for p in model.parent.iterdir() if p.is_dir() and p != model) if model.name == "0" else []
    if others:
        notes.append(f"{model.parent} also holds the models {', '.join(others)}: not read")
    return assemble(root, images_file, "colmap", views, points, [*notes, *said])


def _image_files(root: Path, names: list[str], longest_side_px: int | None) -> tuple[Path, dict[str, Path]]:
    """The folder to read from and its file for each name; of folders with equally many files, by size."""
    folders = image_folders(root) or [root / name for name in OTHER_IMAGE_FOLDERS if (root / name).is_dir()]
    found: dict[Path, dict[str, Path]] = {}
    for folder in folders:
        files = {name: find_image(folder / name) for name in names}
        found[folder] = {name: file for name, file in files.items() if file is not None}
    most = max((len(files) for files in found.values()), default=0)
    if most == 0:
        return root, {}
    fullest = [(folder, next(iter(files.values()))) for folder, files in found.items() if len(files) == most]
    folder = smallest_sufficient(fullest, longest_side_px)
    return folder, found[folder]


def _pose(image: PosedImage, where: str) -> np.ndarray:
    values = np.concatenate([image.quaternion, image.translation])
    norm = np.linalg.norm(image.quaternion)
    if not np.isfinite(values).all() or abs(norm - 1) > 0.1:
        raise ValueError(
            f"{where}: quaternion {image.quaternion.tolist()}, translation {image.translation.tolist()}; "
            "wanted a unit quaternion wxyz and finite numbers"
        )
    pose = np.eye(4)
    pose[:3, :3] = rotation_from_quaternion(image.quaternion)
    pose[:3, 3] = image.translation
    return pose


def _points(model: Path, images: dict[int, PosedImage]) -> tuple[Points | None, list[str]]:
    """Points with the names of the images that saw them; a note where the model has none."""
    file = _model_file(model, "points3D")
    if file is None:
        return None, [f"no points: {model / 'points3D.bin'} (or .txt) is missing"]
    read = read_points3d(file)
    unknown = frozenset().union(*read.tracks) - images.keys() if read.tracks else frozenset()
    if unknown:
        raise ValueError(f"{file}: a point was seen by image {min(unknown)}, which the model does not have")
    tracks = tuple(frozenset(images[image_id].name for image_id in track) for track in read.tracks)
    return Points(read.positions, read.colors, tracks), []
