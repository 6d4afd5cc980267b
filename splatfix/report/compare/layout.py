"""Where a comparison keeps the pictures of its frames: what writer and page share."""

from __future__ import annotations

from pathlib import Path

from splatfix.evaluation.layout import view_stem

FRAMES = "frames"  # in the folder of an entry
FRAME_KINDS = ("photo", "render", "repaired", "error_render", "error_repaired", "mask")
GOOD_ERROR = 0.05  # a render is good where its mean absolute color error, over a small window, is below this


def frame_path(run: Path, view: str, kind: str) -> Path:
    """Where a picture of the frame of a test view is."""
    assert kind in FRAME_KINDS, kind
    return Path(run) / FRAMES / f"{view_stem(view)}.{kind}.png"
