"""The plan of the cameras, as inline SVG: from above, or at right angles to the plane in which they lie."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup
from numpy import ndarray

from splatfix.captures.capture import Points
from splatfix.evaluation.view_cameras import ViewCamera, ViewCameras
from splatfix.report.svg import band_mark, mark, polyline, wrap
from splatfix.report.wording import format_number
from splatfix.shapes import Float

WIDTH, HEIGHT, MARGIN = 460.0, 330.0, 26.0
WEDGE_PX = 26.0
MAX_POINTS = 4000
POINT_PERCENTILES = 3, 97  # of the points along each axis, which the drawing covers at least
MAX_SPREAD = 2.0  # and at most this far beyond the cameras, in diagonals of their box
COLOR_STEPS = 6  # per channel: points of one color are one path


def camera_plan(cameras: ViewCameras, points: Points | None = None, *, noun: str = "training") -> Markup | None:
    """Training cameras, test cameras by band and repair views, seen along the direction in which they spread least.

    For a walk around an object or through a room that is from above. None with fewer than two cameras. Some of the SfM
    ``points``, if given, are drawn below the cameras, in their colors. ``noun`` is what the first role is called.
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
    cloud = None if points is None or not len(points) else points.positions @ np.stack([right, up], axis=1)
    if cloud is not None:
        room = MAX_SPREAD * max(float(np.linalg.norm(high - low)), 1e-9)
        first, last = np.percentile(cloud, POINT_PERCENTILES, axis=0)
        low, high = np.minimum(low, np.maximum(first, low - room)), np.maximum(high, np.minimum(last, high + room))
    size = np.maximum(high - low, 1e-9)
    scale = min((WIDTH - 2 * MARGIN) / size[0], (HEIGHT - 2 * MARGIN) / size[1])
    height = min(HEIGHT, max(150.0, size[1] * scale + 2 * MARGIN))
    middle, paper, turn = (low + high) / 2, np.array([WIDTH / 2, height / 2]), np.array([scale, -scale])
    parts = []
    if cloud is not None and points is not None:
        parts += _cloud(paper + (cloud - middle) * turn, points.colors, height)
    for (role, entry), (x, y), axis in zip(entries, paper + (flat - middle) * turn, headings, strict=True):
        parts.append(_camera(role, entry, x, y, np.array([axis @ right, -(axis @ up)]), noun))
    counts = {role: sum(r == role for r, _ in entries) for role in ("train", "test", "repair")}
    text = f"Plan of the cameras: {counts['train']} {noun}, {counts['test']} test, {counts['repair']} repair views"
    return wrap(parts, text, WIDTH, height)


def _cloud(places: Float[ndarray, "P 2"], colors: Float[ndarray, "P 3"], height: float) -> list[str]:
    """Dots for the points inside the drawing, evenly thinned out: one path for each color."""
    inside = np.flatnonzero(((places >= 0) & (places <= [WIDTH, height])).all(axis=1))
    inside = inside[:: -(-len(inside) // MAX_POINTS) or 1]
    steps = np.round(colors[inside] * (COLOR_STEPS - 1)).astype(int)
    paths = []
    for color in np.unique(steps, axis=0):
        dots = "".join(f"M{x:.0f} {y:.0f}h0" for x, y in places[inside[(steps == color).all(axis=1)]])
        red, green, blue = (round(255 * value / (COLOR_STEPS - 1)) for value in color)
        paths.append(f'<path class="cloud" stroke="#{red:02x}{green:02x}{blue:02x}" d="{dots}"/>')
    return paths


def _camera(role: str, camera: ViewCamera, x: float, y: float, axis: Float[ndarray, "2"], noun: str) -> str:
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
    return wedge + mark("circle", "mark train", x, y, 4.5, f"{noun} {camera.name}")


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
