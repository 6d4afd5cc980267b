"""Alpha compositing of sorted Gaussians, tile by tile, forward and backward.

The inner loops run over the contiguous pixels of the tile rows that a Gaussian reaches, without branches, so that the
compiler turns each tile row into one vector. A pixel that is finished (transmittance would fall to 1e-4) has its
transmittance stored negative. The backward pass replays the forward one front to back; all it carries per pixel is one
scalar, the part of (image . its gradient) that lies behind the current Gaussian. Each thread sums gradients in its own
buffer: no atomics, and the same result for the same number of threads.
"""

from __future__ import annotations

import numpy as np
from numba import float32, int32, prange, uint64

from splatfix.rendering.cpu.compile import REORDERED, float_from_bits, kernel
from splatfix.rendering.cpu.tiles import (
    BLUE,
    DEPTH,
    GREEN,
    LOG2_255,
    LOG_OPACITY,
    PIXELS,
    RED,
    TILE,
    A,
    B,
    C,
    X,
    Y,
)

MAX_ALPHA = np.float32(0.999)
MIN_POWER = np.float32(-LOG2_255)  # alpha = 1/255
MIN_TRANSMITTANCE = np.float32(1e-4)
ZERO, ONE = np.float32(0), np.float32(1)
CHECK_EVERY = 8  # Gaussians between two looks at whether the tile is finished

# sections of the flat state of a tile: one array, so that the compiler knows they do not overlap
S1, S2, S3, S4, S5, S6, S7 = (np.uint64(k * PIXELS) for k in range(1, 8))
SUMS = 10  # gradients per Gaussian: red, green, blue, depth, and the moments 1, x, y, xx, xy, yy of d(-log alpha)

# 2^f for -1 < f <= 0, relative error 7.5e-8 (minimax)
P5, P4, P3 = np.float32(9.387882783431852e-04), np.float32(9.18861158039358e-03), np.float32(5.527972244439845e-02)
P2, P1, P0 = np.float32(0.24017218919713254), np.float32(0.6931422525863054), np.float32(0.9999999250633685)


@kernel(fastmath=REORDERED)
def _exp2(x):
    """``2 ** x`` for ``-126 <= x <= 0`` in float32."""
    whole = int32(x)
    f = x - float32(whole)
    power = P0 + f * (P1 + f * (P2 + f * (P3 + f * (P4 + f * P5))))
    return power * float_from_bits(int32((whole + int32(127)) << int32(23)))  # type: ignore[call-arg]


@kernel(fastmath=REORDERED)
def _blend(state, first, last, x, y, a, b, c, log_opacity, red, green, blue, depth):
    """Composite one Gaussian over the pixels ``first`` to ``last`` (exclusive) of a tile.

    ``state`` holds transmittance, red, green, blue, depth, and the pixel centres' x and y within the tile.
    """
    for p in range(first, last):
        dx, dy = state[p + S5] - x, state[p + S6] - y
        q = dx * (a * dx + b * dy) + c * dy * dy
        power = log_opacity - q
        raw = _exp2(power)  # anything where power is out of range; not used there
        alpha = min(raw, MAX_ALPHA) if (power >= MIN_POWER) & (q >= ZERO) else ZERO
        t = state[p]
        after = t - t * alpha
        live = after > MIN_TRANSMITTANCE
        weight = t * alpha if live else ZERO
        state[p] = after if live else -abs(t)
        state[p + S1] += weight * red
        state[p + S2] += weight * green
        state[p + S3] += weight * blue
        state[p + S4] += weight * depth


