"""A bounding volume hierarchy over triangles: built with the surface-area heuristic in bins, and rays cast through it.

The build follows Wald (On fast Construction of SAH-based Bounding Volume Hierarchies, 2007), the test of a triangle
Möller and Trumbore (1997).
"""

from __future__ import annotations

import numpy as np
from numpy import ndarray

from splatfix.jit import kernel
from splatfix.shapes import Float, Int

LEAF = 4  # triangles at which a node is not split further
BINS = 12
STACK = 64  # nodes that a ray may still have to visit
MAX_LIGHTS = 8  # whose last occluders are kept
EPSILON = 1e-9


def build_bvh(
    corners: Float[ndarray, "T 3 3"],
) -> tuple[Float[ndarray, "N 6"], Int[ndarray, "N 2"], Int[ndarray, " T"]]:
    """Build the hierarchy of triangles.

    Returns boxes of nodes (least and largest corner, float32), their links (first child and 0, or first triangle and
    number of triangles, int32), and the order of the triangles, int64.
    """
    corners = np.ascontiguousarray(corners, np.float64)
    order = np.arange(len(corners))
    bounds = np.empty((2 * len(corners) + 1, 6))
    links = np.zeros((2 * len(corners) + 1, 2), np.int32)
    num = _build(corners.min(1), corners.max(1), corners.mean(1), order, bounds, links)
    boxes = bounds[:num]
    margin = 1e-6 * (1 + np.abs(boxes[:, 3:]).max(axis=1, keepdims=True))  # float32 must not cut anything off
    boxes = np.concatenate([boxes[:, :3] - margin, boxes[:, 3:] + margin], axis=1)
    return boxes.astype(np.float32), links[:num].copy(), order


@kernel()
def _fit_box(low, high, order, first, count, box):
    for axis in range(3):
        box[axis], box[3 + axis] = np.inf, -np.inf
    for k in range(first, first + count):
        for axis in range(3):
            box[axis] = min(box[axis], low[order[k], axis])
            box[3 + axis] = max(box[3 + axis], high[order[k], axis])


@kernel()
def _half_area(box):
    x, y, z = box[3] - box[0], box[4] - box[1], box[5] - box[2]
    return x * y + y * z + z * x


@kernel()
def _choose_split(low, high, middle, order, first, count, axis, start, width, counts, boxes):
    """Return the bin before which a split costs least, and that cost; triangles are binned by their centers."""
    for b in range(BINS):
        counts[b] = 0
        for side in range(3):
            boxes[b, side], boxes[b, 3 + side] = np.inf, -np.inf
    for k in range(first, first + count):
        i = order[k]
        b = min(BINS - 1, int((middle[i, axis] - start) / width * BINS))
        counts[b] += 1
        for side in range(3):
            boxes[b, side] = min(boxes[b, side], low[i, side])
            boxes[b, 3 + side] = max(boxes[b, 3 + side], high[i, side])
    best, best_cost = 0, np.inf
    for split in range(1, BINS):
        cost = 0.0
        for part in range(2):
            num, box = 0, np.array([np.inf, np.inf, np.inf, -np.inf, -np.inf, -np.inf])
            for b in range(split if part else BINS - split):
                b_ = b if part else split + b
                if counts[b_]:
                    num += counts[b_]
                    for side in range(3):
                        box[side] = min(box[side], boxes[b_, side])
                        box[3 + side] = max(box[3 + side], boxes[b_, 3 + side])
            cost += np.inf if num == 0 else num * _half_area(box)
        if cost < best_cost:
            best, best_cost = split, cost
    return best, best_cost


@kernel()
def _build(low, high, middle, order, bounds, links):
    counts, boxes = np.empty(BINS, np.int64), np.empty((BINS, 6))
    todo = np.empty((STACK, 4), np.int64)  # node, first triangle, number of triangles, depth
    todo[0, 0], todo[0, 1], todo[0, 2], todo[0, 3] = 0, 0, len(order), 1
    num_todo, num_nodes = 1, 1
    while num_todo > 0:
        num_todo -= 1
        node, first, count, depth = todo[num_todo, 0], todo[num_todo, 1], todo[num_todo, 2], todo[num_todo, 3]
        _fit_box(low, high, order, first, count, bounds[node])
        links[node, 0], links[node, 1] = first, count
        if count <= LEAF or depth >= STACK:  # of which a ray's list of nodes has room for no more
            continue
        axis, start, width = 0, 0.0, 0.0
        for side in range(3):
            least, most = np.inf, -np.inf
            for k in range(first, first + count):
                least, most = min(least, middle[order[k], side]), max(most, middle[order[k], side])
            if most - least > width:
                axis, start, width = side, least, most - least
        split = first + count // 2
        if width > 0:
            best, _ = _choose_split(low, high, middle, order, first, count, axis, start, width, counts, boxes)
            i, j = first, first + count - 1
            while best > 0 and i <= j:
                if min(BINS - 1, int((middle[order[i], axis] - start) / width * BINS)) < best:
                    i += 1
                else:
                    order[i], order[j] = order[j], order[i]
                    j -= 1
            if best > 0:
                split = i
        links[node, 0], links[node, 1] = num_nodes, 0
        for child in range(2):
            todo[num_todo, 0], todo[num_todo, 3] = num_nodes + child, depth + 1
            todo[num_todo, 1] = split if child else first
            todo[num_todo, 2] = first + count - split if child else split - first
            num_todo += 1
        num_nodes += 2
    return num_nodes


