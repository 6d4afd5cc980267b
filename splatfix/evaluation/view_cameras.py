"""``views.json``: where the training, test and repair views of a run are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from splatfix.cameras import Camera
from splatfix.captures.capture import Capture
from splatfix.evaluation.results import REMEDY, ViewResult
from splatfix.files import read_json, write_json
from splatfix.records import parse_record
from splatfix.views import Band, Split

VIEWS = "views.json"
OLD_NAME = "cameras.json"  # of runs by splatfix 0.1; it is also the name of another file of 3DGS
Vector = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class ViewCamera:
    """The camera of a view, in the coordinates of the capture's files.

    Attributes:
        name: of the view.
        centre: of the camera.
        axis: unit vector in which it looks.
        up: unit vector of the image's up.
        focal_px: focal length.
        width_px: of the image.
        height_px: of the image.
        band: of a test view.
        distance: of a test view from the training cameras.
        round: of a repair view, from 1.
    """

    name: str
    centre: Vector
    axis: Vector
    up: Vector
    focal_px: float
    width_px: int
    height_px: int
    band: Band | None = None
    distance: float | None = None
    round: int | None = None


@dataclass(frozen=True, kw_only=True)
class ViewCameras:
    """The whole of ``views.json``: the cameras by role."""

    train: tuple[ViewCamera, ...] = ()
    test: tuple[ViewCamera, ...] = ()
    repair: tuple[ViewCamera, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The cameras as ``views.json`` holds them, without the fields that a role does not have."""
        return {
            role: [{key: value for key, value in camera.items() if value is not None} for camera in cameras]
            for role, cameras in asdict(self).items()
        }

    @staticmethod
    def from_json(tree: Any, source: str = VIEWS) -> ViewCameras:
        """Read parsed JSON. ValueError in one line where a field is missing or ill-typed."""
        return parse_record(ViewCameras, tree, source=source, remedy=REMEDY)


def locate_views(
    capture: Capture, split: Split, results: Sequence[ViewResult], repair_views: Sequence[tuple[int, Camera]]
) -> ViewCameras:
    """Gather the cameras of a run: ``repair_views`` are (round, camera)."""

    def record(camera: Camera, **role: Any) -> ViewCamera:
        center = capture.file_from_world.apply(camera.center)
        return ViewCamera(
            name=camera.name,
            centre=tuple(center.tolist()),
            axis=tuple(camera.axis.tolist()),
            up=tuple((-camera.rotation[1]).tolist()),
            focal_px=camera.focal_px,
            width_px=camera.width_px,
            height_px=camera.height_px,
            **role,
        )

    return ViewCameras(
        train=tuple(record(capture.view(name).camera) for name in split.train_ids),
        test=tuple(record(capture.view(view.name).camera, band=view.band, distance=view.distance) for view in results),
        repair=tuple(record(camera, round=number) for number, camera in repair_views),
    )


def write_view_cameras(folder: Path, cameras: ViewCameras) -> None:
    """Write ``views.json`` into a run folder."""
    write_json(Path(folder) / VIEWS, cameras.to_json())


def read_view_cameras(folder: Path) -> ViewCameras:
    """Read ``views.json`` of a run folder; no cameras where it does not exist. ValueError where it is broken."""
    path = next((path for name in (VIEWS, OLD_NAME) if (path := Path(folder) / name).is_file()), None)
    return ViewCameras() if path is None else ViewCameras.from_json(read_json(path), str(path))
