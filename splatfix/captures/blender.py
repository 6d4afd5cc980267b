"""NeRF-synthetic: ``transforms_train.json``, ``transforms_val.json`` and ``transforms_test.json`` with RGBA images.

The views of all three files form one capture. Views keep the names from the files (``train/r_0``), which say the
original split.
"""

from __future__ import annotations

import os
from pathlib import Path

from splatfix.cameras import measure_baseline
from splatfix.captures.capture import Capture, View
from splatfix.captures.capture_files import LOCAL, CaptureFiles
from splatfix.captures.frames import FramesFile
from splatfix.captures.options import DEFAULT_OPTIONS, PhotoOptions
from splatfix.captures.photos import assemble_capture, have_same_pose
from splatfix.captures.records import read_record
from splatfix.captures.transforms import open_frames

EXPECTED_FILES = "transforms_train.json (NeRF-synthetic)"
SPLITS = ("transforms_train.json", "transforms_val.json", "transforms_test.json")


def find(path: Path, _files: CaptureFiles = LOCAL) -> tuple[Path, Path] | None:
    """Find the folder of the capture and its first split file; None if this is another format."""
    if path.is_file() and path.name in SPLITS:
        return path.parent, path
    present = [path / name for name in SPLITS if (path / name).is_file()]
    return (path, present[0]) if present else None


def read(
    root: Path,
    file: Path,
    longest_side_px: int | None,
    files: CaptureFiles = LOCAL,
    options: PhotoOptions = DEFAULT_OPTIONS,
) -> Capture:
    """Open the views of all splits. ValueError if a file is broken or none of its images exists."""
    views: dict[str, View] = {}
    notes: list[str] = []
    num_repeated = 0
    splits = [root / name for name in SPLITS if (root / name).is_file()]
    files.fetch(splits)
    for split in splits:
        record = read_record(split, FramesFile)
        names = [os.path.normpath(frame.file_path.replace("\\", "/")) for frame in record.all_frames]
        split_views, split_notes = open_frames(split, record, names, longest_side_px, files, options)
        notes += [f"{split.name}: {note}" for note in split_notes]
        if len({view.name for view in split_views}) < len(split_views):
            assemble_capture(root, split, "blender", split_views, None, ())  # raises if their poses differ
        size = measure_baseline([view.camera for view in split_views])
        for view in split_views:
            if view.name not in views:
                views[view.name] = view
                continue
            if not have_same_pose(views[view.name].camera, view.camera, size):
                raise ValueError(f"{split}: {view.name} has another pose than in an earlier split; wanted one pose")
            num_repeated += 1
    if num_repeated:
        notes.append(f"{num_repeated} frames occur in several splits: kept once")
    return assemble_capture(root, file, "blender", views.values(), None, notes)
