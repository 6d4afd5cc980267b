"""Settings of pose estimation."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from splatfix.config import require

CameraModel = Literal["SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "OPENCV_FISHEYE"]


@dataclass(frozen=True, kw_only=True)
class PoseConfig:
    """How the cameras of photos are estimated.

    Attributes:
        poser: what estimates them: colmap, or the name of an installed plugin.
        frames: number of frames to pick from a video.
        size_px: longest side at which keypoints are extracted, in pixels.
        max_keypoints: largest number of keypoints per photo.
        camera_model: lens model of COLMAP; OPENCV_FISHEYE for fisheye lenses.
        cameras: auto shares intrinsics between photos of one camera, focal length and size; one shares them between all
            photos of a size; each shares none.
        focal_mm: focal length as if the film were 35 mm, for photos without EXIF; None estimates it from the photos.
        matching: all matches every pair of photos; near matches neighbors by name and pairs that look alike; auto
            takes all for up to 40 photos.
        neighbors: with near: number of following photos by name, and of photos that look alike, to match each with.
        mapping: incremental, global, or auto: global where incremental mapping leaves photos out.
        threads: number of threads; None takes all cores. Results are equal only for equal numbers.
        seed: seed of all random choices.
    """

    poser: str = "colmap"
    frames: int = 60
    size_px: int = 1600
    max_keypoints: int = 8192
    camera_model: CameraModel = "SIMPLE_RADIAL"
    cameras: Literal["auto", "one", "each"] = "auto"
    focal_mm: float | None = None
    matching: Literal["auto", "all", "near"] = "auto"
    neighbors: int = 12
    mapping: Literal["auto", "incremental", "global"] = "auto"
    threads: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        _check_source("", self.frames, self.focal_mm)
        require(self.size_px >= 64, "size_px", self.size_px, "at least 64 pixels")
        require(self.max_keypoints >= 100, "max_keypoints", self.max_keypoints, "at least 100 keypoints")
        require(self.neighbors >= 1, "neighbors", self.neighbors, "at least 1 photo")
        require(self.threads is None or self.threads >= 1, "threads", self.threads, "at least 1 thread, or null")

    @property
    def num_threads(self) -> int:
        """The number of threads to use: the setting, or the number of cores that this process may use."""
        return self.threads or len(os.sched_getaffinity(0))


@dataclass(frozen=True, kw_only=True)
class FirstPosesConfig:
    """How a fit estimates cameras first, where its photos have none. `PoseConfig` has more settings.

    Attributes:
        from_: all: poses and points come from all photos, so that they know of the test photos; chosen: from the photos
            to fit from alone, and the others are located afterwards.
        frames: number of frames to pick from a video.
        focal_mm: focal length as if the film were 35 mm, for photos without EXIF; None estimates it from the photos.
    """

    from_: Annotated[Literal["all", "chosen"], tyro.conf.arg(name="from")] = "all"
    frames: int = PoseConfig.frames
    focal_mm: float | None = None

    def __post_init__(self) -> None:
        _check_source("pose.", self.frames, self.focal_mm)

    def to_pose_config(self) -> PoseConfig:
        """The settings of the estimate."""
        return PoseConfig(frames=self.frames, focal_mm=self.focal_mm)


def _check_source(prefix: str, frames: int, focal_mm: float | None) -> None:
    require(frames >= 3, f"{prefix}frames", frames, "at least 3 frames")
    wanted = "5 to 2000 mm, or null"
    require(focal_mm is None or 5 <= focal_mm <= 2000, f"{prefix}focal_mm", focal_mm, wanted)
