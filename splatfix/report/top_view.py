"""The cameras from above, as inline SVG."""

from __future__ import annotations

from typing import Any

import numpy as np
from markupsafe import Markup
from numpy import ndarray

from splatfix.report.charts import marker, svg
from splatfix.report.load import number
from splatfix.shapes import Float

WIDTH, HEIGHT, MARGIN = 460.0, 330.0, 26.0
WEDGE_PX = 26.0


def camera_plan(cameras: dict[str, Any]) -> Markup | None:
    """Training cameras, test cameras by band and repair views, seen along the direction in which they spread least.

    For a walk around an object or through a room that is from above. None without two readable cameras.
    """
    entries, places, headings = [], [], []
    for role in ("repair", "test", "train"):  # training cameras on top
        for entry in cameras.get(role) or []:
            center, axis = _vector(entry, "centre"), _vector(entry, "axis")
            if center is not None and axis is not None:
                entries.append((role, entry))
                places.append(center)
                headings.append(axis)
    if len(entries) < 2:
        return None
    centers = np.stack(places)
    ups = [up for _, entry in entries if (up := _vector(entry, "up")) is not None]
    right, up = _directions(centers, np.stack(headings), np.array(ups).reshape(-1, 3))
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
    return svg(parts, text, WIDTH, height)


def _camera(role: str, entry: dict, x: float, y: float, axis: Float[ndarray, "2"]) -> str:
    name = str(entry.get("name", ""))
    wedge = ""
    if role == "train" and np.linalg.norm(axis) > 0.25:  # seen head-on it has no direction to show
        half = np.arctan(0.5 * (number(entry, "width_px") or 1.0) / (number(entry, "focal_px") or 1.0))
        heading = np.arctan2(axis[1], axis[0])
        length = WEDGE_PX * float(np.linalg.norm(axis))
        ends = [(x + length * np.cos(heading + s * half), y + length * np.sin(heading + s * half)) for s in (-1, 1)]
        wedge = (
            f'<polygon class="wedge" points="{x:.1f},{y:.1f} ' + " ".join(f"{a:.1f},{b:.1f}" for a, b in ends) + '"/>'
        )
    if role == "test":
        distance = number(entry, "distance")
        where = f", distance {distance:.2f}" if distance is not None else ""
        return marker(entry.get("band"), x, y, f"test {name} ({entry.get('band')}{where})")
    if role == "repair":
        return marker(None, x, y, f"repair view {name}, round {entry.get('round')}", 2.6).replace("band-none", "repair")
    return wedge + marker(None, x, y, f"training {name}", 4.5).replace("band-none", "train")


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


def _vector(entry: Any, key: str) -> Float[ndarray, "3"] | None:
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, list | tuple) or len(value) != 3 or any(not isinstance(v, int | float) for v in value):
        return None
    vector = np.array(value, float)
    return vector if np.isfinite(vector).all() else None
