"""nerfstudio and instant-ngp: ``transforms.json`` with frames, intrinsics and camera-to-world matrices (OpenGL axes).

Poses and ``ply_file_path`` are in the same world, to which ``applied_transform`` has already been applied, so that
field is ignored. A view is named by its file path below the deepest common folder of all frames: ``images/0001.jpg``
becomes ``0001.jpg``, but ``left/1.png`` and ``right/1.png`` keep their folders.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from splatfix.captures.capture import Capture, View
from splatfix.captures.capture_files import LOCAL, CaptureFiles
from splatfix.captures.clouds import read_points
from splatfix.captures.finder import ImageFinder, describe_unreadable_twin, with_slashes
from splatfix.captures.frame_files import find_frame_images, name_views
from splatfix.captures.frames import Frame, FramesFile, make_frame_lens, tell_by_center
from splatfix.captures.mask_folder import find_folder_masks
from splatfix.captures.options import DEFAULT_OPTIONS, PhotoOptions
from splatfix.captures.orientation import choose_turn
from splatfix.captures.photos import assemble_capture, describe_missing, open_photo, read_photo_header
from splatfix.captures.poses import AXES_OPENGL, describe_other_axes, pose_from_camera_to_world
from splatfix.captures.records import read_record

EXPECTED_FILES = "transforms.json (nerfstudio, instant-ngp)"


def find(path: Path, _files: CaptureFiles = LOCAL) -> tuple[Path, Path] | None:
    """Find the folder of the capture and its JSON file; None if this is another format."""
    if path.is_dir() and (path / "transforms.json").is_file():
        return path, path / "transforms.json"
    is_split = path.name in ("transforms_train.json", "transforms_val.json", "transforms_test.json")
    if path.is_file() and path.suffix == ".json" and path.name.startswith("transforms") and not is_split:
        return path.parent, path
    return None


def read(
    root: Path,
    file: Path,
    longest_side_px: int | None,
    files: CaptureFiles = LOCAL,
    options: PhotoOptions = DEFAULT_OPTIONS,
) -> Capture:
    """Open the capture. ValueError if the file is broken or has no images."""
    files.fetch([file])
    record = read_record(file, FramesFile)
    names = name_views([frame.file_path for frame in record.all_frames], root)
    views, notes = open_frames(file, record, names, longest_side_px, files, options)
    notes += describe_other_axes([view.camera for view in views])
    points = None
    if record.ply_file_path:
        ply = ImageFinder().find_anywhere(root, record.ply_file_path)
        if ply is not None:
            files.fetch([ply])
            points, point_notes = read_points(ply)
            notes += point_notes
        else:
            notes.append(f"no points: ply_file_path {record.ply_file_path} is missing")
    return assemble_capture(root, file, "transforms", views, points, notes)


def open_frames(
    file: Path,
    record: FramesFile,
    names: list[str],
    longest_side_px: int | None,
    files: CaptureFiles,
    options: PhotoOptions,
) -> tuple[list[View], list[str]]:
    """Open the views of all frames whose image exists; also returns notes on the others.

    Raises:
        ValueError: no frames, none with an image, an invalid pose or lens, an image of another shape, a missing mask.
    """
    frames = record.all_frames
    file_paths = [frame.file_path for frame in frames]
    images, image_notes = find_frame_images(file.parent, file_paths, names, longest_side_px, files)
    masks = _find_masks(file, record, images)
    if not any(masks):
        photos = {name: image for name, image in zip(names, images, strict=True) if image is not None}
        by_name, mask_notes = find_folder_masks(file.parent, photos, options.masks)
        masks = [by_name.get(name) for name in names]
        image_notes = [*image_notes, *mask_notes]
    files.fetch([path for path in (*images, *masks) if path is not None], headers=True)
    views, missing, scales = [], [], []
    first: dict[str, Frame] = {}
    for index, (frame, name, image, mask) in enumerate(zip(frames, names, images, masks, strict=True)):
        if image is None:
            missing.append(frame.file_path)
            continue
        if name in first and frame == first[name]:
            continue
        first.setdefault(name, frame)
        where = f"{file}: frames.{index} ({frame.file_path})"
        pose, scale = pose_from_camera_to_world(frame.transform_matrix, f"{where}: transform_matrix", AXES_OPENGL)
        header = read_photo_header(image, files)
        fits = tell_by_center(record, frame)
        turn = None if fits is None else choose_turn(header, fits, options.orientation)
        size = header.size(upright=turn is not None and turn.is_applied)
        lens = make_frame_lens(record, frame, size, where)
        views.append(
            open_photo(
                *(name, image, lens, pose, longest_side_px, where),
                mask_path=mask,
                mask_marks=record.mask_meaning,
                files=files,
                options=options,
                header=header,
                turn=turn,
            )
        )
        scales.append(scale)
    if not views:
        raise ValueError(
            f"{file}: none of {len(frames)} frames has its image"
            + (f" (the first: {missing[0]})" if missing else "")
            + "; wanted image files at file_path, relative to this file"
            + (describe_unreadable_twin(file.parent / with_slashes(missing[0])) if missing else "")
        )
    notes = describe_missing(missing, len(names)) + image_notes
    num_repeated = len(frames) - len(missing) - len(views)
    if num_repeated:
        notes.append(f"{num_repeated} frames occur again with the same pose: kept once")
    if any(scale != 1 for scale in scales):
        notes.append(f"transform_matrix carries a scale of {np.median(scales):.4g}: taken out of the rotations")
    return views, notes


def _find_masks(file: Path, record: FramesFile, images: Sequence[Path | None]) -> list[Path | None]:
    """Find the mask of each frame that has an image: its own, or that of the file. ValueError if one is missing."""
    finder = ImageFinder()
    masks: list[Path | None] = []
    for index, (frame, image) in enumerate(zip(record.all_frames, images, strict=True)):
        name = frame.mask_path or record.mask_path
        mask = finder.find_anywhere(file.parent, name) if name and image is not None else None
        if name and image is not None and mask is None:
            where = f"frames.{index} ({frame.file_path}): " if frame.mask_path else ""
            raise ValueError(f"{file}: {where}mask_path {name} is missing; wanted the mask image, or no mask_path")
        masks.append(mask)
    return masks
