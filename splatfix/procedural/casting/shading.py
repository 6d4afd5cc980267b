"""Shading kernels: sky, lights with soft shadows, indirect light, highlights and mirroring.

Indirect light comes from a volume of ambient cubes: on a coarse grid, the mean light from each of six sides (McTaggart,
Half-Life 2 Source Shading, 2004; irradiance volumes: Greger et al. 1998). It is computed once for a scene, with one
bounce, and is the same in every view, as is everything but highlights, mirror images and haze.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy import ndarray

from splatfix.jit import kernel
from splatfix.procedural.casting.bvh import STACK, cast_ray, meet_triangle
from splatfix.procedural.casting.columns import (
    BUMP,
    CLOUDS,
    COLOR,
    GLOSS,
    GLOW,
    GROUND,
    HAZE,
    HORIZON,
    IS_LAMP,
    MIRROR,
    PLACE,
    POLISH,
    RADIUS,
    SCALE,
    SEED,
    SKY_SEED,
    SUN,
    THIN,
    ZENITH,
)
from splatfix.procedural.casting.noise import octave_noise, uniform_at, value_noise
from splatfix.procedural.casting.textures import sample_albedo

FAR = 1e9
START = 1e-5  # of a ray from a surface, per unit of the distance that led to it
TINT = 0.35  # of the light that shines through a thin surface


class CastScene(NamedTuple):
    """A scene as the kernels see it: triangles in the order of the hierarchy, materials, lights, sky, indirect light.

    Attributes:
        bounds, links: of the hierarchy, as `build_bvh` returns them.
        triangles: corner and two edges, float32 ``[T, 9]``.
        normals, coords: at the corners, float32 ``[T, 9]``.
        material_of: row of each triangle in ``materials``, int32 ``[T]``.
        materials: rows of `Material.pack`, ``[M, K]``.
        lights: ``[L, 8]``.
        sky: ``[17]``.
        volume: mean light from -x, +x, -y, +y, -z, +z in linear RGB, float32 ``[X, Y, Z, 6, 3]``.
        box: least and largest corner of the volume, ``[6]``.
    """

    bounds: ndarray
    links: ndarray
    triangles: ndarray
    normals: ndarray
    coords: ndarray
    material_of: ndarray
    materials: ndarray
    lights: ndarray
    sky: ndarray
    volume: ndarray
    box: ndarray


@kernel()
def sky_light(sky, dx, dy, dz):
    """Return the light of the sky, or of what is below the horizon, from a direction."""
    rise = max(dz, 0.0) ** 0.6
    below = min(1.0, max(0.0, -8.0 * dz))
    r = sky[HORIZON] + (sky[ZENITH] - sky[HORIZON]) * rise
    g = sky[HORIZON + 1] + (sky[ZENITH + 1] - sky[HORIZON + 1]) * rise
    b = sky[HORIZON + 2] + (sky[ZENITH + 2] - sky[HORIZON + 2]) * rise
    if sky[CLOUDS] > 0 and dz > 0.01:
        x, y = 1.6 * dx / (dz + 0.25), 1.6 * dy / (dz + 0.25)
        seed = np.int64(sky[SKY_SEED])
        cover = octave_noise(x, y, 0.5, 5, 0.55, 0.02, seed) + 0.9 * sky[CLOUDS] - 0.55
        cover = min(1.0, max(0.0, 2.2 * cover)) * min(1.0, 6 * dz)
        white = (0.75 + 0.4 * value_noise(2 * x, 2 * y, 3.5, seed + 9)) * (0.6 + 0.6 * sky[HORIZON + 1])
        r, g, b = r + (white - r) * cover, g + (white - g) * cover, b + (1.03 * white - b) * cover
    toward = max(0.0, dx * sky[SUN] + dy * sky[SUN + 1] + dz * sky[SUN + 2])
    glow = sky[GLOW] * toward**24
    r, g, b = r + glow, g + 0.9 * glow, b + 0.7 * glow
    return r + (sky[GROUND] - r) * below, g + (sky[GROUND + 1] - g) * below, b + (sky[GROUND + 2] - b) * below


@kernel()
def ambient_light(volume, box, x, y, z, nx, ny, nz):
    """Interpolate the indirect light that falls on a surface at a point with a normal."""
    gx = (x - box[0]) / (box[3] - box[0]) * volume.shape[0] - 0.5
    gy = (y - box[1]) / (box[4] - box[1]) * volume.shape[1] - 0.5
    gz = (z - box[2]) / (box[5] - box[2]) * volume.shape[2] - 0.5
    gx = min(max(gx, 0.0), volume.shape[0] - 1.001)
    gy = min(max(gy, 0.0), volume.shape[1] - 1.001)
    gz = min(max(gz, 0.0), volume.shape[2] - 1.001)
    i, j, k = int(gx), int(gy), int(gz)
    fx, fy, fz = gx - i, gy - j, gz - k
    side_x, side_y, side_z = int(nx > 0), 2 + int(ny > 0), 4 + int(nz > 0)
    r = g = b = 0.0
    for corner in range(8):
        a, c, e = corner & 1, (corner >> 1) & 1, corner >> 2
        weight = (fx if a else 1 - fx) * (fy if c else 1 - fy) * (fz if e else 1 - fz)
        cell = volume[i + a, j + c, k + e]
        wx, wy, wz = weight * nx * nx, weight * ny * ny, weight * nz * nz
        r += wx * cell[side_x, 0] + wy * cell[side_y, 0] + wz * cell[side_z, 0]
        g += wx * cell[side_x, 1] + wy * cell[side_y, 1] + wz * cell[side_z, 1]
        b += wx * cell[side_x, 2] + wy * cell[side_y, 2] + wz * cell[side_z, 2]
    return r, g, b


@kernel()
def sample_light(scene, stack, row, x, y, z, nx, ny, nz, near, key, draw):
    """Return the visible share of a light times its fall-off, and the unit direction to a random point of it."""
    lights = scene.lights
    a, b = uniform_at(key, draw, row, 11), uniform_at(key, draw, row, 12)
    height, turn = 2 * a - 1, 2 * np.pi * b
    flat = np.sqrt(max(0.0, 1 - height * height))
    radius = lights[row, RADIUS]
    lx = lights[row, PLACE] + radius * flat * np.cos(turn)
    ly = lights[row, PLACE + 1] + radius * flat * np.sin(turn)
    lz = lights[row, PLACE + 2] + radius * height
    far, fall_off = FAR, 1.0
    if lights[row, IS_LAMP] > 0:
        lx, ly, lz = lx - x, ly - y, lz - z
        far = np.sqrt(lx * lx + ly * ly + lz * lz)
        fall_off = 1.0 / (far * far + 0.05)
    length = max(np.sqrt(lx * lx + ly * ly + lz * lz), 1e-9)
    lx, ly, lz = lx / length, ly / length, lz / length
    if nx * lx + ny * ly + nz * lz <= 0:
        return 0.0, lx, ly, lz
    last = stack[STACK + row]
    if last >= 0:  # often what hid the light from the point before
        t, _, _ = meet_triangle(scene.triangles, last, x, y, z, lx, ly, lz)
        if near < t < 0.999 * far:
            return 0.0, lx, ly, lz
    _, hit, _, _ = cast_ray(
        scene.bounds, scene.links, scene.triangles, stack, x, y, z, lx, ly, lz, near, 0.999 * far, True
    )
    if hit >= 0:
        stack[STACK + row] = hit
        return 0.0, lx, ly, lz
    return fall_off, lx, ly, lz


@kernel()
def interpolate(values, i, u, v):
    """Interpolate a vector between the corners of triangle ``i``."""
    w = 1 - u - v
    return (
        w * values[i, 0] + u * values[i, 3] + v * values[i, 6],
        w * values[i, 1] + u * values[i, 4] + v * values[i, 7],
        w * values[i, 2] + u * values[i, 5] + v * values[i, 8],
    )


@kernel()
def face_normal(triangles, i):
    """Return the unit normal of triangle ``i`` as its corners turn."""
    ax, ay, az = np.float64(triangles[i, 3]), np.float64(triangles[i, 4]), np.float64(triangles[i, 5])
    bx, by, bz = np.float64(triangles[i, 6]), np.float64(triangles[i, 7]), np.float64(triangles[i, 8])
    nx, ny, nz = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
    length = max(np.sqrt(nx * nx + ny * ny + nz * nz), 1e-30)
    return nx / length, ny / length, nz / length


@kernel()
def _shading_normal(scene, i, u, v, dx, dy, dz, cx, cy, cz, footprint):
    """Return the interpolated and bumped normal on the side of the ray, and the geometric one."""
    gx, gy, gz = face_normal(scene.triangles, i)
    if gx * dx + gy * dy + gz * dz > 0:
        gx, gy, gz = -gx, -gy, -gz
    nx, ny, nz = interpolate(scene.normals, i, u, v)
    if nx * gx + ny * gy + nz * gz < 0:
        nx, ny, nz = -nx, -ny, -nz
    m = scene.material_of[i]
    bump, scale, seed = scene.materials[m, BUMP], 3 * scene.materials[m, SCALE], np.int64(scene.materials[m, SEED])
    bump *= min(1.0, max(0.0, 2 - 2 * footprint * scale))
    if bump > 0:
        nx += bump * value_noise(scale * cx, scale * cy, scale * cz, seed + 41)
        ny += bump * value_noise(scale * cx, scale * cy, scale * cz, seed + 42)
        nz += bump * value_noise(scale * cx, scale * cy, scale * cz, seed + 43)
    length = max(np.sqrt(nx * nx + ny * ny + nz * nz), 1e-9)
    nx, ny, nz = nx / length, ny / length, nz / length
    return nx, ny, nz, gx, gy, gz


@kernel()
def light_surface(scene, stack, px, py, pz, nx, ny, nz, gx, gy, gz, vx, vy, vz, m, near, key, draw):
    """Return the diffuse light on a surface (to be multiplied with the albedo), and the highlights of the lights."""
    cell = (scene.box[3] - scene.box[0]) / scene.volume.shape[0]
    r, g, b = ambient_light(
        scene.volume, scene.box, px + 0.5 * cell * gx, py + 0.5 * cell * gy, pz + 0.5 * cell * gz, nx, ny, nz
    )
    thin, gloss, polish = scene.materials[m, THIN] > 0, scene.materials[m, GLOSS], scene.materials[m, POLISH]
    hr = hg = hb = 0.0
    for row in range(len(scene.lights)):
        lit, lx, ly, lz = sample_light(scene, stack, row, px, py, pz, gx, gy, gz, near, key, draw)
        facing = nx * lx + ny * ly + nz * lz
        if lit == 0 and thin and gx * lx + gy * ly + gz * lz < 0:
            lit, lx, ly, lz = sample_light(scene, stack, row, px, py, pz, -gx, -gy, -gz, near, key, draw)
            facing = -TINT * facing
        if lit <= 0 or facing <= 0:
            continue
        lr, lg, lb = scene.lights[row, COLOR], scene.lights[row, COLOR + 1], scene.lights[row, COLOR + 2]
        r, g, b = r + lit * facing * lr, g + lit * facing * lg, b + lit * facing * lb
        if gloss > 0:  # Blinn (1977), normalized
            sx, sy, sz = lx - vx, ly - vy, lz - vz
            half = max(0.0, nx * sx + ny * sy + nz * sz) / max(np.sqrt(sx * sx + sy * sy + sz * sz), 1e-9)
            shine = lit * facing * gloss * (polish + 8) / 8 * half**polish
            hr, hg, hb = hr + shine * lr, hg + shine * lg, hb + shine * lb
    return r, g, b, hr, hg, hb


@kernel()
def trace(scene, stack, ox, oy, oz, dx, dy, dz, spread, key, draw, bounces):
    """Return the light (linear RGB) that comes along a ray.

    ``spread`` is the width of the ray per unit of length; ``key`` and ``draw`` determine its random numbers.
    """
    red = green = blue = 0.0
    share, travelled, near = 1.0, 0.0, 0.0
    haze = scene.sky[HAZE]
    for bounce in range(bounces + 1):
        t, i, u, v = cast_ray(
            scene.bounds, scene.links, scene.triangles, stack, ox, oy, oz, dx, dy, dz, near, FAR, False
        )
        if i < 0:
            sr, sg, sb = sky_light(scene.sky, dx, dy, dz)
            return red + share * sr, green + share * sg, blue + share * sb
        travelled += t
        px, py, pz = ox + t * dx, oy + t * dy, oz + t * dz
        m = scene.material_of[i]
        cx, cy, cz = interpolate(scene.coords, i, u, v)
        footprint = spread * travelled
        nx, ny, nz, gx, gy, gz = _shading_normal(scene, i, u, v, dx, dy, dz, cx, cy, cz, footprint)
        near = START * (1 + travelled)
        ar, ag, ab = sample_albedo(scene.materials, m, cx, cy, cz, footprint)
        r, g, b, hr, hg, hb = light_surface(
            scene, stack, px, py, pz, nx, ny, nz, gx, gy, gz, dx, dy, dz, m, near, key, draw + 17 * bounce
        )
        clear = np.exp(-haze * t) if haze > 0 else 1.0
        gloss, polish = scene.materials[m, GLOSS], scene.materials[m, POLISH]
        mirrored = 0.0
        if gloss > 0 and polish > MIRROR and bounce < bounces:  # Schlick (1994)
            cosine = max(0.0, -(nx * dx + ny * dy + nz * dz))
            mirrored = gloss + (1 - gloss) * (1 - cosine) ** 5
        r, g, b = (1 - mirrored) * ar * r + hr, (1 - mirrored) * ag * g + hg, (1 - mirrored) * ab * b + hb
        red += share * (clear * r + (1 - clear) * scene.sky[HORIZON])
        green += share * (clear * g + (1 - clear) * scene.sky[HORIZON + 1])
        blue += share * (clear * b + (1 - clear) * scene.sky[HORIZON + 2])
        share *= clear * mirrored
        if share < 0.01:
            return red, green, blue
        turn = 2 * (nx * dx + ny * dy + nz * dz)
        dx, dy, dz = dx - turn * nx, dy - turn * ny, dz - turn * nz
        if gx * dx + gy * dy + gz * dz <= 0:  # into the surface, as a bumped normal may tell
            return red, green, blue
        ox, oy, oz = px, py, pz
    return red, green, blue