@kernel(fastmath=REORDERED)
def _blend_backward(state, first, last, x, y, a, b, c, log_opacity, red, green, blue, depth):
    """Replay one Gaussian and sum its gradients over the pixels ``first`` to ``last`` (exclusive).

    ``state`` holds transmittance, what lies behind, the gradients of red, green, blue and depth, and the centres.
    """
    s_red = s_green = s_blue = s_depth = ZERO
    s_1 = s_x = s_y = s_xx = s_xy = s_yy = ZERO
    for p in range(first, last):
        dx, dy = state[p + S6] - x, state[p + S7] - y
        q = dx * (a * dx + b * dy) + c * dy * dy
        power = log_opacity - q
        raw = _exp2(power)  # anything where power is out of range; not used there
        alpha = min(raw, MAX_ALPHA) if (power >= MIN_POWER) & (q >= ZERO) else ZERO
        t = state[p]
        after = t - t * alpha
        live = after > MIN_TRANSMITTANCE
        weight = t * alpha if live else ZERO
        state[p] = after if live else -abs(t)
        d_red, d_green, d_blue, d_depth = state[p + S2], state[p + S3], state[p + S4], state[p + S5]
        along = red * d_red + green * d_green + blue * d_blue + depth * d_depth
        behind = state[p + S1] - weight * along
        state[p + S1] = behind
        d_alpha = t * along - behind / (ONE - alpha)
        smooth = alpha if live & (raw <= MAX_ALPHA) else ZERO
        d_q = -smooth * d_alpha
        s_red += weight * d_red
        s_green += weight * d_green
        s_blue += weight * d_blue
        s_depth += weight * d_depth
        s_1 += d_q
        s_x += d_q * dx
        s_y += d_q * dy
        s_xx += d_q * dx * dx
        s_xy += d_q * dx * dy
        s_yy += d_q * dy * dy
    return s_red, s_green, s_blue, s_depth, s_1, s_x, s_y, s_xx, s_xy, s_yy


@kernel(fastmath=REORDERED)
def _unfinished(state):
    """Whether any pixel of the tile still lets light through."""
    count = int32(0)
    for p in range(uint64(0), uint64(PIXELS)):
        count += int32(1) if state[p] > ZERO else int32(0)
    return count > 0


@kernel()
def _write_centres(state, section):
    """Pixel centres within a tile, x into ``section`` and y into the one after."""
    for p in range(PIXELS):
        state[section * PIXELS + p] = p % TILE + 0.5
        state[(section + 1) * PIXELS + p] = p // TILE + 0.5


@kernel(parallel=True)
def composite(records, entries, starts, stops, borders, width, height, background, rgb, alpha, depth, reached):
    """Draw one image: ``rgb [H, W, 3]`` over ``background [3]``, ``alpha [H, W]``, expected ``depth [H, W]``.

    ``records``, ``entries``, ``starts`` and ``stops`` as made by ``tiles``; ``borders`` cuts the tiles into one run
    per thread. ``reached [tiles]`` gets the end of the entries that were looked at before the tile was finished.
    """
    tiles_x = (width + TILE - 1) // TILE
    for thread in prange(len(borders) - 1):
        state = np.empty(7 * PIXELS, np.float32)
        _write_centres(state, 5)
        for tile in range(borders[thread], borders[thread + 1]):
            x0, y0 = tile % tiles_x * TILE, tile // tiles_x * TILE
            columns, rows = min(TILE, width - x0), min(TILE, height - y0)
            state[: 5 * PIXELS] = 0
            for row in range(rows):
                state[row * TILE : row * TILE + columns] = 1
            e = starts[tile]
            while e < stops[tile]:
                for k in range(e, min(e + CHECK_EVERY, stops[tile])):
                    entry = entries[k]
                    j = uint64(entry >> 8)
                    first, last = uint64((entry >> 4) & 15) * uint64(TILE), uint64((entry & 15) + 1) * uint64(TILE)
                    _blend(
                        state, first, last, records[j, X] - float32(x0), records[j, Y] - float32(y0),
                        records[j, A], records[j, B], records[j, C], records[j, LOG_OPACITY],
                        records[j, RED], records[j, GREEN], records[j, BLUE], records[j, DEPTH],
                    )  # fmt: skip
                e = min(e + CHECK_EVERY, stops[tile])
                if not _unfinished(state):
                    break
            reached[tile] = e
            for row in range(rows):
                for column in range(columns):
                    p = row * TILE + column
                    left = abs(state[p])
                    rgb[y0 + row, x0 + column, 0] = state[p + PIXELS] + left * background[0]
                    rgb[y0 + row, x0 + column, 1] = state[p + 2 * PIXELS] + left * background[1]
                    rgb[y0 + row, x0 + column, 2] = state[p + 3 * PIXELS] + left * background[2]
                    alpha[y0 + row, x0 + column] = ONE - left
                    depth[y0 + row, x0 + column] = state[p + 4 * PIXELS] / (ONE - left) if left < ONE else ZERO


