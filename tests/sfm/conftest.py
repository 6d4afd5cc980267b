"""Posed photos that several tests look at."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from splatfix.cameras import Camera
from splatfix.sfm import PoseConfig, PoseRecord, pose_photos
from tests.sfm.scenery import write_photos

CONFIG = PoseConfig(threads=1, size_px=240, max_keypoints=1200, mapping="incremental")
STRANGER = "stranger.png"  # a photo of something else


@dataclass(frozen=True)
class Posed:
    """Photos, the capture that was made of them, its record, and the true cameras."""

    photos: Path
    capture: Path
    record: PoseRecord
    cameras: list[Camera]


@pytest.fixture(scope="session")
def posed(tmp_path_factory) -> Posed:
    folder = tmp_path_factory.mktemp("pose")
    cameras = write_photos(folder / "my photos", 5)
    noise = np.random.default_rng(1).integers(0, 255, (60, 80, 3)).astype(np.uint8)
    Image.fromarray(noise).resize((240, 180), Image.Resampling.BICUBIC).save(folder / "my photos" / STRANGER)
    record = pose_photos(folder / "my photos", folder / "capture", CONFIG)
    return Posed(folder / "my photos", folder / "capture", record, cameras)
