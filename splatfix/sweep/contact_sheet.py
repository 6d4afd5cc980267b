"""A sheet of pictures that shows at a glance what a trial did to a case."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from splatfix.evaluation.layout import image_path
from splatfix.evaluation.results import read_results
from splatfix.images import read_image, write_image
from splatfix.report.selection import representative_views

KINDS = ("photo", "before", "control", "after")
NUM_VIEWS = 3
HEADER_PX, GAP_PX = 16, 2


def write_contact_sheet(run: Path, path: Path) -> None:
    """Write photo, before, control and after of the views with the median, largest and smallest gain of a run."""
    rows: list[np.ndarray] = []
    for view, _ in representative_views(read_results(run).views)[:NUM_VIEWS]:
        pictures = [read_image(image_path(run, view.name, kind)) for kind in KINDS]
        if not rows:
            titles = [_title(kind, picture.shape[1]) for kind, picture in zip(KINDS, pictures, strict=True)]
            rows.append(np.concatenate(titles, axis=1))
        rows.append(np.concatenate(pictures, axis=1))
    if rows:
        width = max(row.shape[1] for row in rows)
        padded = [np.pad(row, ((0, GAP_PX), (0, width - row.shape[1]), (0, 0)), constant_values=1.0) for row in rows]
        write_image(path, np.concatenate(padded))


def _title(text: str, width_px: int) -> np.ndarray:
    """A white strip with a word on it, float32 ``[HEADER_PX, W, 3]``."""
    strip = Image.new("RGB", (width_px, HEADER_PX), "white")
    ImageDraw.Draw(strip).text((3, 2), text, fill="black")
    return np.asarray(strip, np.float32) / 255
