"""``pose.html``: the estimated cameras of a capture, how well they fit, and advice for photos that have none."""

from __future__ import annotations

import shlex
from pathlib import Path, PurePath
from typing import Any

from splatfix.captures import Capture, open_capture
from splatfix.evaluation.view_cameras import locate_views
from splatfix.files import write_text
from splatfix.report import pictures
from splatfix.report.html import render_page
from splatfix.report.top_view import camera_plan
from splatfix.report.wording import Headline, format_count, format_number
from splatfix.sfm import POSE_RECORD, PhotoRecord, PoseRecord, read_pose_record
from splatfix.views import Split

PAGE = "pose.html"
MAX_PICTURES = 60
FULL_SHARE, GOOD_SHARE = 1.0, 0.8  # of the photos that have a camera
GOOD_ERROR = 1.5e-3  # reprojection error as a share of the longest side
FEW_PHOTOS = 9
FILM_DIAGONAL_MM = 43.27


def update_pose_page(folder: Path | str) -> Path:
    """Write the page of an estimate into its capture, unless it is newer than the record; returns its path.

    Raises:
        ValueError: the folder has no ``pose.json``, or the capture is broken.
    """
    page = Path(folder) / PAGE
    if not page.is_file() or page.stat().st_mtime_ns < (Path(folder) / POSE_RECORD).stat().st_mtime_ns:
        record = read_pose_record(folder)
        if record is None:
            raise ValueError(f"{folder}: {POSE_RECORD} is missing; wanted a folder that splatfix pose wrote")
        write_text(page, pose_page(record, open_capture(folder)))
    return page


def pose_page(record: PoseRecord, capture: Capture) -> str:
    """The page of an estimate."""
    names = tuple(photo.name for photo in record.registered)
    images = Path(capture.path) / "images"
    context = {
        "title": f"{PurePath(record.source).name}: splatfix pose",
        "capture": PurePath(record.source).name,
        "record": record,
        "headline": pose_headline(record),
        "loop_command": shlex.join(["splatfix", "loop", str(capture.path), "--out", "RUN"]) if names else None,
        "plan": camera_plan(locate_views(capture, Split(names, ()), (), ()), capture.points, noun="photo"),
        "shown": [_card(photo, images) for photo in record.registered[:MAX_PICTURES]],
        "missing": [_card(photo, images) for photo in record.unregistered[:MAX_PICTURES]],
        "lenses": [_lens(camera) for camera in record.cameras],
        "seconds": list(record.seconds.items()),
        "provenance": _provenance(record),
        "located": [name for name in names if name not in record.estimated_from],
    }
    return render_page("pose.html.j2", context)


def pose_headline(record: PoseRecord) -> Headline:
    """The verdict on an estimate."""
    num, total = len(record.registered), len(record.photos)
    share = num / total
    if share == FULL_SHARE:
        sentence, tone = "Every photo has a camera.", "good"
    elif share >= GOOD_SHARE:
        sentence, tone = f"{format_count(total - num, 'photo')} without a camera: the fit will not use them.", "plain"
    else:
        sentence = f"{format_count(total - num, 'photo')} of {total} without a camera: the scene is covered in part."
        tone = "bad"
    details = []
    if record.error_px is not None:
        longest = max((max(camera.width_px, camera.height_px) for camera in record.cameras), default=1)
        fits = "well" if record.error_px <= GOOD_ERROR * longest else "poorly: moved objects, or a wrong lens model?"
        details.append(
            f"{format_count(record.num_points, 'point')}, which the cameras fit {fits} (mean reprojection error "
            f"{format_number(record.error_px, 2)} px)."
        )
    if len(record.estimated_from) <= FEW_PHOTOS:
        details.append(
            f"From {len(record.estimated_from)} photos, poses and focal length are uncertain, also where the error is "
            "small: more photos of the same scene help."
        )
    details += [f"{doubt[:1].upper()}{doubt[1:]}." for doubt in record.doubts]
    tone = "plain" if record.doubts and tone == "good" else tone
    return Headline(sentence, tuple(details), f"{num} of {total}", "photos with a camera", tone)


def _card(photo: PhotoRecord, images: Path) -> dict[str, Any]:
    """A picture of a photo, with its record."""
    return {"photo": photo, "picture": pictures.embed_picture(images / photo.name, pictures.STRIP_SIDE_PX)}


def _lens(camera: Any) -> dict[str, Any]:
    """A row of the table of lenses; the focal length also as if the film were 35 mm."""
    diagonal = (camera.width_px**2 + camera.height_px**2) ** 0.5
    return {"camera": camera, "focal_mm": camera.focal_px / diagonal * FILM_DIAGONAL_MM}


def _provenance(record: PoseRecord) -> list[tuple[str, str]]:
    settings = ", ".join(f"{name} {value}" for name, value in record.settings.items() if value is not None)
    return [
        ("source", record.source),
        ("poser", record.poser),
        ("method", record.method),
        ("settings", settings),
        ("splatfix", record.version),
    ]
