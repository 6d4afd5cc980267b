"""Camera paths of nerfstudio's viewer: the frames of a video as cameras."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from splatfix.cameras import Camera
from splatfix.captures.poses import AXES_OPENGL, pose_from_camera_to_world
from splatfix.captures.records import Record, parse_record, read_json

MAX_FOV_DEG = 179.0


class PathFrame(Record):
    """A frame: its camera-to-world matrix (OpenGL axes, row by row), and the vertical angle of view in degrees."""

    camera_to_world: list[float]
    fov: float


class PathFile(Record):
    """The content of a camera path file."""

    camera_type: str = "perspective"
    render_height: float
    render_width: float
    fps: float = 24.0
    camera_path: list[PathFrame]


@dataclass(frozen=True)
class CameraPath:
    """Cameras of the frames of a video, in order, and their rate in frames per second."""

    cameras: tuple[Camera, ...]
    fps: float


def read_camera_path(file: Path) -> CameraPath:
    """Read a camera path as nerfstudio's viewer exports it.

    Its world is that of the splat which the viewer showed: nerfstudio moves and scales captures (see
    ``dataparser_transforms.json``), so the path fits splats that nerfstudio exported.

    Raises:
        ValueError: another file, no frames, another camera type than perspective, or a value out of range.
    """
    tree = read_json(file)
    if not isinstance(tree, dict) or "camera_path" not in tree:
        raise ValueError(
            f"{file}: no camera_path; wanted a camera path that nerfstudio's viewer has exported, or a capture"
        )
    record = parse_record(file, tree, PathFile)
    if record.camera_type != "perspective":
        raise ValueError(f"{file}: camera_type = {record.camera_type!r}; wanted perspective")
    width, height = round(record.render_width), round(record.render_height)
    if min(width, height) < 1:
        raise ValueError(f"{file}: render_width x render_height = {width}x{height}; wanted at least 1 pixel each")
    if not 0 < record.fps <= 1000:
        raise ValueError(f"{file}: fps = {record.fps:g}; wanted a rate up to 1000 frames per second")
    if not record.camera_path:
        raise ValueError(f"{file}: camera_path is empty; wanted at least one frame")
    cameras = tuple(
        _make_camera(frame, index, width, height, f"{file}: camera_path.{index}")
        for index, frame in enumerate(record.camera_path)
    )
    return CameraPath(cameras, record.fps)


def _make_camera(frame: PathFrame, index: int, width_px: int, height_px: int, where: str) -> Camera:
    if len(frame.camera_to_world) != 16:
        raise ValueError(f"{where}.camera_to_world: {len(frame.camera_to_world)} numbers; wanted 16, row by row")
    if not 0 < frame.fov < MAX_FOV_DEG:
        raise ValueError(f"{where}.fov = {frame.fov:g}; wanted degrees between 0 and {MAX_FOV_DEG:g}")
    matrix = np.array(frame.camera_to_world, np.float64).reshape(4, 4)
    pose, _ = pose_from_camera_to_world(matrix, f"{where}.camera_to_world", AXES_OPENGL)
    focal_px = height_px / 2 / np.tan(np.deg2rad(frame.fov) / 2)
    intrinsics = np.array([[focal_px, 0, width_px / 2], [0, focal_px, height_px / 2], [0, 0, 1]])
    return Camera(f"{index:05d}", width_px, height_px, intrinsics, pose)
