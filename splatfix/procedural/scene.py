"""A procedural scene: its seed determines the layout, the light, the cameras and each pixel of the photos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy import ndarray

from splatfix.cameras import Camera
from splatfix.procedural.casting.photos import cast_depth, cast_photo, measure_light, prepare_scene
from splatfix.procedural.casting.shading import CastScene
from splatfix.procedural.layouts import LAYOUTS
from splatfix.procedural.paths import place_cameras
from splatfix.procedural.stage import Stage
from splatfix.shapes import Float

VERSION = 1  # of the scenes: a change of anything that changes photos raises it, since it is part of the random seed
MIN_CAMERAS = 20
TRIES = 6  # of a layout, until enough cameras have a free view
CHECK_PX = 24  # longest side of the depth that a camera is judged by
MIN_CLEARANCE = 0.25  # of the median depth: what is nearer may fill `MAX_NEAR` of an image
MAX_NEAR, MAX_SKY, MAX_BACK = 0.12, 0.55, 0.02
MIDDLE_GRAY = 0.18  # that the mean light is exposed to


@dataclass(frozen=True, eq=False)
class Scene:
    """A procedural scene, ready to be photographed.

    Attributes:
        seed: that determines it.
        kind: name of its layout.
        cameras: of its photos, at full size.
        cast: what the kernels need.
        exposure: factors of the linear light of each channel: exposure and white balance, the same in all photos.
    """

    seed: int
    kind: str
    cameras: tuple[Camera, ...]
    cast: CastScene
    exposure: Float[ndarray, "3"]

    def photograph(self, camera: Camera) -> Float[ndarray, "H W 3"]:
        """Cast the photo of a camera, of this scene or any other: float32 sRGB in [0, 1]."""
        return cast_photo(self.cast, camera, self.exposure)

    def measure_depth(self, camera: Camera) -> Float[ndarray, "H W"]:
        """Cast the depth at pixel centers: z in the camera, in units of the world; infinity at the sky."""
        return cast_depth(self.cast, camera)[0]


@lru_cache(maxsize=3)  # that of a task, the next one, and one more
def build_scene(seed: int) -> Scene:
    """Build the scene of a seed; the most recent ones are kept."""
    for attempt in range(TRIES):
        rng = np.random.default_rng([VERSION, seed, attempt])
        kind = choose_layout(rng)
        stage = Stage(rng)
        LAYOUTS[kind][0](stage)
        cast = prepare_scene(
            stage.mesh(),
            np.stack([material.pack() for material in stage.materials]),
            np.array(stage.lights),
            stage.sky,
            stage.box,
        )
        cameras = [camera for camera in place_cameras(stage) if _has_free_view(cast, camera)]
        if len(cameras) >= MIN_CAMERAS:
            break
    assert len(cameras) >= 2, f"seed {seed}: no camera has a free view"
    return Scene(seed, kind, tuple(cameras), cast, _expose(cast, cameras, rng))


def choose_layout(rng: np.random.Generator) -> str:
    """Choose a kind of scene by its share, and return its name."""
    return str(rng.choice(list(LAYOUTS), p=[share for _, share in LAYOUTS.values()]))


def _has_free_view(cast: CastScene, camera: Camera) -> bool:
    """Whether a camera is outside of things, not close to anything, and sees more than sky."""
    small = camera.with_longest_side(CHECK_PX)
    depth, is_back = cast_depth(cast, small)
    seen = depth[np.isfinite(depth)]
    if is_back.mean() > MAX_BACK or len(seen) < (1 - MAX_SKY) * depth.size:
        return False
    return bool((seen < MIN_CLEARANCE * np.median(seen)).mean() < MAX_NEAR)


def _expose(cast: CastScene, cameras: Sequence[Camera], rng: np.random.Generator) -> Float[ndarray, "3"]:
    """Choose exposure and white balance as a camera would: middle gray, and half way to a gray mean."""
    some = cameras[:: max(1, len(cameras) // 6)]
    light = np.concatenate([measure_light(cast, camera.with_longest_side(CHECK_PX)).reshape(-1, 3) for camera in some])
    luminance = light @ np.array([0.2126, 0.7152, 0.0722])
    mean = float(np.exp(np.mean(np.log(luminance + 1e-3))))
    gain = MIDDLE_GRAY * float(rng.uniform(0.8, 1.25)) / mean
    gain = min(gain, 6.0 / max(float(np.quantile(luminance, 0.97)), 1e-3))
    balance = (light.mean() / np.maximum(light.mean(axis=0), 1e-3)) ** 0.5
    return gain * balance * np.exp(0.02 * rng.normal(size=3))
