"""Texture kernels: the albedo of a material at a point of its surface.

Each pattern picks between the three colors of the material, and octaves of noise vary the result at all scales, so that
no surface is plain. ``footprint`` is the size of a sample in units of the coordinates: finer detail fades out.
"""

from __future__ import annotations

import numpy as np

from splatfix.jit import kernel
from splatfix.procedural.casting.columns import (
    BRICKS,
    CHECKER,
    COLORS,
    CONTRAST,
    DETAIL,
    KIND,
    LEAF,
    PRINT,
    RATIO,
    SCALE,
    SEED,
    SPECKLE,
    STRIPES,
    WARP,
    WOOD,
)
from splatfix.procedural.casting.noise import octave_noise, uniform_at


@kernel()
def _blend(materials, m, t):
    """Mix the three colors of a material: the first at t = 0, the second at 0.5, the third at 1."""
    t = min(1.0, max(0.0, t))
    first = COLORS if t < 0.5 else COLORS + 3
    f = 2 * t if t < 0.5 else 2 * t - 1
    return (
        materials[m, first] * (1 - f) + materials[m, first + 3] * f,
        materials[m, first + 1] * (1 - f) + materials[m, first + 4] * f,
        materials[m, first + 2] * (1 - f) + materials[m, first + 5] * f,
    )


@kernel()
def _sharpen(x, edge):
    """A smooth step from 0 at -edge to 1 at edge."""
    t = min(1.0, max(0.0, 0.5 + 0.5 * x / max(edge, 1e-6)))
    return t * t * (3 - 2 * t)


@kernel()
def _checker(x, y, z, seed):
    i, j, k = np.int64(np.floor(x)), np.int64(np.floor(y)), np.int64(np.floor(z + 0.5))
    return 0.8 * ((i + j + k) & 1) + 0.2 * uniform_at(i, j, k, seed)


@kernel()
def _bricks(x, y, z, ratio, footprint, seed):
    """Rows of bricks, each of a separate shade; mortar is 1."""
    row = np.floor(y * ratio)
    shifted = x + 0.5 * (np.int64(row) & 1)
    column = np.floor(shifted)
    u, v = shifted - column, (y * ratio - row) / ratio
    gap = min(min(u, 1 - u), min(v, 1 / ratio - v))
    mortar = 1 - _sharpen(gap - 0.035, 0.015 + footprint)
    shade = 0.6 * uniform_at(np.int64(column), np.int64(row), np.int64(np.floor(z + 0.5)), seed)
    return max(mortar, shade)


@kernel()
def _speckle(x, y, z, footprint, seed):
    """Grains of random shades and sizes around one point in each cell (Worley 1996)."""
    i, j, k = np.int64(np.floor(x)), np.int64(np.floor(y)), np.int64(np.floor(z))
    nearest, shade = 9.0, 0.0
    for a in range(i - 1, i + 2):
        for b in range(j - 1, j + 2):
            for c in range(k - 1, k + 2):
                px = a + uniform_at(a, b, c, seed) - x
                py = b + uniform_at(a, b, c, seed + 1) - y
                pz = c + uniform_at(a, b, c, seed + 2) - z
                size = 0.25 + uniform_at(a, b, c, seed + 3)
                distance = np.sqrt(px * px + py * py + pz * pz) / size
                if distance < nearest:
                    nearest, shade = distance, uniform_at(a, b, c, seed + 4)
    return shade * (1 - _sharpen(nearest - 0.7, 0.08 + footprint)) + 0.5 * _sharpen(nearest - 0.7, 0.08 + footprint)


