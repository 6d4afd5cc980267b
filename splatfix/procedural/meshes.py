"""Meshes of primitives, as arrays of triangles: boxes, surfaces of revolution, tubes, height fields, leaves.

Lengths are in units of the world, z points up. Coordinates (``coords``) are where a texture is evaluated: the position
in the object for solid textures, or along and across a face.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy import ndarray

from splatfix.procedural.casting.noise import sample_noise
from splatfix.shapes import Float, Int


@dataclass(frozen=True, eq=False)
class Mesh:
    """Triangles: corners, normals and coordinates at them, float64 ``[T, 3, 3]``, and rows of materials, ``[T]``."""

    corners: Float[ndarray, "T 3 3"]
    normals: Float[ndarray, "T 3 3"]
    coords: Float[ndarray, "T 3 3"]
    materials: Int[ndarray, " T"]

    def __len__(self) -> int:
        return len(self.corners)

    def paint(self, material: int) -> Mesh:
        """Give all triangles one material."""
        return replace(self, materials=np.full(len(self), material))

    def place(
        self,
        at: Sequence[float] | ndarray = (0, 0, 0),
        *,
        turn_rad: float = 0.0,
        rotation: Float[ndarray, "3 3"] | None = None,
        scale: float | Sequence[float] = 1.0,
    ) -> Mesh:
        """Scale, rotate (``turn_rad`` about z, after ``rotation``) and move; solid textures grow with the object."""
        c, s = np.cos(turn_rad), np.sin(turn_rad)
        turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ (np.eye(3) if rotation is None else rotation)
        scales = np.broadcast_to(np.asarray(scale, float), (3,))
        normals = (self.normals / scales) @ turn.T
        normals = normals / np.maximum(np.linalg.norm(normals, axis=2, keepdims=True), 1e-12)
        return replace(self, corners=(self.corners * scales) @ turn.T + np.asarray(at), normals=normals)


def join(meshes: Sequence[Mesh]) -> Mesh:
    """Join meshes to one."""
    return Mesh(
        np.concatenate([mesh.corners for mesh in meshes]),
        np.concatenate([mesh.normals for mesh in meshes]),
        np.concatenate([mesh.coords for mesh in meshes]),
        np.concatenate([mesh.materials for mesh in meshes]),
    )


def tilt(axis: Float[ndarray, "3"]) -> Float[ndarray, "3 3"]:
    """Make a rotation that takes z to an axis."""
    z = axis / np.linalg.norm(axis)
    x = np.cross([0.0, 1.0, 0.0] if abs(z[1]) < 0.9 else [1.0, 0.0, 0.0], z)
    x = x / np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z], axis=1)


def _grid_normals(points: Float[ndarray, "N M 3"], wrap: tuple[bool, bool]) -> Float[ndarray, "N M 3"]:
    """Estimate normals on a grid of points by central differences; where ``wrap``, the last row repeats the first."""
    slopes = []
    for axis in range(2):
        if wrap[axis]:  # the last row repeats the first
            inner = points[:-1] if axis == 0 else points[:, :-1]
            slope = np.roll(inner, -1, axis) - np.roll(inner, 1, axis)
            slope = np.concatenate([slope, slope[:1] if axis == 0 else slope[:, :1]], axis)
        else:
            slope = np.gradient(points, axis=axis)
        slopes.append(slope)
    normals = np.cross(slopes[0], slopes[1])
    return normals / np.maximum(np.linalg.norm(normals, axis=2, keepdims=True), 1e-12)


def make_surface(
    points: Float[ndarray, "N M 3"],
    coords: Float[ndarray, "N M 3"] | None = None,
    *,
    wrap: tuple[bool, bool] = (False, False),
    displacement: float = 0.0,
    frequency: float = 2.0,
    seed: int = 0,
) -> Mesh:
    """Make a smooth surface through a grid of points, whose normals are the first direction times the second.

    ``displacement`` moves points along their normals by noise of that size, with ``frequency`` features per unit.
    """
    normals = _grid_normals(points, wrap)
    coords = points if coords is None else coords
    if displacement > 0:
        points = points + displacement * sample_noise(frequency * points, 4, seed)[..., None] * normals
        normals = _grid_normals(points, wrap)

    def split(values: ndarray) -> ndarray:
        a, b, c, d = values[:-1, :-1], values[1:, :-1], values[1:, 1:], values[:-1, 1:]
        return np.concatenate([np.stack([a, b, c], 2).reshape(-1, 3, 3), np.stack([a, c, d], 2).reshape(-1, 3, 3)])

    corners = split(points)
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    keep = areas > 1e-14
    num = int(keep.sum())
    return Mesh(corners[keep], split(normals)[keep], split(coords)[keep], np.zeros(num, int))


def make_box(size: Sequence[float], *, solid: bool = False) -> Mesh:
    """Make a box around the origin. Coordinates run along each face, or are positions (``solid``)."""
    x, y, z = (float(value) / 2 for value in size)
    faces = []
    for axis in range(3):
        for side in (-1.0, 1.0):
            u, v = [(1, 2), (0, 2), (0, 1)][axis]  # across and up
            half = (x, y, z)
            normal = np.zeros(3)
            normal[axis] = side
            points, coords = [], []
            for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
                point = side * normal * 0
                point[axis], point[u], point[v] = side * half[axis], a * half[u], b * half[v]
                points.append(point)
                coords.append(point if solid else np.array([point[u] + half[u], point[v] + half[v], 2 * axis + side]))
            ring = np.array([0, 1, 2, 0, 2, 3])
            corners = np.array(points)[ring].reshape(2, 3, 3)
            if np.dot(np.cross(corners[0, 1] - corners[0, 0], corners[0, 2] - corners[0, 0]), normal) < 0:
                ring = ring.reshape(2, 3)[:, ::-1].ravel()
                corners = np.array(points)[ring].reshape(2, 3, 3)
            flat = np.broadcast_to(normal, (2, 3, 3)).copy()
            faces.append(Mesh(corners, flat, np.array(coords)[ring].reshape(2, 3, 3), np.zeros(2, int)))
    return join(faces)


def make_lathe(profile: Float[ndarray, "P 2"], segments: int = 48, **displacement: float) -> Mesh:
    """Turn a profile of radii and heights, from below to above, about z: vases, cylinders, cones, lamps."""
    turn = np.linspace(0, 2 * np.pi, segments + 1)
    radius, height = profile[None, :, 0], profile[None, :, 1]
    points = np.stack(
        [
            radius * np.cos(turn)[:, None],
            radius * np.sin(turn)[:, None],
            np.broadcast_to(height, (segments + 1, len(profile))),
        ],
        axis=2,
    )
    return make_surface(points, wrap=(True, False), **displacement)  # type: ignore[arg-type]


def make_cylinder(radius: float, height: float, *, top: float = 1.0, segments: int = 32) -> Mesh:
    """Make a cylinder or cone that stands on the origin; ``top`` is the radius above over that below."""
    edge = 0.02 * radius
    low, high = radius, radius * top
    profile = [(0, 0), (low - edge, 0), (low - edge, 0), (low, edge), (low, edge), (high, height - edge)]
    profile += [(high, height - edge), (max(high - edge, 0), height), (max(high - edge, 0), height), (0, height)]
    return make_lathe(np.array(profile, float), segments)


def make_ellipsoid(power: float = 1.0, resolution: int = 40, **displacement: float) -> Mesh:
    """Make a ball of radius 1; a ``power`` below 1 makes it a rounded box (superquadrics, Barr 1981)."""
    u, v = np.linspace(0, 2 * np.pi, resolution + 1), np.linspace(-np.pi / 2, np.pi / 2, resolution // 2 + 1)

    def bend(values: ndarray) -> ndarray:
        return np.sign(values) * np.abs(values) ** power

    cu, su, cv, sv = bend(np.cos(u))[:, None], bend(np.sin(u))[:, None], bend(np.cos(v)), bend(np.sin(v))
    points = np.stack([cu * cv, su * cv, np.broadcast_to(sv, (len(u), len(v)))], axis=2)
    return make_surface(points, wrap=(True, False), **displacement)  # type: ignore[arg-type]


def make_torus(radius: float, thickness: float, resolution: int = 40) -> Mesh:
    """Make a ring about z, of radius ``radius`` and half the thickness ``thickness``."""
    turn, around = np.linspace(0, 2 * np.pi, resolution + 1), np.linspace(0, 2 * np.pi, resolution // 2 + 1)
    reach = radius + thickness * np.cos(around)[None]
    points = np.stack(
        [
            reach * np.cos(turn)[:, None],
            reach * np.sin(turn)[:, None],
            np.broadcast_to(thickness * np.sin(around), (len(turn), len(around))),
        ],
        axis=2,
    )
    return make_surface(points, wrap=(True, True))


def make_tube(path: Float[ndarray, "P 3"], radius: float | Float[ndarray, " P"], segments: int = 8) -> Mesh:
    """Sweep a circle along a path: wires, branches, legs, handles."""
    slope = np.gradient(path, axis=0)
    radii = np.broadcast_to(np.asarray(radius, float), (len(path),))
    turn = np.linspace(0, 2 * np.pi, segments + 1)
    rings = []
    for point, axis, size in zip(path, slope, radii, strict=True):
        frame = tilt(axis)
        rings.append(point + size * (np.cos(turn)[:, None] * frame[:, 0] + np.sin(turn)[:, None] * frame[:, 1]))
    points = np.stack(rings, axis=1)
    return make_surface(points, wrap=(True, False))


def make_terrain(heights: Float[ndarray, "N M"], size: tuple[float, float]) -> Mesh:
    """Make a height field over a rectangle around the origin; coordinates are positions."""
    x, y = np.linspace(-0.5, 0.5, heights.shape[0]) * size[0], np.linspace(-0.5, 0.5, heights.shape[1]) * size[1]
    points = np.stack([*np.meshgrid(x, y, indexing="ij"), heights], axis=2)
    return make_surface(points)


def make_leaves(
    roots: Float[ndarray, "N 3"],
    directions: Float[ndarray, "N 3"],
    lengths: Float[ndarray, " N"],
    rng: np.random.Generator,
    *,
    slimness: float = 0.35,
    droop: float = 0.3,
) -> Mesh:
    """Make leaves or blades of four triangles each, which bend down by ``droop`` of their length."""
    num = len(roots)
    along = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    across = np.cross(along, rng.normal(size=(num, 3)))
    across /= np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-9)
    step, half = along * lengths[:, None], across * (0.5 * slimness * lengths)[:, None]
    down = np.array([0, 0, -1.0]) * (droop * lengths)[:, None]
    base, tip = roots, roots + step + down
    left, right = (roots + 0.5 * step + 0.25 * down + side for side in (half, -half))
    middle = roots + 0.5 * step + 0.2 * down
    corners = np.stack([np.stack(each, 1) for each in ((base, right, middle), (right, tip, middle),
                                                       (tip, left, middle), (left, base, middle))], 1)  # fmt: skip
    normals = np.cross(corners[:, :, 1] - corners[:, :, 0], corners[:, :, 2] - corners[:, :, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=2, keepdims=True), 1e-15)
    number = np.arange(num, dtype=float)
    flat = {"base": (0, 0), "right": (0.5, -0.5), "tip": (1, 0), "left": (0.5, 0.5), "middle": (0.5, 0)}
    quads = (
        ("base", "right", "middle"),
        ("right", "tip", "middle"),
        ("tip", "left", "middle"),
        ("left", "base", "middle"),
    )
    shape = np.array([[flat[name] for name in names] for names in quads])  # [4, 3, 2]
    coords = np.concatenate(
        [np.broadcast_to(shape, (num, 4, 3, 2)), np.broadcast_to(number[:, None, None, None], (num, 4, 3, 1))], axis=3
    )
    return Mesh(
        corners.reshape(-1, 3, 3),
        np.repeat(normals.reshape(-1, 1, 3), 3, axis=1),
        coords.reshape(-1, 3, 3).astype(float),
        np.zeros(4 * num, int),
    )
