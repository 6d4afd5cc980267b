"""nerfstudio and instant-ngp: ``transforms.json`` with frames, intrinsics and camera-to-world matrices (OpenGL axes).

Poses and ``ply_file_path`` are in the same world, to which ``applied_transform`` has already been applied, so that
field is ignored. A view is named by its file path below the deepest common folder of all frames: ``images/0001.jpg``
becomes ``0001.jpg``, but ``left/1.png`` and ``right/1.png`` keep their folders.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import numpy as np

from splatfix.captures.capture import Capture, View
from splatfix.captures.capture_files import LOCAL, CaptureFiles
from splatfix.captures.clouds import read_points
from splatfix.captures.frames import Frame, FramesFile, make_frame_lens, resolve_path
from splatfix.captures.photos import assemble_capture, describe_missing, find_image, open_photo, read_photo_header
from splatfix.captures.poses import AXES_OPENGL, pose_from_camera_to_world
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


def read(root: Path, file: Path, longest_side_px: int | None, files: CaptureFiles = LOCAL) -> Capture:
    """Open the capture. ValueError if the file is broken or has no images."""
    files.fetch([file])
    record = read_record(file, FramesFile)
    names = name_views([frame.file_path for frame in record.frames])
    views, notes = open_frames(file, record, names, longest_side_px, files)
    points = None
    if record.ply_file_path is not None:
        ply = resolve_path(root, record.ply_file_path)
        if ply.is_file():
            files.fetch([ply])
            points, point_notes = read_points(ply)
            notes += point_notes
        else:
            notes.append(f"no points: ply_file_path {record.ply_file_path} is missing")
    return assemble_capture(root, file, "transforms", views, points, notes)


def name_views(file_paths: list[str]) -> list[str]:
    """Name views by their file paths, relative to the deepest common folder."""
    paths = [PurePosixPath(os.path.normpath(text.replace("\\", "/"))) for text in file_paths]
    if not paths:
        return []
    common = PurePosixPath(os.path.commonpath([path.parent for path in paths]) or ".")
    return [str(path.relative_to(common)) for path in paths]


def open_frames(
    file: Path, record: FramesFile, names: list[str], longest_side_px: int | None, files: CaptureFiles
) -> tuple[list[View], list[str]]:
    """Open the views of all frames whose image exists; also returns notes on the others.

    Raises:
        ValueError: no frames, none with an image, an invalid pose or lens, an image of another shape, a missing mask.
    """
    views, missing, scales = [], [], []
    images = [find_image(resolve_path(file.parent, frame.file_path)) for frame in record.frames]
    masks = [find_image(resolve_path(file.parent, frame.mask_path)) for frame in record.frames if frame.mask_path]
    files.fetch([path for path in (*images, *masks) if path is not None], headers=True)
    for index, (frame, name, image) in enumerate(zip(record.frames, names, images, strict=True)):
        if image is None:
            missing.append(frame.file_path)
            continue
        where = f"{file}: frames.{index} ({frame.file_path})"
        pose, scale = pose_from_camera_to_world(frame.transform_matrix, f"{where}: transform_matrix", AXES_OPENGL)
        header = read_photo_header(image, files)
        lens = make_frame_lens(record, frame, (header.width_px, header.height_px), where)
        mask = _find_mask(file, frame, where)
        view = open_photo(
            *(name, image, lens, pose, longest_side_px, where),
            mask_path=mask,
            mask_marks=record.mask_meaning,
            files=files,
        )
        views.append(view)
        scales.append(scale)
    if not views:
        raise ValueError(
            f"{file}: none of {len(record.frames)} frames has its image"
            + (f" (the first: {missing[0]})" if missing else "")
            + "; wanted image files at file_path, relative to this file"
        )
    notes = describe_missing(missing, len(names))
    if any(scale != 1 for scale in scales):
        notes.append(f"transform_matrix carries a scale of {np.median(scales):.4g}: taken out of the rotations")
    return views, notes


def _find_mask(file: Path, frame: Frame, where: str) -> Path | None:
    if frame.mask_path is None:
        return None
    mask = find_image(resolve_path(file.parent, frame.mask_path))
    if mask is None:
        raise ValueError(f"{where}: mask_path {frame.mask_path} is missing; wanted the mask image, or no mask_path")
    return mask
