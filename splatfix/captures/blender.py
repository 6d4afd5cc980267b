"""NeRF-synthetic: ``transforms_train.json``, ``transforms_val.json`` and ``transforms_test.json`` with RGBA images.

The views of all splits make one capture; who wants the original split finds it in the names, which are the file's own
(``train/r_0``).
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from splatfix.captures.capture import Capture, View
from splatfix.captures.frames import FramesFile
from splatfix.captures.photos import assemble
from splatfix.captures.records import read_record
from splatfix.captures.transforms import frame_views

WANTS = "transforms_train.json (NeRF-synthetic)"
SPLITS = ("transforms_train.json", "transforms_val.json", "transforms_test.json")


def find(path: Path) -> tuple[Path, Path] | None:
    """The capture's folder and its first split file; None where this is another format."""
    if path.is_file() and path.name in SPLITS:
        return path.parent, path
    present = [path / name for name in SPLITS if (path / name).is_file()]
    return (path, present[0]) if present else None


def read(root: Path, file: Path, longest_side_px: int | None) -> Capture:
    """Open all splits. ValueError where a file is broken or none of its images exists."""
    views: dict[str, View] = {}
    notes: list[str] = []
    num_repeated = 0
    for split in [root / name for name in SPLITS if (root / name).is_file()]:
        record = read_record(split, FramesFile)
        names = [os.path.normpath(frame.file_path.replace("\\", "/")) for frame in record.frames]
        found, said = frame_views(split, record, names, longest_side_px)
        notes += [f"{split.name}: {note}" for note in said]
        if len({view.name for view in found}) < len(found):
            assemble(root, split, "blender", found, None, ())  # raises, naming the repeated frame
        for view in found:
            if view.name not in views:
                views[view.name] = view
                continue
            same = np.allclose(views[view.name].camera.camera_from_world, view.camera.camera_from_world, atol=1e-6)
            if not same:
                raise ValueError(f"{split}: {view.name} has another pose than in an earlier split; wanted one pose")
            num_repeated += 1
    if num_repeated:
        notes.append(f"{num_repeated} frames occur in several splits: kept once")
    return assemble(root, file, "blender", views.values(), None, notes)
