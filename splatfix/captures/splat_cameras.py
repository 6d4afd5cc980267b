"""Cameras of reference splats: those of ``cameras.json``, of a run of splatfix, or on an orbit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydantic import RootModel

from splatfix.cameras import Camera, look_at
from splatfix.captures.lenses import compute_pinhole, describe_impossible, make_lens
from splatfix.captures.poses import pose_from_camera_to_world
from splatfix.captures.records import Record, parse_record, read_json
from splatfix.gaussians import Gaussians

UP = np.array(
    [0.0, -1.0, 0.0]
)  # as in COLMAP's world, whose y axis is that of its first camera, down in an upright image
NUM_ORBIT, ORBIT_SIZE_PX, ORBIT_VIEW_RAD = 60, 512, np.deg2rad(45)


class SplatCamera(Record):
    """An entry of ``cameras.json`` as 3DGS writes it: camera center, and camera axes as columns (OpenCV)."""

    img_name: str | int
    width: float
    height: float
    position: list[float]
    rotation: list[list[float]]
    fx: float
    fy: float
    cx: float | None = None
    cy: float | None = None


class SplatCameras(RootModel[list[SplatCamera]]):
    """The content of ``cameras.json``."""


class RunCamera(Record):
    """A camera of a run of splatfix, in its ``views.json``."""

    name: str
    centre: tuple[float, float, float]
    axis: tuple[float, float, float]
    up: tuple[float, float, float]
    focal_px: float
    width_px: int
    height_px: int


class RunCameras(Record):
    """The cameras of ``views.json`` that have photos; version 0.1 called the file ``cameras.json``."""

    train: tuple[RunCamera, ...] = ()
    test: tuple[RunCamera, ...] = ()


def read_cameras(file: Path) -> tuple[list[Camera], list[str]]:
    """Read the cameras of ``cameras.json`` or ``views.json``; also returns notes.

    Raises:
        ValueError: a field is missing or invalid, or the file has no cameras.
    """
    tree = read_json(file)
    if isinstance(tree, dict):
        return _read_run_cameras(file, parse_record(file, tree, RunCameras)), []
    cameras = []
    for index, entry in enumerate(parse_record(file, tree, SplatCameras).root):
        where = f"{file}: {index} ({entry.img_name})"
        shape = [len(entry.position), *(len(row) for row in entry.rotation)]
        if shape != [3, 3, 3, 3]:
            raise ValueError(f"{where}: position and rotation with rows of {shape} numbers; wanted 3 and 3x3")
        c2w = np.concatenate([np.array(entry.rotation), np.array(entry.position)[:, None]], axis=1)
        pose, _ = pose_from_camera_to_world(c2w, f"{where}: [rotation | position]")
        cx = entry.width / 2 if entry.cx is None else entry.cx
        cy = entry.height / 2 if entry.cy is None else entry.cy
        lens = make_lens("PINHOLE", entry.width, entry.height, (entry.fx, entry.fy, cx, cy), where)
        if (impossible := describe_impossible(lens)) is not None:
            raise ValueError(f"{where}: {impossible}")
        cameras.append(
            Camera(str(entry.img_name), lens.width_px, lens.height_px, compute_pinhole(lens).intrinsics, pose)
        )
    return _number_repeated_names(file, cameras)


def _read_run_cameras(file: Path, record: RunCameras) -> list[Camera]:
    """Make the cameras of a run; ``views.json`` does not have the principal point, so it is the middle of the image."""
    cameras = []
    for entry in (*record.train, *record.test):
        where = f"{file}: {entry.name}"
        forward, down = np.array(entry.axis), -np.array(entry.up)
        c2w = np.stack([np.cross(down, forward), down, forward, np.array(entry.centre)], axis=1)
        pose, _ = pose_from_camera_to_world(c2w, f"{where}: axis, up and centre")
        middle = (entry.width_px / 2, entry.height_px / 2)
        lens = make_lens("SIMPLE_PINHOLE", entry.width_px, entry.height_px, (entry.focal_px, *middle), where)
        cameras.append(Camera(entry.name, lens.width_px, lens.height_px, compute_pinhole(lens).intrinsics, pose))
    return cameras


def _number_repeated_names(file: Path, cameras: Sequence[Camera]) -> tuple[list[Camera], list[str]]:
    """Number the cameras whose names occur several times: photos of several folders, or with dots in their names."""
    counts = Counter(camera.name for camera in cameras)
    repeated = [name for name, count in counts.items() if count > 1]
    if not repeated:
        return list(cameras), []
    digits = len(str(len(cameras) - 1))
    names = set(counts)
    numbered = []
    for index, camera in enumerate(cameras):
        name = camera.name
        if counts[name] > 1:
            name = f"{name}_{index:0{digits}d}"
            while name in names:
                name += "_"
            names.add(name)
        numbered.append(replace(camera, name=name))
    note = f"{file.name}: {len(repeated)} names occur several times (the first: {repeated[0]}): numbered by position"
    return numbered, [note]


def place_on_orbit(gaussians: Gaussians) -> list[Camera]:
    """Place cameras around a splat that has none, at three elevations, looking at its middle.

    Middle and radius are percentiles of the means, weighted by opacity, so that floaters have no influence.
    """
    means, weights = gaussians.means.double().numpy(), gaussians.opacities.double().numpy()
    middle = np.array([_weighted_quantile(means[:, axis], weights, 0.5) for axis in range(3)])
    radius = max(_weighted_quantile(np.linalg.norm(means - middle, axis=1), weights, 0.9), 1e-6)
    distance = 1.15 * radius / np.sin(ORBIT_VIEW_RAD / 2)
    focal = ORBIT_SIZE_PX / 2 / np.tan(ORBIT_VIEW_RAD / 2)
    intrinsics = np.array([[focal, 0, ORBIT_SIZE_PX / 2], [0, focal, ORBIT_SIZE_PX / 2], [0, 0, 1]])
    cameras = []
    for index in range(NUM_ORBIT):
        azimuth, elevation = 2 * np.pi * index / NUM_ORBIT, np.deg2rad((10, 25, 40)[index % 3])
        side = np.array([np.cos(azimuth), 0, np.sin(azimuth)])
        center = middle + distance * (np.cos(elevation) * side + np.sin(elevation) * UP)
        if not np.linalg.norm(middle - center) > 0:
            raise ValueError(f"Gaussians near {middle.tolist()}, {radius:.3g} apart; wanted them nearer to the origin")
        pose = look_at(center, middle, UP)
        cameras.append(Camera(f"orbit_{index:02d}", ORBIT_SIZE_PX, ORBIT_SIZE_PX, intrinsics, pose))
    return cameras


def _weighted_quantile(values: np.ndarray, weights: np.ndarray, share: float) -> float:
    order = np.argsort(values)
    cumulative = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(cumulative, share * cumulative[-1])])
