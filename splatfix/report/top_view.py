"""The cameras from above, as inline SVG."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup
from numpy import ndarray

from splatfix.evaluation.view_cameras import ViewCamera, ViewCameras
from splatfix.report.svg import band_mark, mark, polyline, wrap
from splatfix.report.wording import format_number
from splatfix.shapes import Float

WIDTH, HEIGHT, MARGIN = 460.0, 330.0, 26.0
WEDGE_PX = 26.0


def camera_plan(cameras: ViewCameras) -> Markup | None:
    """Training cameras, test cameras by band and repair views, seen along the direction in which they spread least.

    For a walk around an object or through a room that is from above. None with fewer than two cameras.
    """
    entries = [(role, camera) for role in ("repair", "test", "train") for camera in getattr(cameras, role)]
    if len(entries) < 2:
        return None
    centers, headings, ups = (
        np.array([getattr(camera, name) for _, camera in entries]) for name in ("centre", "axis", "up")
    )
    right, up = _directions(centers, headings, ups)
    flat = np.stack([centers @ right, centers @ up], axis=1)
    low, high = flat.min(axis=0), flat.max(axis=0)
    size = np.maximum(high - low, 1e-9)
    scale = min((WIDTH - 2 * MARGIN) / size[0], (HEIGHT - 2 * MARGIN) / size[1])
    height = min(HEIGHT, max(150.0, size[1] * scale + 2 * MARGIN))
    middle = (low + high) / 2
    parts = []
    for (role, entry), point, axis in zip(entries, flat, headings, strict=True):
        x = WIDTH / 2 + (point[0] - middle[0]) * scale
        y = height / 2 - (point[1] - middle[1]) * scale
        parts.append(_camera(role, entry, x, y, np.array([axis @ right, -(axis @ up)])))
    counts = {role: sum(r == role for r, _ in entries) for role in ("train", "test", "repair")}
    text = f"Plan of the cameras: {counts['train']} training, {counts['test']} test, {counts['repair']} repair views"
    return wrap(parts, text, WIDTH, height)


def _camera(role: str, camera: ViewCamera, x: float, y: float, axis: Float[ndarray, "2"]) -> str:
    wedge = ""
    if role == "train" and np.linalg.norm(axis) > 0.25:  # seen head-on it has no direction to show
        half = np.arctan(0.5 * camera.width_px / camera.focal_px)
        heading = np.arctan2(axis[1], axis[0])
        length = WEDGE_PX * float(np.linalg.norm(axis))
        ends = [(x + length * np.cos(heading + s * half), y + length * np.sin(heading + s * half)) for s in (-1, 1)]
        wedge = polyline("wedge", [(x, y), *ends])
    if role == "test":
        title = f"test {camera.name} ({camera.band}, distance {format_number(camera.distance, 2)})"
        return band_mark(camera.band, x, y, title)
    if role == "repair":
        return mark("circle", "mark repair", x, y, 2.6, f"repair view {camera.name}, round {camera.round}")
    return wedge + mark("circle", "mark train", x, y, 4.5, f"training {camera.name}")


def _directions(
    centers: Float[ndarray, "N 3"], axes: Float[ndarray, "N 3"], ups: Float[ndarray, "M 3"]
) -> tuple[Float[ndarray, "3"], Float[ndarray, "3"]]:
    """Right and up of the drawing, in world coordinates."""
    image_up = ups.mean(axis=0) if len(ups) else np.array([0.0, 0.0, 1.0])
    forward = axes.mean(axis=0)
    spread, directions = np.linalg.svd(centers - centers.mean(axis=0), full_matrices=True)[1:]
    flat = len(spread) > 2 and spread[2] < 0.6 * spread[1]
    normal = directions[2] if flat else image_up
    normal = normal / max(np.linalg.norm(normal), 1e-12)
    if normal @ image_up < -1e-6 or (abs(normal @ image_up) < 0.3 and normal @ forward > 0):
        normal = -normal  # towards the reader: up where that tells, else against the view
    # Away from the reader's feet is where most cameras look; seen head-on, it is the image's up.
    for candidate in (forward, image_up, directions[0]):
        up = candidate - (candidate @ normal) * normal
        length = float(np.linalg.norm(up))
        if length > max(0.1, 0.3 * float(np.linalg.norm(candidate))):
            break
    up = up / max(length, 1e-12)
    right = np.cross(up, normal)
    return right, up
