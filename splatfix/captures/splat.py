"""Reference splats: a 3DGS ``.ply`` whose renders are the photos, at the cameras of ``cameras.json`` or on an orbit.

Each photo is composited over white with its alpha as the mask: the background of a splat is unknown, so pixels that
show it can neither be fitted nor measured. If the splat fills an image, its mask is 1 and has no effect. A threshold
on alpha would treat views of one scene differently, and opening the capture would need renders.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from pydantic import RootModel

from splatfix.cameras import Camera, look_at
from splatfix.captures.capture import Capture, Photo, View
from splatfix.captures.capture_files import LOCAL, CaptureFiles
from splatfix.captures.lenses import compute_pinhole, make_lens
from splatfix.captures.photos import WHITE, assemble_capture
from splatfix.captures.poses import pose_from_camera_to_world
from splatfix.captures.records import Record, read_record
from splatfix.gaussians import SPLAT_FILE, Gaussians, Splat, read_splat
from splatfix.images import resize

EXPECTED_FILES = "a 3DGS .ply, with or without cameras.json (reference splat)"
UP = np.array(
    [0.0, -1.0, 0.0]
)  # as in COLMAP's world, whose y axis is that of its first camera, down in an upright image
NUM_ORBIT, ORBIT_SIZE_PX, ORBIT_VIEW_RAD = 60, 512, np.deg2rad(45)


class SplatCamera(Record):
    """An entry of ``cameras.json`` as 3DGS writes it: camera center, and camera axes as columns (OpenCV)."""

    img_name: str
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


@dataclass(frozen=True, eq=False)
class SplatPhoto:
    """Renders one photo of a reference splat.

    It is rendered at the camera's original size, or at twice the requested size if that is smaller, and resized down as
    a photo is.
    """

    ply: Path
    camera: Camera
    original_size: tuple[int, int]
    files: CaptureFiles = LOCAL  # keeps the copy of a splat on an object store

    @property
    def paths(self) -> list[Path]:
        """The files that are read."""
        return [self.ply]

    def __call__(self) -> Photo:
        """Render the photo. ValueError if the splat can no longer be read."""
        import torch

        from splatfix.rendering import render

        width, height = self.camera.width_px, self.camera.height_px
        size = self.original_size if self.original_size[0] <= 2 * width else (2 * width, 2 * height)
        with torch.no_grad():
            rendering = render(_read_latest(self.ply), [self.camera.resize(*size)])
        rgb = rendering.rgb[0].clamp(0, 1).float().cpu().numpy()
        alpha = rendering.alpha[0].clamp(0, 1).float().cpu().numpy()
        return Photo(resize(rgb, width, height), resize(alpha, width, height))


def _read_latest(ply: Path) -> Splat:
    """Read a splat, cached until its files change; one splat is in memory at a time."""
    files = (ply, ply.parent / SPLAT_FILE)
    return _read_cached(ply, tuple(file.stat().st_mtime_ns if file.is_file() else 0 for file in files))


@lru_cache(maxsize=1)
def _read_cached(ply: Path, mtimes_ns: tuple[int, ...]) -> Splat:  # noqa: ARG001 (part of the cache key)
    return read_splat(ply, background=WHITE)


def find(path: Path, files: CaptureFiles = LOCAL) -> tuple[Path, Path] | None:
    """Find the folder of the capture and its splat; None if this is another format.

    Raises:
        ValueError: several splats in one folder.
    """
    if path.is_file():
        return (_find_root(path), path) if path.suffix.lower() == ".ply" and _is_splat(path, files) else None
    if not path.is_dir():
        return None
    iterations = dict(_find_iterations(path))
    if iterations:
        return path, iterations[max(iterations)]
    splats = [ply for ply in sorted(path.glob("*.ply")) if _is_splat(ply, files)]
    if len(splats) > 1:
        names = ", ".join(ply.name for ply in splats)
        raise ValueError(f"{path}: several splats ({names}); wanted one: pass the .ply itself")
    if not splats and (path / "cameras.json").is_file():
        return path, path / "point_cloud.ply"
    return (path, splats[0]) if splats else None


def _find_iterations(root: Path) -> Iterator[tuple[int, Path]]:
    """Find the splats in a training output of 3DGS, with their iterations."""
    for ply in root.glob("point_cloud/iteration_*/point_cloud.ply"):
        number = ply.parent.name.removeprefix("iteration_")
        if number.isdigit():
            yield int(number), ply


def _is_splat(path: Path, files: CaptureFiles) -> bool:
    """Whether the header of a PLY file declares spherical-harmonics colors."""
    files.fetch([path], headers=True)
    with path.open("rb") as file:
        header = file.read(8192).split(b"end_header")[0]
    return header.startswith(b"ply") and b" f_dc_0" in header


def _find_root(ply: Path) -> Path:
    """Find the training output of a ``point_cloud/iteration_N/point_cloud.ply``; for other files, their folder."""
    if ply.parent.name.startswith("iteration_"):
        output = ply.resolve().parents[2]
        if (output / "cameras.json").is_file():
            return output
    return ply.parent


def read(root: Path, ply: Path, longest_side_px: int | None, files: CaptureFiles = LOCAL) -> Capture:
    """Open the splat as a capture. ValueError if it or its cameras are broken."""
    cameras_files = (root / "cameras.json", ply.parent / "cameras.json")
    files.fetch([ply, ply.parent / SPLAT_FILE, *cameras_files])
    gaussians = _read_latest(ply).gaussians
    if len(gaussians) == 0:
        raise ValueError(f"{ply}: no Gaussians; wanted at least one")
    camera_file = next((file for file in cameras_files if file.is_file()), None)
    notes = []
    if camera_file is None:
        cameras = place_on_orbit(gaussians)
        notes.append(f"no cameras.json: {len(cameras)} cameras placed on an orbit, up is -y")
    else:
        cameras = _read_cameras(camera_file)
    views = []
    for camera in cameras:
        small = camera.with_longest_side(longest_side_px)
        views.append(View(small, SplatPhoto(ply, small, (camera.width_px, camera.height_px), files)))
    capture = assemble_capture(root, camera_file or ply, "splat", views, None, notes)
    name = capture.name if camera_file or ply.stem in ("point_cloud", "splat") else ply.stem
    return replace(capture, name=name, background=WHITE, splat=ply)


def _read_cameras(file: Path) -> list[Camera]:
    cameras = []
    for index, entry in enumerate(read_record(file, SplatCameras).root):
        where = f"{file}: {index} ({entry.img_name})"
        shape = [len(entry.position), *(len(row) for row in entry.rotation)]
        if shape != [3, 3, 3, 3]:
            raise ValueError(f"{where}: position and rotation with rows of {shape} numbers; wanted 3 and 3x3")
        c2w = np.concatenate([np.array(entry.rotation), np.array(entry.position)[:, None]], axis=1)
        pose, _ = pose_from_camera_to_world(c2w, f"{where}: [rotation | position]")
        cx = entry.width / 2 if entry.cx is None else entry.cx
        cy = entry.height / 2 if entry.cy is None else entry.cy
        lens = make_lens("PINHOLE", entry.width, entry.height, (entry.fx, entry.fy, cx, cy), where)
        cameras.append(Camera(entry.img_name, lens.width_px, lens.height_px, compute_pinhole(lens).intrinsics, pose))
    return cameras


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
        pose = look_at(center, middle, UP)
        cameras.append(Camera(f"orbit_{index:02d}", ORBIT_SIZE_PX, ORBIT_SIZE_PX, intrinsics, pose))
    return cameras


def _weighted_quantile(values: np.ndarray, weights: np.ndarray, share: float) -> float:
    order = np.argsort(values)
    cumulative = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(cumulative, share * cumulative[-1])])
