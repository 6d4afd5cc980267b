"""A textured wall with a slanted board before it: photos with exact depth, made by casting rays onto planes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from splatfix.cameras import Camera, look_at

WIDTH, HEIGHT, FOCAL = 128, 96, 130.0


@dataclass(frozen=True)
class Quad:
    """A rectangle with a texture: a corner, two edges, and noise."""

    corner: np.ndarray
    right: np.ndarray
    down: np.ndarray
    texture: np.ndarray


def noise(size: int, seed: int) -> np.ndarray:
    """Smooth color noise, ``[size, size, 3]`` in [0, 1], with detail at several scales."""
    from scipy.ndimage import gaussian_filter  # here, because the GPU checks have other textures and no scipy

    rng = np.random.default_rng(seed)
    total = sum(
        2.0**k * gaussian_filter(rng.standard_normal((size, size, 3)), (2.0**k, 2.0**k, 0), mode="wrap")
        for k in range(1, 5)
    )
    return np.clip(0.5 + 0.2 * total / total.std(), 0, 1)


def quads(make_texture: Callable[[int, int], np.ndarray] = noise) -> list[Quad]:
    """The wall at z = 0 and the board some 1.0 to 1.4 before it; textures by size and seed."""
    return [
        Quad(np.array([-4.0, -3.0, 0.0]), np.array([8.0, 0, 0]), np.array([0, 6.0, 0]), make_texture(512, 1)),
        Quad(np.array([-0.6, -0.5, -1.0]), np.array([1.2, 0, -0.4]), np.array([0, 1.0, 0]), make_texture(96, 2)),
    ]


def camera(x: float, y: float = 0.0, name: str | None = None) -> Camera:
    """A camera at ``(x, y, -4)`` that looks at the board."""
    pose = look_at(np.array([x, y, -4.0]), np.array([0, 0, -0.5]), np.array([0, -1.0, 0]))
    intrinsics = np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])
    return Camera(name or f"{x:+.2f}{y:+.2f}.png", WIDTH, HEIGHT, intrinsics, pose)


def photograph(view: Camera, surfaces: Sequence[Quad] | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Photo float32 ``[H, W, 3]``, depth along the axis ``[H, W]``, and which pixels show the board ``[H, W]``."""
    column, row = np.meshgrid(np.arange(view.width_px) + 0.5, np.arange(view.height_px) + 0.5)
    rays = view.unproject(np.stack([column, row], -1), np.ones_like(column)) - view.center
    depth = np.full(column.shape, np.inf)
    rgb = np.zeros((*column.shape, 3))
    board = np.zeros(column.shape, bool)
    for index, quad in enumerate(surfaces or quads()):
        normal = np.cross(quad.right, quad.down)
        t = ((quad.corner - view.center) @ normal) / (rays @ normal)
        local = view.center + t[..., None] * rays - quad.corner
        u, v = local @ quad.right / (quad.right @ quad.right), local @ quad.down / (quad.down @ quad.down)
        hit = (t > 0) & (t < depth) & (u >= 0) & (u < 1) & (v >= 0) & (v < 1)
        size = len(quad.texture) - 1.001
        a, b = np.clip(u, 0, 1) * size, np.clip(v, 0, 1) * size
        i, j = a.astype(int), b.astype(int)
        p, q = (a - i)[..., None], (b - j)[..., None]
        top = quad.texture[j, i] * (1 - p) + quad.texture[j, i + 1] * p
        bottom = quad.texture[j + 1, i] * (1 - p) + quad.texture[j + 1, i + 1] * p
        rgb = np.where(hit[..., None], top * (1 - q) + bottom * q, rgb)
        depth = np.where(hit, t, depth)
        board = np.where(hit, index == 1, board)
    return rgb.astype(np.float32), depth, board


def off_surface(points: np.ndarray) -> np.ndarray:
    """Distance of points to the nearer of the two planes, ``[P]``."""
    distances = []
    for quad in quads():
        normal = np.cross(quad.right, quad.down)
        distances.append(np.abs((points - quad.corner) @ normal) / np.linalg.norm(normal))
    return np.min(distances, axis=0)
