"""Render a splat along a path of cameras, into a video or a folder of images."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from splatfix.cameras import Camera
from splatfix.captures import View, is_remote, open_capture
from splatfix.captures.camera_path import CameraPath, read_camera_path
from splatfix.evaluation.layout import view_stem
from splatfix.evaluation.video import write_video
from splatfix.gaussians import RenderMode, Splat, read_recorded_world, read_splat
from splatfix.images import to_bytes, write_image
from splatfix.process import choose_device, progress
from splatfix.rendering import render
from splatfix.similarity import Similarity
from splatfix.splats.start import find_misfit

log = logging.getLogger(__name__)

CAPTURE_FPS = 10.0  # of a video of a capture's cameras


def render_path(
    splat_path: Path,
    path: str,
    out: Path,
    *,
    longest_side_px: int | None = None,
    mode: RenderMode | None = None,
    device: str = "auto",
) -> int:
    """Render a splat at the cameras of a path.

    Args:
        splat_path: a 3DGS ``.ply``.
        path: a camera path of nerfstudio's viewer (JSON), or a capture, whose cameras are then used.
        out: an ``.mp4``, or a folder for PNG files, named by number or by photo.
        longest_side_px: longest side of the images; None keeps that of the path.
        mode: how the splat is drawn; None takes its ``splat.json``, else classic.
        device: auto, cpu, cuda or cuda:N.

    Returns:
        The number of frames.

    Raises:
        ValueError: the splat or the path cannot be used, or the frames of a video have several sizes.
    """
    camera_path, file_from_world, views = _open_path(path, splat_path, longest_side_px)
    splat = read_splat(splat_path, mode=mode, file_from_world=file_from_world).to(choose_device(device))
    if (misfit := find_misfit(splat, views) if views else None) is not None:
        log.warning("%s: %s", splat_path, misfit)
    cameras = camera_path.cameras
    if out.suffix.lower() not in ("", ".mp4"):
        raise ValueError(f"{out}: wanted a video that ends in .mp4, or a folder without a suffix")
    if out.suffix.lower() == ".mp4":
        _check_one_size(cameras, path)
        write_video(out, _render_frames(splat, cameras), fps=camera_path.fps, there_and_back=False)
    else:
        _write_images(splat, cameras, out)
    return len(cameras)


def _open_path(
    path: str, splat_path: Path, longest_side_px: int | None
) -> tuple[CameraPath, Similarity, Sequence[View]]:
    """Read the cameras, the map from their world to the coordinates of the splat's file, and the photos at them."""
    if is_remote(path) or not path.endswith(".json") or Path(path).name.startswith("transforms"):
        capture = open_capture(path, longest_side_px=longest_side_px)
        return CameraPath(capture.cameras, CAPTURE_FPS), capture.file_from_world, capture.views
    camera_path, file_from_world = read_camera_path(Path(path)), read_recorded_world(splat_path)
    cameras = tuple(
        camera.change_world(file_from_world).with_longest_side(longest_side_px) for camera in camera_path.cameras
    )
    return CameraPath(cameras, camera_path.fps), file_from_world, ()


def _check_one_size(cameras: Sequence[Camera], path: str) -> None:
    sizes = sorted({(camera.width_px, camera.height_px) for camera in cameras})
    if len(sizes) > 1:
        listed = ", ".join(f"{width}x{height}" for width, height in sizes[:4])
        raise ValueError(f"{path}: frames of several sizes ({listed}); wanted one for a video: write a folder instead")


def _render_frames(splat: Splat, cameras: Sequence[Camera]) -> Iterator[np.ndarray]:
    """Render each camera; yields uint8 ``[H, W, 3]``."""
    with progress(total=len(cameras), description="frames") as bar:
        for camera in cameras:
            with torch.no_grad():
                rgb = render(splat, [camera]).rgb[0].clamp(0, 1)
            yield to_bytes(rgb.cpu().numpy())
            bar.update()


def _write_images(splat: Splat, cameras: Sequence[Camera], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for camera, frame in zip(cameras, _render_frames(splat, cameras), strict=True):
        stem = camera.name if re.fullmatch(r"[0-9A-Za-z_-]+", camera.name) else view_stem(camera.name)
        write_image(folder / f"{stem}.png", frame.astype(np.float32) / 255)
