"""Sort Gaussians by depth, assign them to the tiles and blocks that they touch, and split the tiles among threads.

Visible Gaussians are copied to records in their original order, and sorted by depth once (radix sort). A stable
counting sort then assigns them, nearest first, to the 16x16 tiles that their ellipse of alpha >= 1/255 touches, so that
the list of every tile is sorted. A tile is 4x4 blocks of 4x4 pixels; in each list entry, bits say which blocks the
ellipse touches.
"""

from __future__ import annotations

import numpy as np
from numba import float32, prange, uint64

from splatfix.jit import bits_from_float, kernel
from splatfix.rendering.cpu.lanes import (
    LANES,
    allocate_aligned,
    count_bits,
    load,
    maximum,
    minimum,
    prefetch,
    select,
    square_root,
    store,
)

TILE = 16  # px
SHIFT = 4  # pixel >> SHIFT is its tile
PIXELS = TILE * TILE
BLOCK = 4  # px; a block is one vector
BLOCKS = 16  # of a tile: one bit each, the lowest bits of an entry
BLOCK_BITS = np.uint64((1 << BLOCKS) - 1)

# One record per visible Gaussian, float32. Exponents are base 2: alpha = 2^(LOG_OPACITY - u^2 - v^2) with
# u = U_X dx + U_Y dy and v = V_Y dy (the conic's Cholesky factor). At height y from its center the ellipse of
# alpha = 1/255 spans SLOPE y -+ RATIO sqrt(HALF_HEIGHT^2 - y^2); it is furthest right at y = RIGHTMOST.
X, Y, U_X, U_Y, V_Y, LOG_OPACITY, RED, GREEN, BLUE, DEPTH, SLOPE, RATIO, HALF_WIDTH, HALF_HEIGHT, RIGHTMOST = range(15)
RECORD = 16  # padded to a cache line

LOG2_E = 1.4426950408889634
LOG2_255 = 7.994353436858858
SLACK = np.float32(0.01)  # px by which ellipses are widened, for rounding
ZERO, ONE, THREE = np.float32(0), np.float32(1), np.float32(3)
HALF, QUARTER = np.float32(0.5), np.float32(0.25)
AHEAD = 12  # records: how far ahead of their use they are prefetched
ALMOST_ONE = np.float32(1 - 1e-5)
STRIPS = np.arange(LANES, dtype=np.float32) * np.float32(BLOCK)  # tops of 16 strips of one block's height
FAR_RIGHT = np.float32(1 << 20)  # a block column beyond any image


@kernel()
def sort_by_depth(depths, radii):
    """Return the indices of visible Gaussians, ``visible [V]``, ascending, and ``order [V]`` into it, nearest first.

    Both are int32. Ties keep the order of the Gaussians. Radix sort of the float bits.
    """
    n = len(depths)
    count = 0
    for i in range(n):
        count += radii[i, 0] > 0
    visible = np.empty(count, np.int32)
    keys, ids = np.empty(count, np.uint32), np.empty(count, np.int32)
    other_keys, other_ids = np.empty(count, np.uint32), np.empty(count, np.int32)
    counts = np.zeros((3, 2048), np.int64)
    v = 0
    for i in range(n):
        if radii[i, 0] > 0:
            # depths are positive, so their bits have the same order
            key = bits_from_float(depths[i])  # type: ignore[call-arg, var-annotated]
            keys[v], ids[v], visible[v] = key, v, i
            counts[0, key & np.uint32(2047)] += 1
            counts[1, (key >> np.uint32(11)) & np.uint32(2047)] += 1
            counts[2, key >> np.uint32(22)] += 1
            v += 1
    for digit in range(3):
        place = 0
        for j in range(2048):
            num_here = counts[digit, j]
            counts[digit, j] = place
            place += num_here
        shift = np.uint32(11 * digit)
        for j in range(count):
            key = keys[j]
            bucket = (key >> shift) & np.uint32(2047)
            place = counts[digit, bucket]
            counts[digit, bucket] = place + 1
            other_keys[place], other_ids[place] = key, ids[j]
        keys, other_keys = other_keys, keys
        ids, other_ids = other_ids, ids
    return visible, ids


@kernel()
def _pixel_range(center, half, size):
    """Find the first and last (inclusive) of ``size`` pixels with centers within ``half`` and a slack of ``center``."""
    first = max(float32(0), np.ceil(center - half - HALF - SLACK))
    last = min(float32(size) - float32(1), np.floor(center + half - HALF + SLACK))
    if not first <= last:
        return 0, -1
    return int(first), int(last)