@kernel(parallel=True)
def composite_backward(
    records, entries, starts, reached, borders, width, height, rgb, alpha, depth, d_rgb, d_alpha, d_depth, sums
):
    """Gradients of ``composite``, summed into ``sums [threads, V, 10]`` (zero before).

    ``rgb``, ``alpha`` and ``depth`` are the images that it drew, ``d_*`` their gradients.
    """
    tiles_x = (width + TILE - 1) // TILE
    for thread in prange(len(borders) - 1):
        state = np.empty(8 * PIXELS, np.float32)
        _write_centres(state, 6)
        for tile in range(borders[thread], borders[thread + 1]):
            if reached[tile] == starts[tile]:
                continue
            x0, y0 = tile % tiles_x * TILE, tile // tiles_x * TILE
            state[: 6 * PIXELS] = 0
            for row in range(min(TILE, height - y0)):
                for column in range(min(TILE, width - x0)):
                    p, v, u = row * TILE + column, y0 + row, x0 + column
                    covered = alpha[v, u]
                    d_depth_sum = d_depth[v, u] / covered if covered > 0 else ZERO
                    d_covered = d_alpha[v, u] - d_depth_sum * depth[v, u]
                    behind = depth[v, u] * d_depth[v, u] - (ONE - covered) * d_covered
                    for k in range(3):
                        behind += rgb[v, u, k] * d_rgb[v, u, k]
                    state[p] = 1
                    state[p + PIXELS] = behind
                    state[p + 2 * PIXELS] = d_rgb[v, u, 0]
                    state[p + 3 * PIXELS] = d_rgb[v, u, 1]
                    state[p + 4 * PIXELS] = d_rgb[v, u, 2]
                    state[p + 5 * PIXELS] = d_depth_sum
            for e in range(starts[tile], reached[tile]):
                entry = entries[e]
                j = uint64(entry >> 8)
                first, last = uint64((entry >> 4) & 15) * uint64(TILE), uint64((entry & 15) + 1) * uint64(TILE)
                found = _blend_backward(
                    state, first, last, records[j, X] - float32(x0), records[j, Y] - float32(y0),
                    records[j, A], records[j, B], records[j, C], records[j, LOG_OPACITY],
                    records[j, RED], records[j, GREEN], records[j, BLUE], records[j, DEPTH],
                )  # fmt: skip
                for k in range(SUMS):
                    sums[thread, j, k] += found[k]


@kernel(parallel=True)
def gather(order, sums, conics, opacities, num_threads, d_means2d, d_conics, d_depths, d_opacities, d_colours):
    """Add up the threads' ``sums`` and write the gradients of what was drawn, at the Gaussians' own places ``[N, .]``.

    With ``sigma = -log(alpha / opacity)``, the moments are those of ``d sigma``, around the mean (pixel minus mean).
    """
    v = len(order)
    for thread in prange(num_threads):
        for j in range(v * thread // num_threads, v * (thread + 1) // num_threads):
            i = order[j]
            for k in range(1, len(sums)):
                for m in range(SUMS):
                    sums[0, j, m] += sums[k, j, m]
            for m in range(3):
                d_colours[i, m] = sums[0, j, m]
            d_depths[i] = sums[0, j, 3]
            one, x, y = sums[0, j, 4], sums[0, j, 5], sums[0, j, 6]
            d_opacities[i] = -one / opacities[i]
            d_means2d[i, 0] = -(conics[i, 0] * x + conics[i, 1] * y)
            d_means2d[i, 1] = -(conics[i, 1] * x + conics[i, 2] * y)
            d_conics[i, 0] = float32(0.5) * sums[0, j, 7]
            d_conics[i, 1] = sums[0, j, 8]
            d_conics[i, 2] = float32(0.5) * sums[0, j, 9]
