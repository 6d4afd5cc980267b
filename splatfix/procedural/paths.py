"""Camera paths: around an object, along a front, inside a room, above land; with the lenses of phones."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy import ndarray

from splatfix.cameras import Camera, look_at
from splatfix.procedural.stage import Path, Stage
from splatfix.shapes import Float

PHOTO_PX = 1024  # longest side
ASPECTS = (4 / 3, 4 / 3, 3 / 2, 16 / 9, 3 / 4)
MIN_PHOTOS, MAX_PHOTOS = 28, 40
UP = np.array([0.0, 0, 1])


def draw_lens(rng: np.random.Generator, path: Path) -> tuple[int, int, Float[ndarray, "3 3"]]:
    """Draw size and intrinsics: 24 to 45 mm (in terms of 35 mm film), centered to within 1 %."""
    aspect = float(rng.choice(ASPECTS if path in ("orbit", "inside") else ASPECTS[:4]))
    width, height = (PHOTO_PX, round(PHOTO_PX / aspect)) if aspect >= 1 else (round(PHOTO_PX * aspect), PHOTO_PX)
    wide = rng.uniform(22, 28) if path == "inside" else rng.uniform(24, 45)
    focal = wide / 36 * PHOTO_PX
    center = np.array([width, height]) * (0.5 + 0.005 * np.clip(rng.normal(size=2), -2, 2))
    return width, height, np.array([[focal, 0, center[0]], [0, focal, center[1]], [0, 0, 1.0]])


Pose = tuple[ndarray, ndarray]  # center and target


def _orbit(stage: Stage, num: int, distance: float) -> Iterator[Pose]:
    rng = stage.rng
    arc = 2 * np.pi if rng.random() < 0.6 else rng.uniform(1.6, 4.0)
    start, rings = rng.uniform(0, 2 * np.pi), int(rng.integers(1, 4))
    low = rng.uniform(0.08, 0.3)
    rises = np.linspace(low, low + rng.uniform(0.2, 0.6), rings)
    radius = distance * rng.uniform(0.9, 1.25)
    for k in range(num):
        turn = start + arc * (k / num) + 0.06 * rng.normal()
        rise = rises[k % rings] + 0.04 * rng.normal()
        direction = np.array([np.cos(rise) * np.cos(turn), np.cos(rise) * np.sin(turn), np.sin(rise)])
        target = stage.focus + 0.12 * stage.reach * rng.normal(size=3)
        yield stage.focus + radius * (1 + 0.08 * rng.normal()) * direction, target


def _facing(stage: Stage, num: int, distance: float) -> Iterator[Pose]:
    rng = stage.rng
    radius, wide, tall = distance * rng.uniform(0.7, 1.0), rng.uniform(0.5, 1.0), rng.uniform(0.2, 0.45)
    columns = int(np.ceil(np.sqrt(2 * num)))
    rows = int(np.ceil(num / columns))
    for k in range(num):
        x = wide * (2 * (k % columns) / (columns - 1) - 1) + 0.04 * rng.normal()
        z = tall * (2 * (k // columns) / max(rows - 1, 1) - 1) + 0.04 * rng.normal()
        center = stage.focus + np.array([stage.reach[0] * x, radius * (1 + 0.06 * rng.normal()), 0.35 + z])
        aside = np.array([0.4 * stage.reach[0] * x, 0, 0.3 * z])
        yield center, stage.focus + aside + 0.08 * rng.normal(size=3)


def _inside(stage: Stage, num: int, _distance: float) -> Iterator[Pose]:
    rng, (x, y, _) = stage.rng, stage.reach
    share, start, across = rng.uniform(0.2, 0.45), rng.uniform(0, 2 * np.pi), rng.random() < 0.35
    height = rng.uniform(1.25, 1.65)
    for k in range(num):
        turn = start + 2 * np.pi * k / num + 0.05 * rng.normal()
        center = np.array([share * x * np.cos(turn), share * y * np.sin(turn), height + 0.12 * rng.normal()])
        ahead = np.array([np.cos(turn), np.sin(turn), rng.uniform(-0.35, -0.05)])
        if across:
            ahead[:2] = -ahead[:2]
        ahead[:2] += 0.15 * rng.normal(size=2)
        yield center, center + 2 * ahead


def _aerial(stage: Stage, num: int, distance: float) -> Iterator[Pose]:
    rng = stage.rng
    radius, slant, turn = distance * rng.uniform(0.7, 1.2), rng.uniform(0.1, 1.0), rng.uniform(0, 2 * np.pi)
    columns = int(np.ceil(np.sqrt(num)))
    back = radius * np.array([np.sin(slant) * np.cos(turn), np.sin(slant) * np.sin(turn), np.cos(slant)])
    for k in range(num):
        spot = 2 * np.array([k % columns, k // columns]) / (columns - 1) - 1
        target = stage.focus + np.array([*(stage.reach[:2] * (0.8 * spot + 0.05 * rng.normal(size=2))), 0])
        yield target + back * (1 + 0.05 * rng.normal()), target + 0.6 * rng.normal(size=3)


PATHS: dict[Path, Callable[[Stage, int, float], Iterator[Pose]]] = {
    "orbit": _orbit, "facing": _facing, "inside": _inside, "aerial": _aerial,
}  # fmt: skip


def place_cameras(stage: Stage) -> list[Camera]:
    """Place cameras along the path of a stage, most of which see what it has in focus.

    They are held nearly upright, as a hand does. Whether something is in the way is not looked at.
    """
    rng = stage.rng
    width, height, intrinsics = draw_lens(rng, stage.path)
    num = int(rng.integers(MIN_PHOTOS, MAX_PHOTOS + 1))
    half_angle = np.arctan(0.5 * min(width, height) / intrinsics[0, 0])
    distance = float(np.max(stage.reach) / np.sin(half_angle))
    cameras = []
    for k, (center, target) in enumerate(PATHS[stage.path](stage, num, distance)):
        roll = 0.03 * rng.normal()
        ahead = target - center
        up = UP + roll * np.cross(ahead / np.linalg.norm(ahead), UP)
        if stage.path == "aerial":
            up = np.array([0.0, 1.0, 0.2]) + roll
        cameras.append(Camera(f"photo_{k:03d}", width, height, intrinsics, look_at(center, target, up)))
    return cameras
