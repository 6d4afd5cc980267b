"""COLMAP: a sparse model (binary or text) and its images; also the Mip-NeRF 360 and Tanks and Temples layouts.

Views are named as in the model. Of several models the one with most images is read. Of the folders ``images``,
``images_2``, ``images_4``, ... the one with the smallest images that are large enough is read, and the intrinsics are
scaled to these files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from splatfix.cameras import Camera, rotation_from_quaternion
from splatfix.captures.capture import Capture, Points
from splatfix.captures.capture_files import LOCAL, CaptureFiles
from splatfix.captures.code_pages import restore_names
from splatfix.captures.colmap_folders import (
    ModelFiles,
    choose_model,
    find_models,
    refuse_different_twins,
)
from splatfix.captures.colmap_model import PosedImage, read_cameras, read_images, read_points3d
from splatfix.captures.finder import ImageFinder, describe_unreadable_twin, with_slashes
from splatfix.captures.lenses import Lens
from splatfix.captures.mask_folder import find_folder_masks
from splatfix.captures.options import DEFAULT_OPTIONS, PhotoOptions
from splatfix.captures.photos import (
    assemble_capture,
    choose_image_folder,
    describe_missing,
    describe_spellings,
    find_image_folders,
    open_photo,
    read_photo_header,
    refuse_masks,
)

EXPECTED_FILES = "sparse/0/{cameras,images,points3D}.{bin,txt} (COLMAP)"
NUM_CHECKED, MIN_SEEN = 300, 0.5  # points that are looked for in an image that saw them, and the share that is in it
OTHER_IMAGE_FOLDERS = ("input", "rgb", "colmap/images", ".")


def find(path: Path, _files: CaptureFiles = LOCAL) -> tuple[Path, list[Path]] | None:
    """Find the folder of the capture and those of its models; None if this is another format."""
    models = find_models(path) if path.is_dir() else []
    if not models:
        return None
    is_inside = any(path in (model, model.parent) for model in models)
    return (_find_root(path) if is_inside else path), models


def _find_root(model: Path) -> Path:
    """Find the folder with the images of a model whose folder was opened as the capture."""
    candidates = [model, *model.resolve().parents[:3]]
    return next((f for f in candidates if find_image_folders(f) or (f / "input").is_dir()), model)


def read(
    root: Path,
    models: list[Path],
    longest_side_px: int | None,
    files: CaptureFiles = LOCAL,
    options: PhotoOptions = DEFAULT_OPTIONS,
) -> Capture:
    """Open the capture. ValueError if the model is broken or none of its images exists."""
    model, model_notes = choose_model(models, files)
    files.fetch(model.all)
    cameras_file, images_file = model.cameras[0], model.images[0]
    cameras, images = read_cameras(cameras_file), read_images(images_file)
    refuse_different_twins(model, cameras, images)
    if not images:
        raise ValueError(f"{images_file}: no images; wanted at least one registered image")
    names = [image.name for image in images.values()]
    folder, photos, restored = _choose_images(root, model.folder, names, longest_side_px, files)
    images = {key: replace(image, name=_restore(image.name, restored)) for key, image in images.items()}
    if not photos:
        first = next(iter(images.values())).name
        raise ValueError(
            f"{root}: none of the {len(images)} images of {images_file} was found (the first: {first}); wanted them in "
            f"{root / 'images'}{describe_unreadable_twin(root / 'images' / with_slashes(first))}"
        )
    masks, mask_notes = find_folder_masks(root, photos, options.masks)
    files.fetch([*photos.values(), *masks.values()], headers=True)
    if folder.name == "input":
        _refuse_distorted(folder, photos, cameras, images, files)
    views = []
    for image_id, image in images.items():
        where = f"{images_file}: image {image_id} ({image.name})"
        if image.camera_id not in cameras:
            raise ValueError(f"{where}: camera {image.camera_id} is not in {cameras_file}")
        if image.name in photos:
            pose = _make_pose(image, where)
            lens_where = f"{cameras_file}: camera {image.camera_id}"
            photo, lens, mask = photos[image.name], cameras[image.camera_id], masks.get(image.name)
            views.append(
                open_photo(
                    *(image.name, photo, lens, pose, longest_side_px, lens_where),
                    mask_path=mask,
                    files=files,
                    options=options,
                )
            )
    missing = sorted(image.name for image in images.values() if image.name not in photos)
    notes = describe_missing(missing, len(images))
    if folder.name.lower() != "images":
        notes.append(f"images are read from {folder.relative_to(root)}/")
    refuse_masks(photos, files)
    notes += describe_spellings(photos)
    points, point_notes = _read_points(model, images)
    point_notes += _describe_unseen_points(points, [view.camera for view in views])
    notes += [*mask_notes, *model_notes, *point_notes]
    return assemble_capture(root, images_file, "colmap", views, points, notes)


def _choose_images(
    root: Path, model: Path, names: list[str], longest_side_px: int | None, files: CaptureFiles
) -> tuple[Path, dict[str, Path], dict[str, str]]:
    """Choose the folder to read from and its file for each name: the one with most files, and among equals by size.

    Also returns the names that are not UTF-8 with their decoded names (`restore_names`).

    Raises:
        ValueError: a name is ambiguous in the only folders with images.
    """
    finder = ImageFinder()
    others = [root / name for name in OTHER_IMAGE_FOLDERS if (root / name).is_dir()]
    main = [root / "input"] if "distorted" in model.parts[-3:] else find_image_folders(root)
    for folders in (main, others):
        restored = restore_names(names, partial(_exists, finder, folders))
        found: dict[Path, dict[str, Path]] = {}
        ambiguous = []
        for folder in folders:
            try:
                found[folder] = _find_images(finder, folder, names, restored)
            except ValueError as error:
                ambiguous.append(error)
        most = max((len(photos) for photos in found.values()), default=0)
        if most == 0 and ambiguous:
            raise ambiguous[0]
        if most > 0:
            complete = [(folder, next(iter(each.values()))) for folder, each in found.items() if len(each) == most]
            folder = choose_image_folder(complete, longest_side_px, files)
            return folder, found[folder], restored
    return root, {}, restored


def _exists(finder: ImageFinder, folders: list[Path], name: str) -> bool:
    return any(finder.find(folder, name) is not None for folder in folders)


def _find_images(finder: ImageFinder, folder: Path, names: list[str], restored: Mapping[str, str]) -> dict[str, Path]:
    """Find the files of the names of a model, by their restored names."""
    photos = finder.find_all(folder, [restored.get(name, name) for name in names])
    for raw, name in restored.items():  # the file may have the bytes of the model as its name
        if name not in photos and (path := finder.find(folder, raw)) is not None:
            photos[name] = path
    return {with_slashes(name): path for name, path in photos.items()}


def _restore(name: str, restored: Mapping[str, str]) -> str:
    return with_slashes(restored.get(name, name))


def _refuse_distorted(
    folder: Path,
    photos: Mapping[str, Path],
    cameras: Mapping[int, Lens],
    images: Mapping[int, PosedImage],
    files: CaptureFiles,
) -> None:
    """Check that the photos in ``input`` are those of the model, and not those that it was undistorted from."""
    image = next(image for image in images.values() if image.name in photos)
    lens = cameras.get(image.camera_id)
    header = read_photo_header(photos[image.name], files)
    if (
        lens is not None
        and lens.is_pinhole
        and (lens.width_px, lens.height_px)
        not in (
            header.size(),
            header.size(upright=True),
        )
    ):
        raise ValueError(
            f"{folder}: photos of {header.width_px}x{header.height_px}, but the model is of undistorted images of "
            f"{lens.width_px}x{lens.height_px}, and images/ has none; wanted those: run convert.py again"
        )


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


def _read_points(model: ModelFiles, images: Mapping[int, PosedImage]) -> tuple[Points | None, list[str]]:
    """Read the points with the names of the images that saw them, and notes on what is missing or was dropped.

    Raises:
        ValueError: the file is broken, or no point was seen by an image of the model.
    """
    if not model.points:
        return None, [f"no points: {model.folder / 'points3D.bin'} (or .txt) is missing"]
    file = model.points[0]
    points = read_points3d(file)
    notes = [f"{points.num_broken} points are dropped: not finite, or impossibly far away"] if points.num_broken else []
    seen = frozenset().union(*points.tracks)
    removed = seen - images.keys()
    if removed and removed == seen:
        raise ValueError(
            f"{file}: its points were seen by other images than the model has (by image {min(removed)}); wanted the "
            "points of this model, or no such file"
        )
    if removed:
        notes.append(f"points were also seen by {len(removed)} images that the model does not have: left out")
        points = replace(points, tracks=[track - removed for track in points.tracks])
    names = {image_id: image.name for image_id, image in images.items()}
    tracks = tuple(frozenset(map(names.__getitem__, track)) for track in points.tracks)
    return Points(points.positions, points.colors, tracks), notes


def _describe_unseen_points(points: Points | None, cameras: Sequence[Camera]) -> list[str]:
    """Describe points that are not in the images that saw them, as with other poses or lenses: one note, or none.

    Of each of some points, one image is looked at. A distorted image shows a little more than its pinhole camera, so
    points up to a quarter of the image outside count as seen.
    """
    if points is None or points.tracks is None:
        return []
    names = {camera.name for camera in cameras}
    seen_by: dict[str, list[int]] = {}
    for index in range(0, len(points), max(1, len(points) // NUM_CHECKED)):
        if (name := min(points.tracks[index] & names, default=None)) is not None:
            seen_by.setdefault(name, []).append(index)
    num, num_seen = 0, 0
    for camera in cameras:
        indices = seen_by.get(camera.name, [])
        if indices:
            pixels, depths = camera.project(points.positions[indices])
            offsets = np.abs(pixels / [camera.width_px, camera.height_px] - 0.5)
            num_seen += int(((depths > 0) & (offsets < 0.75).all(axis=1)).sum())
            num += len(indices)
    if num_seen >= MIN_SEEN * num:
        return []
    return [
        f"only {num_seen} of {num} points lie in the images that saw them: poses or lenses are not those of the points "
        "(quaternions in another order? wanted w, x, y, z, from world to camera)"
    ]
