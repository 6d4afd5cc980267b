"""A textured scene of three planes, and photos of it with known cameras."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from splatfix.cameras import Camera, look_at

WIDTH, HEIGHT, FOCAL_PX = 240, 180, 215.0
TEXTURE_PX = 256
TINT = np.array([1.0, 0.9, 0.75])
PLANES = (  # center, right and down to the edges, in world units
    (np.array([0.0, 0.0, 5.2]), np.array([3.2, 0.0, 0.0]), np.array([0.0, 2.4, 0.0])),
    (np.array([-1.0, 0.3, 3.9]), np.array([0.8, 0.0, 0.7]), np.array([0.0, 0.9, 0.0])),
    (np.array([1.1, -0.2, 3.7]), np.array([0.7, 0.1, -0.6]), np.array([0.0, 0.8, 0.2])),
)


def cameras(num: int) -> list[Camera]:
    """Cameras along an arc that look at the middle of the scene."""
    intrinsics = np.array([[FOCAL_PX, 0, WIDTH / 2], [0, FOCAL_PX, HEIGHT / 2], [0, 0, 1]])
    found = []
    for index, angle in enumerate(np.linspace(-0.45, 0.45, num)):
        center = np.array([4.2 * np.sin(angle), 0.25 * np.cos(3 * angle), 4.2 - 4.2 * np.cos(angle)])
        pose = look_at(center, np.array([0.0, 0.0, 4.2]), np.array([0.0, -1.0, 0.0]))
        found.append(Camera(f"photo {index} é.png", WIDTH, HEIGHT, intrinsics, pose))
    return found


def take_photo(camera: Camera, textures: list[np.ndarray]) -> np.ndarray:
    """Cast a ray through each pixel at the planes: uint8 ``[H, W, 3]``."""
    x, y = np.meshgrid(np.arange(camera.width_px) + 0.5, np.arange(camera.height_px) + 0.5)
    pixels = np.stack([x, y, np.ones_like(x)], axis=-1)
    rays = pixels @ np.linalg.inv(camera.intrinsics).T @ camera.rotation
    image, nearest = np.full((*x.shape, 3), 0.5), np.full(x.shape, np.inf)
    for (center, right, down), texture in zip(PLANES, textures, strict=True):
        normal = np.cross(right, down)
        distance = (center - camera.center) @ normal / (rays @ normal)
        offset = camera.center + distance[..., None] * rays - center
        u, v = (offset @ side / (side @ side) for side in (right, down))
        hit = (distance > 0) & (distance < nearest) & (abs(u) < 1) & (abs(v) < 1)
        places = [(side + 1) / 2 * (TEXTURE_PX - 1) for side in (v, u)]
        sampled = ndimage.map_coordinates(texture, places, order=1, mode="nearest")
        image[hit] = sampled[hit][:, None] * TINT
        nearest = np.where(hit, distance, nearest)
    return (np.clip(image, 0, 1) * 255).round().astype(np.uint8)


def make_textures(seed: int = 0) -> list[np.ndarray]:
    """Random blobs of several sizes, a gray texture for each plane."""
    random = np.random.default_rng(seed)
    noises = [random.normal(size=(TEXTURE_PX, TEXTURE_PX)) for _ in PLANES]
    return [
        np.clip(0.5 + 0.4 * sum(size * ndimage.gaussian_filter(noise, size) for size in (1.2, 2.5, 6)), 0, 1)
        for noise in noises
    ]


def write_photos(folder: Path, num: int) -> list[Camera]:
    """Write photos of the scene; returns their cameras, which are named as the files."""
    folder.mkdir(parents=True)
    textures, taken = make_textures(), cameras(num)
    for camera in taken:
        Image.fromarray(take_photo(camera, textures)).save(folder / camera.name)
    return taken
