"""``pose.json``: which photos a capture's cameras were estimated from, how, and how well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from splatfix.files import read_json, write_json
from splatfix.records import parse_record

POSE_RECORD = "pose.json"
SCHEMA = 1
REMEDY = "run splatfix pose --fresh again"


@dataclass(frozen=True, kw_only=True)
class PhotoRecord:
    """What became of a photo.

    Attributes:
        name: of the photo in the capture.
        source: file that it was made from; of a frame the video and the time.
        is_registered: whether the capture has a camera for it.
        num_keypoints: keypoints found in it; None if the poser does not say.
        num_points: points of the model that it sees.
        error_px: mean reprojection error of these, in pixels of the photo; None without points.
        sharpness: variance of its Laplacian over that of its brightness, at 640 px.
        advice: why it was not registered, and what to photograph instead; None for a registered photo.
    """

    name: str
    source: str
    is_registered: bool
    num_keypoints: int | None = None
    num_points: int = 0
    error_px: float | None = None
    sharpness: float | None = None
    advice: str | None = None


@dataclass(frozen=True, kw_only=True)
class CameraRecord:
    """An estimated lens: its model and parameters as COLMAP has them, in pixels, and how many photos share it.

    ``known_focal_px`` is the focal length that EXIF or the user gave, before it was refined.
    """

    model: str
    width_px: int
    height_px: int
    params: tuple[float, ...]
    focal_px: float
    known_focal_px: float | None
    num_photos: int


@dataclass(frozen=True, kw_only=True)
class PoseRecord:
    """The whole of ``pose.json``.

    Attributes:
        source: folder of photos, or video, that was posed.
        poser: name of the program.
        method: how it found the cameras.
        estimated_from: photos that intrinsics, poses and points were estimated from; the poses know of these photos.
        photos: all photos, by name.
        cameras: the lenses.
        num_points: points of the model.
        error_px: mean reprojection error of all points, in pixels.
        notes: messages about the photos that were given.
        doubts: what may be wrong with the cameras although their errors are small.
        seconds: by stage.
        settings: the settings.
        version: of splatfix.
    """

    source: str
    poser: str
    method: str
    estimated_from: tuple[str, ...]
    photos: tuple[PhotoRecord, ...]
    cameras: tuple[CameraRecord, ...]
    num_points: int
    error_px: float | None
    version: str
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def registered(self) -> tuple[PhotoRecord, ...]:
        """The photos that have a camera."""
        return tuple(photo for photo in self.photos if photo.is_registered)

    @property
    def unregistered(self) -> tuple[PhotoRecord, ...]:
        """The photos that have none."""
        return tuple(photo for photo in self.photos if not photo.is_registered)


def write_pose_record(folder: Path, record: PoseRecord) -> None:
    """Write ``pose.json`` into the folder of a capture."""
    write_json(Path(folder) / POSE_RECORD, {"schema": SCHEMA, **asdict(record)})


def read_pose_record(folder: Path | str) -> PoseRecord | None:
    """Read ``pose.json`` from the folder of a capture; None if it has none, or a file of another program.

    Raises:
        ValueError: the file is broken.
    """
    path = Path(folder) / POSE_RECORD
    if not path.is_file():
        return None
    tree = read_json(path)
    if not isinstance(tree, dict) or not {"schema", "poser", "estimated_from"} <= tree.keys():
        return None
    return parse_record(PoseRecord, tree, source=str(path), remedy=REMEDY, schema=SCHEMA)


def describe_poses(record: PoseRecord, train_ids: Sequence[str], test_ids: Sequence[str]) -> str:
    """Say which photos the poses of a capture know of, for the report of a fit."""
    known = frozenset(record.estimated_from)
    train, test = len(known & set(train_ids)), len(known & set(test_ids))
    others = len(known) - train - test
    parts = [f"{train} training", f"{test} test", *([f"{others} other"] if others else [])]
    start = f"splatfix pose ({record.poser}, {record.method}) estimated the poses from {len(known)} photos"
    if test or others:
        return f"{start} ({', '.join(parts)}): they know of photos that the fit has not seen"
    located = "; the test photos were located afterwards and changed nothing" if test_ids else ""
    return f"{start}, the training photos alone{located}"