@kernel(parallel=True)
def pack_records(visible, means2d, conics, depths, opacities, colors, radii, width, height, num_threads):
    """Copy the visible Gaussians to records.

    Returns ``records [V, 16]`` and ``capacities [V]``, the number of tiles that the box around each ellipse touches.
    """
    v = len(visible)
    records = allocate_aligned(v * RECORD).reshape((v, RECORD))
    capacities = np.empty(v, np.int64)
    for thread in prange(num_threads):
        for j in range(v * thread // num_threads, v * (thread + 1) // num_threads):
            i = visible[j]
            a, b, c = 0.5 * LOG2_E * conics[i, 0], 0.5 * LOG2_E * conics[i, 1], 0.5 * LOG2_E * conics[i, 2]
            log_opacity = np.log2(np.float64(opacities[i]))
            records[j, X], records[j, Y] = means2d[i, 0], means2d[i, 1]
            records[j, LOG_OPACITY] = log_opacity
            records[j, RED], records[j, GREEN], records[j, BLUE] = colors[i, 0], colors[i, 1], colors[i, 2]
            records[j, DEPTH] = depths[i]
            limit = max(0.0, log_opacity + LOG2_255)
            determinant = a * c - b * b
            records[j, U_X], records[j, U_Y] = np.sqrt(a), b / np.sqrt(a)
            records[j, V_Y] = np.sqrt(max(determinant, 0.0) / a)
            if determinant > 1e-6 * a * c:
                records[j, SLOPE], records[j, RATIO] = -b / a, np.sqrt(determinant) / a
                records[j, HALF_WIDTH] = np.sqrt(c * limit / determinant)
                records[j, HALF_HEIGHT] = np.sqrt(a * limit / determinant)
                records[j, RIGHTMOST] = -b * np.sqrt(limit / (c * determinant))
            else:  # too thin for these formulas: the whole box
                records[j, SLOPE], records[j, RATIO], records[j, RIGHTMOST] = 0, 1e9, 0
                records[j, HALF_WIDTH], records[j, HALF_HEIGHT] = radii[i, 0] + 1, radii[i, 1] + 1
            left, right = _pixel_range(records[j, X], records[j, HALF_WIDTH], width)
            top, bottom = _pixel_range(records[j, Y], records[j, HALF_HEIGHT], height)
            capacities[j] = ((right >> SHIFT) - (left >> SHIFT) + 1) * ((bottom >> SHIFT) - (top >> SHIFT) + 1)
    return records, capacities


@kernel()
def split_work(work, num_threads):
    """Split a list into ``num_threads`` runs of about equal work: int64 ``[num_threads + 1]`` borders."""
    overhead = 4  # cost of an entry without work
    total = 0
    for i in range(len(work)):
        total += work[i] + overhead
    borders = np.full(num_threads + 1, len(work), np.int64)
    borders[0] = 0
    done, thread = 0, 1
    for i in range(len(work)):
        while thread < num_threads and done * num_threads >= total * thread:
            borders[thread] = i
            thread += 1
        done += work[i] + overhead
    return borders


@kernel()
def _write_spans(record, first_strip, last_block, spans):
    """Write the first and last block column that the ellipse touches in 16 strips of 4 rows into ``spans [2 * 16]``.

    They are not yet rounded. The caller rounds down; the last one is already increased by 1, so that it is exclusive.
    """
    x, slope, ratio, half_height = record[X], record[SLOPE], record[RATIO], record[HALF_HEIGHT]
    low = load(STRIPS, uint64(0)) + (float32(BLOCK * first_strip) + HALF - record[Y] - SLACK)
    high = low + (THREE + SLACK + SLACK)
    y = maximum(minimum(high, record[RIGHTMOST]), low)
    root = (half_height - y) * (half_height + y)
    right = slope * y + ratio * square_root(maximum(root, ZERO))
    y = maximum(minimum(high, -record[RIGHTMOST]), low)
    left = slope * y - ratio * square_root(maximum((half_height - y) * (half_height + y), ZERO))
    left, right = maximum(left, -record[HALF_WIDTH]), minimum(right, record[HALF_WIDTH])
    # pixel p of block k has its center at 4 k + p + 0.5
    start = maximum((left + (x - HALF - SLACK - THREE)) * QUARTER + ALMOST_ONE, ZERO)
    end = minimum((right + (x - HALF + SLACK)) * QUARTER + ONE, last_block + ONE)
    store(spans, uint64(0), select(root >= ZERO, start, FAR_RIGHT))
    store(spans, uint64(LANES), select(root >= ZERO, maximum(end, ZERO), ZERO))


@kernel()
def _touched_columns(start, end, tile_x):
    """Return bits for the four block columns of a tile that are within ``start`` to ``end`` of the image's."""
    first, last = min(max(start - 4 * tile_x, 0), 4), min(max(end - 4 * tile_x, 0), 4)
    return (15 << first) & (15 >> (4 - last)) & 15


@kernel()
def _write_entries(records, order, first, last, width, height, place, unsorted, tiles, counts, works):
    """Write the entries of ``order[first:last]`` and their tiles from ``place`` on; return the place after them."""
    tiles_x, last_block = (width + TILE - 1) // TILE, float32((width - 1) // BLOCK)
    spans, borders = np.empty(2 * LANES, np.float32), np.empty(8, np.int64)
    flat = records.reshape(-1)
    for k in range(first, last):
        prefetch(flat, uint64(order[min(k + AHEAD, last - 1)]) * uint64(RECORD))  # records are not in this order
        j = order[k]
        top, bottom = _pixel_range(records[j, Y], records[j, HALF_HEIGHT], height)
        west, east = _pixel_range(records[j, X], records[j, HALF_WIDTH], width)
        strip = 0
        for tile_y in range(top >> SHIFT, (bottom >> SHIFT) + 1):
            if strip & (LANES - 1) == 0:
                _write_spans(records[j], 4 * tile_y, last_block, spans)
                strip = 0
            left, right = int(FAR_RIGHT), 0
            for row in range(4):
                start, end = int(spans[strip + row]), int(spans[strip + row + LANES])
                borders[row], borders[row + 4] = start, end
                left, right = min(left, start), max(right, end)
            strip += 4
            # only within the box that the capacity was counted from: rounding may reach a tile beside it
            for tile_x in range(max(left >> 2, west >> SHIFT), min((right + 3) >> 2, (east >> SHIFT) + 1)):
                blocks = 0
                for row in range(4):
                    blocks |= _touched_columns(borders[row], borders[row + 4], tile_x) << (4 * row)
                # without any blocks, the next entry overwrites this one
                tile, some = tile_y * tiles_x + tile_x, int(blocks != 0)
                unsorted[place] = uint64(j) << uint64(BLOCKS) | uint64(blocks)
                tiles[place] = tile
                counts[tile] += some
                works[tile] += count_bits(uint64(blocks))
                place += some
    return place


@kernel()
def _scatter(unsorted, tiles, first, last, places, entries):
    """Copy ``unsorted`` entries to the next places of their tiles."""
    for k in range(first, last):
        entries[places[tiles[k]]] = unsorted[k]
        places[tiles[k]] += 1


@kernel(parallel=True)
def assign_to_tiles(records, order, capacities, width, height, num_threads):
    """Assign the records, in their ``order``, to the tiles of a ``width`` by ``height`` image.

    Returns ``entries`` (uint64: record number << 16 | blocks touched, bit 4 row + column), ``starts [tiles + 1]`` into
    it, and ``work [tiles]``, the number of blocks to draw. Each thread handles one run of the order.
    """
    num_tiles = ((width + TILE - 1) // TILE) * ((height + TILE - 1) // TILE)
    capacities = capacities[order]
    borders = split_work(capacities, num_threads)
    first_places = np.zeros(num_threads + 1, np.int64)
    for thread in range(num_threads):
        first_places[thread + 1] = first_places[thread] + 1  # one more: a run's last write may be an empty entry
        for j in range(borders[thread], borders[thread + 1]):
            first_places[thread + 1] += capacities[j]
    unsorted, tiles = np.empty(first_places[num_threads], np.uint64), np.empty(first_places[num_threads], np.int32)
    ends = np.zeros(num_threads, np.int64)
    counts, works = np.zeros((num_threads, num_tiles), np.int64), np.zeros((num_threads, num_tiles), np.int64)
    for thread in prange(num_threads):
        ends[thread] = _write_entries(
            records, order, borders[thread], borders[thread + 1], width, height, first_places[thread],
            unsorted, tiles, counts[thread], works[thread],
        )  # fmt: skip
    starts, work = np.zeros(num_tiles + 1, np.int64), np.zeros(num_tiles, np.int64)
    place = 0
    for tile in range(num_tiles):
        starts[tile] = place
        for thread in range(num_threads):
            num_here = counts[thread, tile]
            counts[thread, tile] = place
            place += num_here
            work[tile] += works[thread, tile]
    starts[num_tiles] = place
    entries = np.empty(place, np.uint64)
    for thread in prange(num_threads):
        _scatter(unsorted, tiles, first_places[thread], ends[thread], counts[thread], entries)
    return entries, starts, work