@kernel()
def _print(x, y, z, footprint, seed):
    """A poster or a label: blocks of lines of writing, and of pictures of disks and bars, on a grid with gaps."""
    i, j = np.int64(np.floor(x)), np.int64(np.floor(y))
    face = np.int64(np.floor(z + 0.5))
    u, v = x - i, y - j
    kind = uniform_at(i, j, face, seed)
    if min(min(u, 1 - u), min(v, 1 - v)) < 0.06:
        return 0.0
    if kind < 0.45:  # writing
        rows = 5 + 4 * np.floor(3 * uniform_at(i, j, face, seed + 1))
        row = np.floor(v * rows)
        column = np.floor(u * rows * 2.5)
        inside = abs(v * rows - row - 0.5) < 0.28
        inked = uniform_at(np.int64(column), np.int64(row), i * 131 + j, seed + 2) < 0.72
        visible = min(1.0, max(0.0, 2.0 - 2.0 * footprint * rows * 2.5))
        return visible * (1.0 if inside and inked else 0.05) + (1 - visible) * 0.45
    if kind < 0.8:  # disks in disks
        du = u - 0.3 - 0.4 * uniform_at(i, j, face, seed + 3)
        dv = v - 0.3 - 0.4 * uniform_at(i, j, face, seed + 4)
        ring = np.floor(np.sqrt(du * du + dv * dv) * (5 + 6 * uniform_at(i, j, face, seed + 5)))
        return uniform_at(i, j, np.int64(ring), seed + 6)
    slant = uniform_at(i, j, face, seed + 7) - 0.5
    bar = np.floor((u + slant * v) * (4 + 6 * uniform_at(i, j, face, seed + 8)))
    return uniform_at(i, np.int64(bar), j, seed + 9)


@kernel()
def _wood(x, y, z, warp, footprint, seed):
    """Growth rings along z, drawn out grain, and pores."""
    bend = 0.35 * octave_noise(0.7 * x, 0.7 * y, 0.15 * z, 3, 0.5, footprint, seed)
    radius = np.sqrt((x + 1.7) ** 2 + (0.6 * y - 0.4) ** 2) + warp * bend
    ring = 3 * radius - np.floor(3 * radius)
    visible = min(1.0, max(0.0, 2.0 - 6.0 * footprint))
    grain = octave_noise(14 * x, 14 * y, 0.7 * z, 3, 0.6, 14 * footprint, seed + 7)
    return 0.45 + visible * 0.4 * (ring * ring - 0.35) + 0.3 * grain


@kernel()
def sample_albedo(materials, m, x, y, z, footprint):
    """Return the albedo (linear RGB) of material ``m`` at coordinates in units of length."""
    kind, scale, seed = np.int64(materials[m, KIND]), materials[m, SCALE], np.int64(materials[m, SEED])
    x, y, z, footprint = x * scale, y * scale, z * scale, footprint * scale
    warp = materials[m, WARP]
    if warp > 0 and kind != WOOD:
        x += warp * octave_noise(x + 5.2, y, z, 1, 0.5, footprint, seed + 50)
        y += warp * octave_noise(x, y + 9.1, z, 1, 0.5, footprint, seed + 60)
    if kind == CHECKER:
        t = _checker(x, y, z, seed)
    elif kind == STRIPES:
        phase = x + 0.35 * y
        t = _sharpen(np.sin(2 * np.pi * phase) * min(1.0, max(0.0, 2 - 4 * footprint)), 0.6)
        t = 0.75 * t + 0.25 * uniform_at(np.int64(np.floor(2 * phase)), 0, 0, seed)
    elif kind == BRICKS:
        t = _bricks(x, y, z, materials[m, RATIO], footprint, seed)
    elif kind == SPECKLE:
        t = _speckle(x, y, z, footprint, seed)
    elif kind == PRINT:
        t = _print(x, y, z, footprint, seed)
    elif kind == WOOD:
        t = _wood(x, y, z, warp, footprint, seed)
    elif kind == LEAF:  # x along the leaf, y across, z its number
        vein = abs(y) + 0.12 * np.sin(40 * x + 18 * abs(y)) * min(1.0, max(0.0, 2 - 12 * footprint))
        t = 0.75 * uniform_at(np.int64(np.floor(z + 0.5)), 1, 2, seed) + 0.25 * _sharpen(0.12 - vein, 0.1)
    else:
        t = 0.5 + materials[m, CONTRAST] * octave_noise(x, y, z, 4, 0.55, footprint, seed)
    r, g, b = _blend(materials, m, t)
    detail = materials[m, DETAIL]
    if detail > 0:
        coarse = octave_noise(0.45 * x + 3, 0.45 * y, 0.45 * z, 2, 0.6, 0.45 * footprint, seed + 20)
        fine = octave_noise(5 * x, 5 * y, 5 * z + 7, 3, 0.7, 5 * footprint, seed + 30)
        gain = max(0.15, 1 + detail * (0.8 * coarse + 1.2 * fine))
        r, g, b = r * gain, g * (gain + 0.06 * detail * coarse), b * (gain - 0.06 * detail * coarse)
    return min(r, 0.95), min(g, 0.95), min(b, 0.95)
