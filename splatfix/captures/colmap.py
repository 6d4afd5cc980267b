"""COLMAP: a sparse model (binary or text) and its images; also the Mip-NeRF 360 and Tanks and Temples layouts.

Views are named as in the model. Of the folders ``images``, ``images_2``, ``images_4``, ... the one with the smallest
images that are large enough is read, and the intrinsics are scaled to these files.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from splatfix.cameras import rotation_from_quaternion
from splatfix.captures.capture import Capture, Points
from splatfix.captures.capture_files import LOCAL, CaptureFiles
from splatfix.captures.colmap_model import PosedImage, read_cameras, read_images, read_points3d
from splatfix.captures.photos import (
    assemble_capture,
    choose_image_folder,
    describe_missing,
    find_image,
    find_image_folders,
    open_photo,
)

EXPECTED_FILES = "sparse/0/{cameras,images,points3D}.{bin,txt} (COLMAP)"
MODELS = ("sparse/0", "sparse", "colmap/sparse/0", "colmap/sparse", "colmap_sparse/0", "colmap_text", ".")
OTHER_IMAGE_FOLDERS = ("input", "rgb", "colmap/images", ".")


def find(path: Path, _files: CaptureFiles = LOCAL) -> tuple[Path, Path] | None:
    """Find the folder of the capture and that of its model; None if this is another format."""
    if not path.is_dir():
        return None
    for name in MODELS:
        model = path / name
        if _find_model_file(model, "cameras") or _find_model_file(model, "images"):
            return (_find_root(path) if name == "." else path), model
    return None


def _find_model_file(model: Path, stem: str) -> Path | None:
    """Find a file of the model; binary before text, as in COLMAP."""
    return next((file for file in (model / f"{stem}.bin", model / f"{stem}.txt") if file.is_file()), None)


def _find_root(model: Path) -> Path:
    """Find the folder with the images of a model whose folder was opened as the capture."""
    candidates = [model, *model.resolve().parents[:3]]
    return next((folder for folder in candidates if find_image_folders(folder)), model)


def read(root: Path, model: Path, longest_side_px: int | None, files: CaptureFiles = LOCAL) -> Capture:
    """Open the capture. ValueError if the model is broken or none of its images exists."""
    cameras_file, images_file = _find_model_file(model, "cameras"), _find_model_file(model, "images")
    if cameras_file is None or images_file is None:
        missing_file = "cameras" if cameras_file is None else "images"
        raise ValueError(f"{model}: {missing_file}.bin (or .txt) is missing; wanted a whole COLMAP model")
    files.fetch([file for stem in ("cameras", "images", "points3D") if (file := _find_model_file(model, stem))])
    cameras, images = read_cameras(cameras_file), read_images(images_file)
    if not images:
        raise ValueError(f"{images_file}: no images; wanted at least one registered image")
    names = [image.name for image in images.values()]
    folder, photos = _choose_images(root, names, longest_side_px, files)
    if not photos:
        raise ValueError(
            f"{root}: none of the {len(images)} images of {images_file} was found (the first: "
            f"{next(iter(images.values())).name}); wanted them in {root / 'images'}"
        )
    files.fetch(photos.values(), headers=True)
    views = []
    for image_id, image in images.items():
        where = f"{images_file}: image {image_id} ({image.name})"
        if image.camera_id not in cameras:
            raise ValueError(f"{where}: camera {image.camera_id} is not in {cameras_file}")
        if image.name in photos:
            pose = _make_pose(image, where)
            lens_where = f"{cameras_file}: camera {image.camera_id}"
            photo, lens = photos[image.name], cameras[image.camera_id]
            views.append(open_photo(image.name, photo, lens, pose, longest_side_px, lens_where, files=files))
    missing = sorted(image.name for image in images.values() if image.name not in photos)
    notes = describe_missing(missing, len(images))
    if folder.name != "images":
        notes.append(f"images are read from {folder.relative_to(root)}/")
    points, point_notes = _read_points(model, images)
    others = sorted(p.name for p in model.parent.iterdir() if p.is_dir() and p != model) if model.name == "0" else []
    if others:
        notes.append(f"{model.parent} also holds the models {', '.join(others)}: not read")
    return assemble_capture(root, images_file, "colmap", views, points, [*notes, *point_notes])


def _choose_images(
    root: Path, names: list[str], longest_side_px: int | None, files: CaptureFiles
) -> tuple[Path, dict[str, Path]]:
    """Choose the folder to read from and its file for each name: the one with most files, and among equals by size."""
    folders = find_image_folders(root) or [root / name for name in OTHER_IMAGE_FOLDERS if (root / name).is_dir()]
    found: dict[Path, dict[str, Path]] = {}
    for folder in folders:
        photos = {name: find_image(folder / name) for name in names}
        found[folder] = {name: photo for name, photo in photos.items() if photo is not None}
    most = max((len(photos) for photos in found.values()), default=0)
    if most == 0:
        return root, {}
    most_complete = [(folder, next(iter(photos.values()))) for folder, photos in found.items() if len(photos) == most]
    folder = choose_image_folder(most_complete, longest_side_px, files)
    return folder, found[folder]


def _make_pose(image: PosedImage, where: str) -> np.ndarray:
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


def _read_points(model: Path, images: dict[int, PosedImage]) -> tuple[Points | None, list[str]]:
    """Read the points with the names of the images that saw them; a note if the model has none."""
    file = _find_model_file(model, "points3D")
    if file is None:
        return None, [f"no points: {model / 'points3D.bin'} (or .txt) is missing"]
    points = read_points3d(file)
    unknown = frozenset().union(*points.tracks) - images.keys() if points.tracks else frozenset()
    if unknown:
        raise ValueError(f"{file}: a point was seen by image {min(unknown)}, which the model does not have")
    tracks = tuple(frozenset(images[image_id].name for image_id in track) for track in points.tracks)
    return Points(points.positions, points.colors, tracks), []
