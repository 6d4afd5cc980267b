"""Alpha compositing of sorted Gaussians, tile by tile, forward and backward.

A tile is 16 blocks of 4x4 pixels, and a block is one vector (`lanes`): no branch depends on a pixel. The list of a tile
is processed in chunks. The forward pass processes a chunk block by block: it keeps the pixels of the block in registers
and loops over the Gaussians that reach it. The backward pass first repeats this to compute and store the weights
(transmittance times alpha). Then it processes the chunk Gaussian by Gaussian: it keeps the sums of the gradients in
registers and loops over the blocks that the Gaussian reaches. Its only state per pixel is one scalar, the part of
(image . its gradient) behind the current Gaussian. Blocks in which all pixels are finished (transmittance would fall to
1e-4) are skipped. Each thread sums gradients in a separate buffer: this needs no atomics, and the result is
deterministic for a number of threads.
"""

from __future__ import annotations

import numpy as np
from numba import float32, prange, uint64

from splatfix.jit import kernel
from splatfix.rendering.cpu.lanes import (
    LANES,
    allocate_aligned,
    bits,
    broadcast,
    exp2,
    load,
    lowest_bit,
    minimum,
    select,
    store,
    sum_lanes,
)
from splatfix.rendering.cpu.tiles import (
    BLOCK,
    BLOCK_BITS,
    BLOCKS,
    BLUE,
    DEPTH,
    GREEN,
    LOG2_255,
    LOG_OPACITY,
    PIXELS,
    RECORD,
    RED,
    TILE,
    U_X,
    U_Y,
    V_Y,
    X,
    Y,
)

MAX_ALPHA = np.float32(0.999)
MIN_POWER = np.float32(-LOG2_255)  # alpha = 1/255
MIN_TRANSMITTANCE = np.float32(1e-4)
ZERO, ONE = np.float32(0), np.float32(1)
# Gaussians per chunk; the backward pass stores two vectors for each of their blocks, which must fit the cache
FORWARD_CHUNK, BACKWARD_CHUNK = 64, 16
CHECK_EVERY = 8  # Gaussians between two checks whether a block is finished

# sections of the flat state of a tile; within a section pixels are ordered block by block
S1, S2, S3, S4, S5 = (np.uint64(k * PIXELS) for k in range(1, 6))
# gradients per Gaussian: red, green, blue, depth, and the moments 1, x, y, xx, xy, yy of d(-log alpha)
NUM_SUMS = LANES


