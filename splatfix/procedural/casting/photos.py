"""Cast the photos of a scene: samples per pixel, exposure and tone curve; and the depth of exact pinhole cameras.

A pixel gets `SAMPLES` samples, and `MORE_SAMPLES` further ones where these differ: at edges and in fine texture. All
random numbers are hashes of the pixel and the camera's name, so a photo does not depend on the number of threads.
"""

from __future__ import annotations

import zlib

import numpy as np
from numba import prange
from numpy import ndarray

from splatfix.cameras import Camera
from splatfix.jit import kernel, limit_threads
from splatfix.procedural.casting.bvh import MAX_LIGHTS, build_bvh, cast_ray, make_stack
from splatfix.procedural.casting.columns import AMBIENT, NUM_SKY, THIN
from splatfix.procedural.casting.noise import uniform_at
from splatfix.procedural.casting.shading import FAR, CastScene, face_normal, sky_light, trace
from splatfix.procedural.meshes import Mesh
from splatfix.shapes import Float

SAMPLES, MORE_SAMPLES = 4, 5
CONTRAST = 0.1  # of the samples, after the tone curve, above which a pixel gets more
BOUNCES = 1  # of mirroring surfaces
DIRECTIONS = 72  # in which each cell of the volume gathers light
NUM_CELLS = 4000
MIN_ROWS = 8  # of an image for each thread


def pack_camera(camera: Camera) -> Float[ndarray, "16"]:
    """Pack a camera for the kernels: rotation, center, fx, fy, cx, cy."""
    k = camera.intrinsics
    lens = [k[0, 0], k[1, 1], k[0, 2], k[1, 2]]
    return np.concatenate([camera.rotation.ravel(), camera.center, lens]).astype(np.float64)


@kernel()
def _camera_ray(cam, x, y):
    """Return the unit direction of the ray through a point of the image, and the depth per unit of its length."""
    a, b = (x - cam[14]) / cam[12], (y - cam[15]) / cam[13]
    length = np.sqrt(a * a + b * b + 1)
    dx = (cam[0] * a + cam[3] * b + cam[6]) / length
    dy = (cam[1] * a + cam[4] * b + cam[7]) / length
    dz = (cam[2] * a + cam[5] * b + cam[8]) / length
    return dx, dy, dz, 1.0 / length


@kernel()
def _curve(x):
    """Map exposed light to [0, 1] (linear), as film does (Narkowicz 2015)."""
    x = max(x, 0.0)
    return min(1.0, x * (2.51 * x + 0.03) / (x * (2.43 * x + 0.59) + 0.14))


