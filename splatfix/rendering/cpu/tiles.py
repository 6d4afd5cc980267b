"""Which Gaussians reach which tile, in order of depth, and how the tiles are shared among threads.

Visible Gaussians are sorted by depth once (radix sort) and copied into records in that order; a stable counting sort
then deals them out to the 16x16 tiles that their ellipse of alpha >= 1/255 touches, so every tile's list is sorted.
Each list entry also holds the tile rows that the ellipse reaches.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from splatfix.rendering.cpu.compile import bits_from_float, kernel

TILE = 16  # px; rows of a tile are packed into 4 bits
SHIFT = 4  # pixel >> SHIFT is its tile
PIXELS = TILE * TILE
MAX_VISIBLE = 1 << 24  # list entries hold 24 bits of record number

# One record per visible Gaussian, float32. Exponents are base 2: alpha = 2^(LOG_OPACITY - A dx^2 - B dx dy - C dy^2).
X, Y, A, B, C, LOG_OPACITY, RED, GREEN, BLUE, DEPTH = range(10)
RECORD = 12  # padded

LOG2_E = 1.4426950408889634
LOG2_255 = 7.994353436858858
SLACK = 0.01  # px by which ellipses are widened, for rounding


@kernel()
def depth_order(depths, radii):
    """Indices of the visible Gaussians from near to far, ties by index: int32 ``[V]``. Radix sort of the float bits."""
    n = len(depths)
    count = 0
    for i in range(n):
        count += radii[i, 0] > 0
    keys, ids = np.empty(count, np.uint32), np.empty(count, np.int32)
    other_keys, other_ids = np.empty(count, np.uint32), np.empty(count, np.int32)
    counts = np.zeros((3, 2048), np.int64)
    v = 0
    for i in range(n):
        if radii[i, 0] > 0:
            # depths are positive: their bits sort as they do
            key = bits_from_float(depths[i])  # type: ignore[call-arg, var-annotated]
            keys[v], ids[v] = key, i
            counts[0, key & np.uint32(2047)] += 1
            counts[1, (key >> np.uint32(11)) & np.uint32(2047)] += 1
            counts[2, key >> np.uint32(22)] += 1
            v += 1
    for digit in range(3):
        place = 0
        for j in range(2048):
            here = counts[digit, j]
            counts[digit, j] = place
            place += here
        shift = np.uint32(11 * digit)
        for j in range(count):
            key = keys[j]
            bucket = (key >> shift) & np.uint32(2047)
            place = counts[digit, bucket]
            counts[digit, bucket] = place + 1
            other_keys[place], other_ids[place] = key, ids[j]
        keys, other_keys = other_keys, keys
        ids, other_ids = other_ids, ids
    return ids


@kernel()
def _pixels(centre, low, high, size):
    """First and last (inclusive) of ``size`` pixels with centres within ``centre + [low, high]``, a bit widened."""
    first = max(0.0, np.ceil(centre + low - 0.5 - SLACK))
    last = min(size - 1.0, np.floor(centre + high - 0.5 + SLACK))
    if not first <= last:
        return 0, -1
    return int(first), int(last)


@kernel(parallel=True)
def pack(order, means2d, conics, depths, opacities, colours, radii, width, height, num_threads):
    """Copy the visible Gaussians out, in order of depth.

    Returns ``records [V, 12]`` for drawing; ``boxes [V, 4]`` (int32: first and last column, first and last row, in px);
    and ``ellipses [V, 9]`` (float64, see ``_write_ellipse``) of alpha = 1/255.
    """
    v = len(order)
    records = np.empty((v, RECORD), np.float32)
    boxes = np.empty((v, 4), np.int32)
    ellipses = np.empty((v, 9), np.float64)
    for thread in prange(num_threads):
        for j in range(v * thread // num_threads, v * (thread + 1) // num_threads):
            i = order[j]
            x, y, radius_x, radius_y = means2d[i, 0], means2d[i, 1], radii[i, 0], radii[i, 1]
            records[j, X], records[j, Y] = x, y
            records[j, A] = 0.5 * LOG2_E * conics[i, 0]
            records[j, B] = LOG2_E * conics[i, 1]
            records[j, C] = 0.5 * LOG2_E * conics[i, 2]
            records[j, LOG_OPACITY] = np.log2(np.float64(opacities[i]))
            records[j, RED], records[j, GREEN], records[j, BLUE] = colours[i, 0], colours[i, 1], colours[i, 2]
            records[j, DEPTH] = depths[i]
            boxes[j, 0], boxes[j, 1] = _pixels(np.float64(x), -radius_x, radius_x, width)
            boxes[j, 2], boxes[j, 3] = _pixels(np.float64(y), -radius_y, radius_y, height)
            if boxes[j, 0] >> SHIFT != boxes[j, 1] >> SHIFT or boxes[j, 2] >> SHIFT != boxes[j, 3] >> SHIFT:
                _write_ellipse(records, j, ellipses)
    return records, boxes, ellipses


@kernel()
def _write_ellipse(records, j, ellipses):
    """``a x^2 + 2 b x y + c y^2 <= limit`` around (x, y), ready for ``_extent``.

    Columns: x, y, b, determinant (0: too thin to trust, take the box), limit, a, c, the y at which the ellipse is
    furthest right, the x at which it is furthest down (both relative to the centre).
    """
    a, b, c = np.float64(records[j, A]), 0.5 * np.float64(records[j, B]), np.float64(records[j, C])
    limit = max(0.0, np.float64(records[j, LOG_OPACITY]) + LOG2_255)
    determinant = a * c - b * b
    ellipses[j, 0], ellipses[j, 1], ellipses[j, 2] = records[j, X], records[j, Y], b
    if determinant > 1e-6 * a * c:
        ellipses[j, 3], ellipses[j, 4], ellipses[j, 5], ellipses[j, 6] = determinant, limit, a, c
        ellipses[j, 7] = -b * np.sqrt(limit / (c * determinant))
        ellipses[j, 8] = -b * np.sqrt(limit / (a * determinant))
    else:
        ellipses[j, 3] = 0


@kernel()
def _extent(b, determinant, limit, c, furthest, low, high):
    """Range of ``t`` over the ellipse ``a s^2 + 2 b s t + c t^2 <= limit`` with ``low <= s <= high``.

    ``furthest`` is the ``s`` at which ``t`` is largest. Empty (0, -1) where the strip misses the ellipse.
    """
    s = min(max(furthest, low), high)
    root = c * limit - determinant * s * s
    if root < 0:
        return 0.0, -1.0
    top = -b * s + np.sqrt(root)
    s = min(max(-furthest, low), high)
    root = c * limit - determinant * s * s
    if root < 0:
        return 0.0, -1.0
    inverse = 1 / c
    return (-b * s - np.sqrt(root)) * inverse, top * inverse


@kernel()
def _columns(ellipses, boxes, j, top, bottom, width):
    """First and last pixel column that record ``j`` reaches between the pixel rows ``top`` and ``bottom``."""
    first, last = boxes[j, 0], boxes[j, 1]
    determinant = ellipses[j, 3]
    if determinant > 0:
        x, low, high = ellipses[j, 0], top + 0.5 - ellipses[j, 1] - SLACK, bottom + 0.5 - ellipses[j, 1] + SLACK
        left, right = _extent(ellipses[j, 2], determinant, ellipses[j, 4], ellipses[j, 5], ellipses[j, 7], low, high)
        start, end = _pixels(x, left, right, width)
        first, last = max(first, start), min(last, end)
    return first, last


@kernel()
def _rows(ellipses, boxes, j, left, top, height):
    """First and last row, counted from ``top``, that record ``j`` reaches in the tile at pixel (``left``, ``top``)."""
    first, last = max(boxes[j, 2], top), min(boxes[j, 3], top + TILE - 1)
    determinant = ellipses[j, 3]
    if determinant > 0:
        y, low, high = ellipses[j, 1], left + 0.5 - ellipses[j, 0] - SLACK, left + TILE - 0.5 - ellipses[j, 0] + SLACK
        up, down = _extent(ellipses[j, 2], determinant, ellipses[j, 4], ellipses[j, 6], ellipses[j, 8], low, high)
        start, end = _pixels(y, up, down, height)
        first, last = max(first, start), min(last, end)
    return first - top, last - top


@kernel(parallel=True)
def deal(boxes, ellipses, width, height, num_threads):
    """Deal the records out to the tiles of a ``width`` by ``height`` image.

    Returns ``entries`` (uint32: record number << 8 | first row << 4 | last row), ``starts`` and ``stops [tiles]`` into
    it, and ``work [tiles]``, the number of tile rows to draw. Every thread fills its own rows of tiles, each in its own
    stretch of ``entries``, which may have gaps.
    """
    v = len(boxes)
    tiles_x, tiles_y = (width + TILE - 1) // TILE, (height + TILE - 1) // TILE
    room = np.zeros(tiles_y + 1, np.int64)  # where each row of tiles may begin in the lists
    for j in range(v):
        for tile_y in range(boxes[j, 2] >> SHIFT, (boxes[j, 3] >> SHIFT) + 1):
            room[tile_y + 1] += (boxes[j, 1] >> SHIFT) - (boxes[j, 0] >> SHIFT) + 1
    for tile_y in range(tiles_y):
        room[tile_y + 1] += room[tile_y]
    starts = np.zeros(tiles_x * tiles_y, np.int64)
    stops = np.zeros(tiles_x * tiles_y, np.int64)
    work = np.zeros(tiles_x * tiles_y, np.int64)
    entries, found = np.empty(room[tiles_y], np.uint32), np.empty(room[tiles_y], np.uint32)
    columns = np.empty(room[tiles_y], np.int32)  # of the tile of each found entry
    for thread in prange(num_threads):
        ends = room[:tiles_y].copy()
        for j in range(v):
            first, last = boxes[j, 2] >> SHIFT, boxes[j, 3] >> SHIFT
            small = first == last and boxes[j, 0] >> SHIFT == boxes[j, 1] >> SHIFT
            for tile_y in range(first + (thread - first) % num_threads, last + 1, num_threads):
                top = tile_y * TILE
                start, end = boxes[j, 0], boxes[j, 1]
                if not small:
                    bottom = min(top + TILE - 1, boxes[j, 3])
                    start, end = _columns(ellipses, boxes, j, max(top, boxes[j, 2]), bottom, width)
                    if start > end:
                        continue
                for tile_x in range(start >> SHIFT, (end >> SHIFT) + 1):
                    if small:
                        first_row, last_row = boxes[j, 2] - top, boxes[j, 3] - top
                    else:
                        first_row, last_row = _rows(ellipses, boxes, j, tile_x * TILE, top, height)
                    if first_row <= last_row:
                        found[ends[tile_y]] = np.uint32(j << 8 | first_row << 4 | last_row)
                        columns[ends[tile_y]] = tile_x
                        stops[tile_y * tiles_x + tile_x] += 1
                        work[tile_y * tiles_x + tile_x] += last_row - first_row + 1
                        ends[tile_y] += 1
        for tile_y in range(thread, tiles_y, num_threads):
            place = room[tile_y]
            for tile in range(tile_y * tiles_x, (tile_y + 1) * tiles_x):
                starts[tile] = place
                place += stops[tile]
                stops[tile] = starts[tile]
            for k in range(room[tile_y], ends[tile_y]):
                tile = tile_y * tiles_x + columns[k]
                entries[stops[tile]] = found[k]
                stops[tile] += 1
    return entries, starts, stops, work


@kernel()
def shares(work, num_threads):
    """Cut the tiles into ``num_threads`` runs of about equal work: int64 ``[num_threads + 1]`` borders."""
    overhead = 4  # a tile costs something even where it is empty
    total = 0
    for tile in range(len(work)):
        total += work[tile] + overhead
    borders = np.full(num_threads + 1, len(work), np.int64)
    borders[0] = 0
    done, thread = 0, 1
    for tile in range(len(work)):
        while thread < num_threads and done * num_threads >= total * thread:
            borders[thread] = tile
            thread += 1
        done += work[tile] + overhead
    return borders