@kernel()
def _enter_box(bounds, node, ox, oy, oz, ix, iy, iz, near, far):
    """Return the distance at which a ray enters a box, or infinity if it misses the box before ``far``."""
    a, b = (bounds[node, 0] - ox) * ix, (bounds[node, 3] - ox) * ix
    near, far = max(near, min(a, b)), min(far, max(a, b))
    a, b = (bounds[node, 1] - oy) * iy, (bounds[node, 4] - oy) * iy
    near, far = max(near, min(a, b)), min(far, max(a, b))
    a, b = (bounds[node, 2] - oz) * iz, (bounds[node, 5] - oz) * iz
    near, far = max(near, min(a, b)), min(far, max(a, b))
    return near if near <= far else np.inf


@kernel()
def meet_triangle(triangles, i, ox, oy, oz, dx, dy, dz):
    """Intersect a ray with a triangle: its distance (infinity if missed) and barycentric coordinates."""
    e1x, e1y, e1z = np.float64(triangles[i, 3]), np.float64(triangles[i, 4]), np.float64(triangles[i, 5])
    e2x, e2y, e2z = np.float64(triangles[i, 6]), np.float64(triangles[i, 7]), np.float64(triangles[i, 8])
    px, py, pz = dy * e2z - dz * e2y, dz * e2x - dx * e2z, dx * e2y - dy * e2x
    determinant = e1x * px + e1y * py + e1z * pz
    if determinant == 0:
        return np.inf, 0.0, 0.0
    inverse = 1.0 / determinant
    tx, ty, tz = ox - triangles[i, 0], oy - triangles[i, 1], oz - triangles[i, 2]
    u = (tx * px + ty * py + tz * pz) * inverse
    if u < 0 or u > 1:
        return np.inf, 0.0, 0.0
    qx, qy, qz = ty * e1z - tz * e1y, tz * e1x - tx * e1z, tx * e1y - ty * e1x
    v = (dx * qx + dy * qy + dz * qz) * inverse
    if v < 0 or u + v > 1:
        return np.inf, 0.0, 0.0
    return (e2x * qx + e2y * qy + e2z * qz) * inverse, u, v


@kernel()
def make_stack():
    """Make the scratch memory of a thread, int32: nodes to visit, and the triangle that last hid each light, or -1."""
    return np.full(STACK + MAX_LIGHTS, -1, np.int32)


@kernel()
def cast_ray(bounds, links, triangles, stack, ox, oy, oz, dx, dy, dz, near, far, any_hit):
    """Find the first triangle that a ray meets between ``near`` and ``far``, or any one.

    Returns distance, number of the triangle (-1: none) and barycentric coordinates. ``stack`` is what
    `make_stack` returns, scratch memory of the thread.
    """
    ix = 1.0 / (dx if abs(dx) > EPSILON else EPSILON)
    iy = 1.0 / (dy if abs(dy) > EPSILON else EPSILON)
    iz = 1.0 / (dz if abs(dz) > EPSILON else EPSILON)
    hit, hit_u, hit_v = -1, 0.0, 0.0
    num, node = 0, 0
    if _enter_box(bounds, 0, ox, oy, oz, ix, iy, iz, near, far) == np.inf:
        return far, hit, hit_u, hit_v
    while True:
        first, count = links[node, 0], links[node, 1]
        if count > 0:
            for i in range(first, first + count):
                t, u, v = meet_triangle(triangles, i, ox, oy, oz, dx, dy, dz)
                if near < t < far:
                    far, hit, hit_u, hit_v = t, i, u, v
                    if any_hit:
                        return far, hit, hit_u, hit_v
        else:
            a = _enter_box(bounds, first, ox, oy, oz, ix, iy, iz, near, far)
            b = _enter_box(bounds, first + 1, ox, oy, oz, ix, iy, iz, near, far)
            nearer, other = (first, first + 1) if a <= b else (first + 1, first)
            if min(a, b) < np.inf:
                if max(a, b) < np.inf:
                    stack[num] = other
                    num += 1
                node = nearer
                continue
        if num == 0:
            return far, hit, hit_u, hit_v
        num -= 1
        node = stack[num]