def _pixel_centers(along_x: bool) -> np.ndarray:
    """Compute the pixel centers of a tile, block by block, along one axis: float32 ``[256]``."""
    blocks, lanes = np.divmod(np.arange(PIXELS), LANES)
    if along_x:
        return (BLOCK * (blocks % 4) + lanes % 4 + 0.5).astype(np.float32)
    return (BLOCK * (blocks // 4) + lanes // 4 + 0.5).astype(np.float32)


CENTERS_X, CENTERS_Y = _pixel_centers(along_x=True), _pixel_centers(along_x=False)
# The copies of records in a chunk have u and v at the corner of the tile in place of the position.
U_0, V_0 = X, Y


@kernel()
def _pixel_index(row, column):
    """Compute the index of a pixel of a tile within a section of the state."""
    block = (row // BLOCK) * (TILE // BLOCK) + column // BLOCK
    return block * LANES + (row % BLOCK) * BLOCK + column % BLOCK


@kernel()
def _workspace(chunk_size):
    """Allocate the arrays that `_collect` fills from a chunk of up to ``chunk_size`` entries."""
    copies, numbers = allocate_aligned(chunk_size * RECORD), np.empty(chunk_size, np.uint64)
    items, owners = np.empty(chunk_size * BLOCKS, np.uint64), np.empty(chunk_size * BLOCKS, np.uint64)
    firsts, lengths = np.empty(chunk_size + 1, np.uint64), np.empty(BLOCKS, np.uint64)
    return copies, numbers, items, owners, firsts, np.empty((BLOCKS, chunk_size), np.uint64), lengths


@kernel()
def _collect(chunk, alive, records, x0, y0, workspace):
    """List a chunk's entries by block, for the blocks that are ``alive``; returns the number of Gaussians in them.

    In ``workspace``, ``copies`` receives their records, for the tile at pixel (``x0``, ``y0``), and ``numbers`` their
    record numbers. Item k is one block of one Gaussian, in the order of the entries: ``items[k]`` is the block,
    ``owners[k]`` the Gaussian's index in ``copies``. Gaussian g has the items from ``firsts[g]`` to ``firsts[g + 1]``.
    Block b has the items ``lists[b, : lengths[b]]``.
    """
    copies, numbers, items, owners, firsts, lists, lengths = workspace
    lengths[:] = 0
    num_items, num = uint64(0), uint64(0)
    for k in range(len(chunk)):
        blocks, j = chunk[k] & alive, chunk[k] >> uint64(BLOCKS)
        if not blocks:
            continue
        to = num * uint64(RECORD)
        store(copies, to, load(records, j * uint64(RECORD)))
        x, y = copies[to + uint64(X)] - x0, copies[to + uint64(Y)] - y0
        copies[to + uint64(U_0)] = -(copies[to + uint64(U_X)] * x + copies[to + uint64(U_Y)] * y)
        copies[to + uint64(V_0)] = -(copies[to + uint64(V_Y)] * y)
        firsts[num], numbers[num] = num_items, j
        while blocks:
            block = lowest_bit(blocks)
            blocks &= blocks - uint64(1)
            items[num_items] = block
            owners[num_items] = num
            lists[block, lengths[block]] = num_items
            lengths[block] += uint64(1)
            num_items += uint64(1)
        num += uint64(1)
    firsts[num] = num_items
    return num


@kernel()
def _evaluate_alpha(copies, q, x, y):
    """Evaluate the alpha of one Gaussian at 16 pixels, not yet limited to ``MAX_ALPHA``; 0 below 1/255."""
    v = copies[q + uint64(V_Y)] * y + copies[q + uint64(V_0)]
    u = copies[q + uint64(U_X)] * x + (copies[q + uint64(U_Y)] * y + copies[q + uint64(U_0)])
    power = copies[q + uint64(LOG_OPACITY)] - v * v - u * u
    return select(power >= MIN_POWER, exp2(power), ZERO)


@kernel(parallel=True)
def composite(records, entries, starts, num_threads, width, height, background, rgb, alpha, depth, work):
    """Composite one image: ``rgb [H, W, 3]`` over ``background [3]``, ``alpha [H, W]``, expected ``depth [H, W]``.

    ``records`` (flat), ``entries`` and ``starts`` come from ``tiles``. ``work [tiles]`` receives the number of blocks
    that were composited before the tile was finished.
    """
    tiles_x = (width + TILE - 1) // TILE
    for thread in prange(num_threads):
        state, workspace = allocate_aligned(6 * PIXELS), _workspace(FORWARD_CHUNK)
        copies, _, _, owners, _, lists, lengths = workspace
        for tile in range(len(work)):
            if (tile % tiles_x + tile // tiles_x) % num_threads != thread:
                continue
            x0, y0 = tile % tiles_x * TILE, tile // tiles_x * TILE
            columns, rows = min(TILE, width - x0), min(TILE, height - y0)
            state[:] = 0
            for row in range(rows):
                for column in range(columns):
                    state[_pixel_index(row, column)] = 1
                    state[_pixel_index(row, column) + 5 * PIXELS] = 1
            e, alive, drawn = starts[tile], BLOCK_BITS, uint64(0)
            while e < starts[tile + 1] and alive:
                chunk = entries[e : min(e + FORWARD_CHUNK, starts[tile + 1])]
                e += len(chunk)
                _collect(chunk, alive, records, float32(x0), float32(y0), workspace)
                for block in range(uint64(BLOCKS)):
                    if lengths[block] == 0:
                        continue
                    drawn += lengths[block]
                    p = block * uint64(LANES)
                    x, y = load(CENTERS_X, p), load(CENTERS_Y, p)
                    t, remaining = load(state, p), load(state, p + S5)
                    red, green, blue = load(state, p + S1), load(state, p + S2), load(state, p + S3)
                    far = load(state, p + S4)
                    k = uint64(0)
                    while k < lengths[block]:
                        for _ in range(min(uint64(CHECK_EVERY), lengths[block] - k)):
                            q = owners[lists[block, k]] * uint64(RECORD)
                            opaque = minimum(_evaluate_alpha(copies, q, x, y), MAX_ALPHA)
                            after = t * (ONE - opaque)
                            live = after > MIN_TRANSMITTANCE
                            weight = select(live, t * opaque, ZERO)
                            remaining = select(live, after, remaining)
                            red += weight * copies[q + uint64(RED)]
                            green += weight * copies[q + uint64(GREEN)]
                            blue += weight * copies[q + uint64(BLUE)]
                            far += weight * copies[q + uint64(DEPTH)]
                            t = after
                            k += uint64(1)
                        t = select(t > MIN_TRANSMITTANCE, t, ZERO)
                        if not bits(t > ZERO):
                            alive &= ~(uint64(1) << block)
                            break
                    store(state, p, t)
                    store(state, p + S1, red)
                    store(state, p + S2, green)
                    store(state, p + S3, blue)
                    store(state, p + S4, far)
                    store(state, p + S5, remaining)
            work[tile] = drawn
            for row in range(rows):
                for column in range(columns):
                    p, v, u = _pixel_index(row, column), y0 + row, x0 + column
                    behind = state[p + 5 * PIXELS]
                    rgb[v, u, 0] = state[p + PIXELS] + behind * background[0]
                    rgb[v, u, 1] = state[p + 2 * PIXELS] + behind * background[1]
                    rgb[v, u, 2] = state[p + 3 * PIXELS] + behind * background[2]
                    alpha[v, u] = ONE - behind
                    depth[v, u] = state[p + 4 * PIXELS] / (ONE - behind) if behind < ONE else ZERO


@kernel(parallel=True)
def composite_backward(
    records, entries, starts, borders, width, height, rgb, alpha, depth, d_rgb, d_alpha, d_depth, totals
):
    """Backpropagate through ``composite``: add gradients to ``totals [threads * V * 16]``, which must be zero.

    ``rgb``, ``alpha`` and ``depth`` are the composited images, ``d_*`` their gradients (``d_depth`` may be
    None: no gradient); ``borders`` splits the tiles into one run per thread.
    """
    tiles_x = (width + TILE - 1) // TILE
    for thread in prange(len(borders) - 1):
        state, workspace = allocate_aligned(6 * PIXELS), _workspace(BACKWARD_CHUNK)
        copies, numbers, items, owners, firsts, lists, lengths = workspace
        weights, ratios = allocate_aligned(BACKWARD_CHUNK * PIXELS), allocate_aligned(BACKWARD_CHUNK * PIXELS)
        mine = uint64(thread) * uint64(len(records) // RECORD)
        for tile in range(borders[thread], borders[thread + 1]):
            if starts[tile] == starts[tile + 1]:
                continue
            x0, y0 = tile % tiles_x * TILE, tile // tiles_x * TILE
            state[:] = 0
            for row in range(min(TILE, height - y0)):
                for column in range(min(TILE, width - x0)):
                    p, v, u = _pixel_index(row, column), y0 + row, x0 + column
                    covered, behind = alpha[v, u], ZERO
                    d_covered = d_alpha[v, u]
                    if d_depth is not None:
                        d_depth_sum = d_depth[v, u] / covered if covered > 0 else ZERO
                        d_covered -= d_depth_sum * depth[v, u]
                        behind = depth[v, u] * d_depth[v, u]
                        state[p + 5 * PIXELS] = d_depth_sum
                    behind -= (ONE - covered) * d_covered
                    for k in range(3):
                        behind += rgb[v, u, k] * d_rgb[v, u, k]
                    state[p] = 1
                    state[p + PIXELS] = behind
                    state[p + 2 * PIXELS] = d_rgb[v, u, 0]
                    state[p + 3 * PIXELS] = d_rgb[v, u, 1]
                    state[p + 4 * PIXELS] = d_rgb[v, u, 2]
            e, alive = starts[tile], BLOCK_BITS
            while e < starts[tile + 1] and alive:
                chunk = entries[e : min(e + BACKWARD_CHUNK, starts[tile + 1])]
                num = _collect(chunk, alive, records, float32(x0), float32(y0), workspace)
                for block in range(uint64(BLOCKS)):
                    if lengths[block] == 0:
                        continue
                    p = block * uint64(LANES)
                    x, y, t = load(CENTERS_X, p), load(CENTERS_Y, p), load(state, p)
                    for k in range(lengths[block]):
                        item = lists[block, k]
                        raw = _evaluate_alpha(copies, owners[item] * uint64(RECORD), x, y)
                        opaque = minimum(raw, MAX_ALPHA)
                        through = ONE - opaque
                        after = t * through
                        live = after > MIN_TRANSMITTANCE
                        store(weights, item * uint64(LANES), select(live, t * opaque, ZERO))
                        # alpha / (1 - alpha); negative where alpha is at its limit
                        ratio = select(live, opaque / through, ZERO)
                        store(ratios, item * uint64(LANES), select(raw <= MAX_ALPHA, ratio, -ONE))
                        t = after
                    t = select(t > MIN_TRANSMITTANCE, t, ZERO)
                    store(state, p, t)
                    if not bits(t > ZERO):
                        alive &= ~(uint64(1) << block)
                for g in range(num):
                    q = g * uint64(RECORD)
                    red, green, blue = copies[q + uint64(RED)], copies[q + uint64(GREEN)], copies[q + uint64(BLUE)]
                    far = copies[q + uint64(DEPTH)]
                    at = numbers[g] * uint64(RECORD)
                    x_g, y_g = records[at + uint64(X)] - float32(x0), records[at + uint64(Y)] - float32(y0)
                    s_red = s_green = s_blue = s_depth = broadcast(ZERO)
                    s_1 = s_x = s_y = s_xx = s_xy = s_yy = broadcast(ZERO)
                    for k in range(firsts[g], firsts[g + uint64(1)]):
                        p = items[k] * uint64(LANES)
                        weight, ratio = load(weights, k * uint64(LANES)), load(ratios, k * uint64(LANES))
                        d_red, d_green, d_blue = load(state, p + S2), load(state, p + S3), load(state, p + S4)
                        along = red * d_red + green * d_green + blue * d_blue
                        if d_depth is not None:
                            d_far = load(state, p + S5)
                            along += far * d_far
                            s_depth += weight * d_far
                        along *= weight
                        behind = load(state, p + S1) - along
                        store(state, p + S1, behind)
                        d_q = select(ratio >= ZERO, behind * ratio - along, ZERO)  # -alpha d alpha
                        s_red += weight * d_red
                        s_green += weight * d_green
                        s_blue += weight * d_blue
                        dx, dy = load(CENTERS_X, p) - x_g, load(CENTERS_Y, p) - y_g
                        d_qx, d_qy = d_q * dx, d_q * dy
                        s_1 += d_q
                        s_x += d_qx
                        s_y += d_qy
                        s_xx += d_qx * dx
                        s_xy += d_qx * dy
                        s_yy += d_qy * dy
                    to = (mine + numbers[g]) * uint64(NUM_SUMS)
                    gradients = sum_lanes(s_red, s_green, s_blue, s_depth, s_1, s_x, s_y, s_xx, s_xy, s_yy)
                    store(totals, to, load(totals, to) + gradients)
                e += len(chunk)


@kernel(parallel=True)
def gather_gradients(
    visible, totals, conics, opacities, num_threads, d_means2d, d_conics, d_depths, d_opacities, d_colors
):
    """Sum ``totals [threads, V, 16]`` over the threads and write the gradients ``[N, .]`` of the visible Gaussians.

    With ``sigma = -log(alpha / opacity)``, the moments are those of ``d sigma``, around the mean (pixel minus mean).
    """
    v = len(visible)
    for thread in prange(num_threads):
        for j in range(v * thread // num_threads, v * (thread + 1) // num_threads):
            i = visible[j]
            for k in range(1, len(totals)):
                for m in range(10):
                    totals[0, j, m] += totals[k, j, m]
            for m in range(3):
                d_colors[i, m] = totals[0, j, m]
            d_depths[i] = totals[0, j, 3]
            one, x, y = totals[0, j, 4], totals[0, j, 5], totals[0, j, 6]
            d_opacities[i] = -one / opacities[i]
            d_means2d[i, 0] = -(conics[i, 0] * x + conics[i, 1] * y)
            d_means2d[i, 1] = -(conics[i, 1] * x + conics[i, 2] * y)
            d_conics[i, 0] = float32(0.5) * totals[0, j, 7]
            d_conics[i, 1] = totals[0, j, 8]
            d_conics[i, 2] = float32(0.5) * totals[0, j, 9]