@kernel()
def _cast_pixel(scene, stack, cam, row, column, key, exposure, rgb):
    total_r = total_g = total_b = 0.0
    least, most, num = np.inf, -np.inf, SAMPLES
    spread = 1.0 / cam[12]
    sample = 0
    while sample < num:
        if sample < SAMPLES:  # one in each quarter
            x, y = float(sample % 2), float(sample // 2)
        else:  # the additive recurrence R2 (Roberts 2018)
            x, y = 2 * ((0.7549 * sample) % 1.0) - 0.5, 2 * ((0.5698 * sample) % 1.0) - 0.5
        x = min(max(0.5 * (x + uniform_at(key, sample, 1, 3)), 0.0), 1.0) + column
        y = min(max(0.5 * (y + uniform_at(key, sample, 2, 3)), 0.0), 1.0) + row
        dx, dy, dz, _ = _camera_ray(cam, x, y)
        r, g, b = trace(scene, stack, cam[9], cam[10], cam[11], dx, dy, dz, spread, key, sample, BOUNCES)
        r, g, b = _curve(exposure[0] * r), _curve(exposure[1] * g), _curve(exposure[2] * b)
        total_r, total_g, total_b = total_r + r, total_g + g, total_b + b
        bright = np.sqrt(0.3 * r + 0.6 * g + 0.1 * b)
        least, most = min(least, bright), max(most, bright)
        sample += 1
        if sample == SAMPLES and most - least > CONTRAST:
            num = SAMPLES + MORE_SAMPLES
    rgb[0], rgb[1], rgb[2] = total_r / num, total_g / num, total_b / num


@kernel(parallel=True)
def _cast_image(scene, cam, exposure, seed, num_threads, rgb):
    height, width = rgb.shape[0], rgb.shape[1]
    for thread in prange(num_threads):
        stack = make_stack()
        for row in range(thread, height, num_threads):
            for column in range(width):
                key = (row * 8191 + column) * 127 + seed
                _cast_pixel(scene, stack, cam, row, column, key, exposure, rgb[row, column])


@kernel()
def _cast_depth(scene, cam, step, depth, is_back):
    """Cast a ray through the center of every ``step``-th pixel; whether it meets the back of a solid surface."""
    stack = make_stack()
    for row in range(depth.shape[0]):
        for column in range(depth.shape[1]):
            dx, dy, dz, slant = _camera_ray(cam, (column + 0.5) * step, (row + 0.5) * step)
            t, i, _, _ = cast_ray(
                *(scene.bounds, scene.links, scene.triangles, stack),
                *(cam[9], cam[10], cam[11], dx, dy, dz, 0.0, FAR, False),
            )
            depth[row, column], is_back[row, column] = np.inf, False
            if i >= 0:
                nx, ny, nz = face_normal(scene.triangles, i)
                depth[row, column] = t * slant
                is_back[row, column] = (
                    nx * dx + ny * dy + nz * dz > 0 and scene.materials[scene.material_of[i], THIN] == 0
                )


@kernel()
def _measure_light(scene, cam, light):
    stack = make_stack()
    for row in range(light.shape[0]):
        for column in range(light.shape[1]):
            dx, dy, dz, _ = _camera_ray(cam, column + 0.5, row + 0.5)
            light[row, column, 0], light[row, column, 1], light[row, column, 2] = trace(
                scene, stack, cam[9], cam[10], cam[11], dx, dy, dz, 1.0 / cam[12], row * 8191 + column, 0, BOUNCES
            )


@kernel()
def _gather_light(scene, directions, volume, is_solid):
    """Fill the volume of ambient cubes with light that has met one surface at most; find cells in solid things."""
    stack = make_stack()
    box = scene.box
    for i in range(volume.shape[0]):
        for j in range(volume.shape[1]):
            for k in range(volume.shape[2]):
                x = box[0] + (i + 0.5) / volume.shape[0] * (box[3] - box[0])
                y = box[1] + (j + 0.5) / volume.shape[1] * (box[4] - box[1])
                z = box[2] + (k + 0.5) / volume.shape[2] * (box[5] - box[2])
                weights = np.zeros(6)
                backs = 0
                for n in range(len(directions)):
                    dx, dy, dz = directions[n, 0], directions[n, 1], directions[n, 2]
                    _, hit, _, _ = cast_ray(
                        scene.bounds, scene.links, scene.triangles, stack, x, y, z, dx, dy, dz, 0.0, FAR, False
                    )
                    if hit < 0:
                        r, g, b = sky_light(scene.sky, dx, dy, dz)
                    else:
                        nx, ny, nz = face_normal(scene.triangles, hit)
                        is_thin = scene.materials[scene.material_of[hit], THIN] > 0
                        backs += int(nx * dx + ny * dy + nz * dz > 0 and not is_thin)
                        r, g, b = trace(scene, stack, x, y, z, dx, dy, dz, 0.2, n, 0, 0)
                    for axis in range(3):
                        component = directions[n, axis]
                        side = 2 * axis + int(component > 0)
                        weight = abs(component)
                        weights[side] += weight
                        volume[i, j, k, side, 0] += weight * r
                        volume[i, j, k, side, 1] += weight * g
                        volume[i, j, k, side, 2] += weight * b
                for side in range(6):
                    for c in range(3):
                        volume[i, j, k, side, c] /= max(weights[side], 1e-9)
                is_solid[i, j, k] = backs > 0.25 * len(directions)


def _spread_directions(num: int) -> Float[ndarray, "N 3"]:
    """Spread unit vectors evenly (a Fibonacci lattice)."""
    k = np.arange(num) + 0.5
    z, turn = 1 - 2 * k / num, np.pi * (1 + 5**0.5) * k
    flat = np.sqrt(1 - z * z)
    return np.stack([flat * np.cos(turn), flat * np.sin(turn), z], axis=1)


def _fill_solid(volume: ndarray, is_solid: ndarray) -> None:
    """Replace cells in solid things by the mean of their neighbors, again and again from outside to inside."""
    missing = is_solid.copy()
    for _ in range(sum(volume.shape[:3])):
        if not missing.any() or missing.all():
            break
        total, count = np.zeros_like(volume), np.zeros(missing.shape)
        for axis in range(3):
            for step in (-1, 1):
                known = np.roll(~missing, step, axis).astype(float)
                edge = [slice(None)] * 3
                edge[axis] = slice(0, 1) if step > 0 else slice(-1, None)
                known[tuple(edge)] = 0
                total += (known[..., None, None] * np.roll(volume, step, axis)).astype(volume.dtype)
                count += known
        ready = missing & (count > 0)
        volume[ready] = total[ready] / count[ready][:, None, None]
        missing &= ~ready


def prepare_scene(
    mesh: Mesh,
    materials: Float[ndarray, "M K"],
    lights: Float[ndarray, "L 8"],
    sky: Float[ndarray, "17"],
    box: Float[ndarray, "2 3"],
) -> CastScene:
    """Build the hierarchy of a scene, and gather its indirect light in a box (least and largest corner)."""
    assert sky.shape == (NUM_SKY,) and len(lights) <= MAX_LIGHTS
    bounds, links, order = build_bvh(mesh.corners)
    corners = mesh.corners[order].astype(np.float32)
    edges = corners[:, 1:] - corners[:, :1]
    triangles = np.concatenate([corners[:, :1], edges], axis=1).reshape(-1, 9)
    size = box[1] - box[0]
    cell = (size.prod() / NUM_CELLS) ** (1 / 3)
    shape = np.maximum(2, np.round(size / cell)).astype(int)
    ambient = np.full((2, 2, 2, 6, 3), sky[AMBIENT], np.float32)
    scene = CastScene(
        *(bounds, links, np.ascontiguousarray(triangles)),
        mesh.normals[order].astype(np.float32).reshape(-1, 9),
        mesh.coords[order].astype(np.float32).reshape(-1, 9),
        mesh.materials[order].astype(np.int32),
        *(materials, lights, sky, ambient, np.ascontiguousarray(box.reshape(6))),
    )
    volume, is_solid = np.zeros((*shape, 6, 3), np.float32), np.zeros(tuple(shape), np.bool_)
    _gather_light(scene, _spread_directions(DIRECTIONS), volume, is_solid)
    _fill_solid(volume, is_solid)
    return scene._replace(volume=volume)


def cast_photo(scene: CastScene, camera: Camera, exposure: Float[ndarray, "3"]) -> Float[ndarray, "H W 3"]:
    """Cast a photo: sRGB in [0, 1], float32, rounded to the 256 levels of an image file.

    ``exposure`` multiplies the linear light of each channel, before the tone curve.
    """
    linear = np.empty((camera.height_px, camera.width_px, 3))
    seed = zlib.crc32(camera.name.encode())
    with limit_threads(camera.height_px, MIN_ROWS) as num_threads:
        _cast_image(scene, pack_camera(camera), exposure, seed, num_threads, linear)
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055)
    return (np.round(255 * srgb) / 255).astype(np.float32)


def cast_depth(scene: CastScene, camera: Camera, step_px: int = 1) -> tuple[Float[ndarray, "h w"], ndarray]:
    """Cast the depth (z in the camera, units of the world; infinity at the sky) of every ``step_px``-th pixel.

    Also returns where the ray meets the back of a solid surface, bool ``[h, w]``: the camera is inside of it.
    """
    depth = np.empty((camera.height_px // step_px, camera.width_px // step_px))
    is_back = np.empty(depth.shape, np.bool_)
    _cast_depth(scene, pack_camera(camera), step_px, depth, is_back)
    return depth, is_back


def measure_light(scene: CastScene, camera: Camera) -> Float[ndarray, "H W 3"]:
    """Cast one sample of each pixel, as linear light before exposure."""
    light = np.empty((camera.height_px, camera.width_px, 3))
    _measure_light(scene, pack_camera(camera), light)
    return light
