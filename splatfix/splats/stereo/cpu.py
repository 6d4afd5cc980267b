"""Plane-sweep stereo on the CPU: numba kernels that match a photo with its neighbors and compare depth maps.

`plane_sweep` calls `compute_depth_map` and `count_votes`; the kernels are their steps. `torch_sweep` has the same
functions for CUDA: a change of an algorithm or a constant here is one there, too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numba import prange
from numpy import ndarray

from splatfix.cameras import Camera
from splatfix.jit import kernel
from splatfix.shapes import Bool, Float, Int
from splatfix.splats.stereo.config import StereoConfig

INVALID = np.float32(-1.0)  # ZNCC where there is nothing to compare


def compute_depth_map(
    reference: Float[ndarray, "H W"],
    ref_inside: Bool[ndarray, "H W"],
    images: Float[ndarray, "N h w"],
    insides: Bool[ndarray, "N h w"],
    warps: Float[ndarray, "N 3 4"],
    inverse_depths: Float[ndarray, " K"],
    config: StereoConfig,
    device: torch.device,  # noqa: ARG001 (as in `torch_sweep`)
) -> Float[ndarray, "H W"]:
    """Compute the depth map of a photo from its neighbors: 0 where the match is not good and unique.

    Arguments as in `sweep_planes`; ``inverse_depths`` are evenly spaced and ascending.
    """
    radii = np.array([side // 2 for side in config.windows_px])
    volume = sweep_planes(reference, ref_inside, images, insides, warps, inverse_depths, radii, config.min_contrast**2)
    scores = np.ascontiguousarray(volume.transpose(1, 2, 0))  # [H, W, K]
    costs = smooth_costs(scores, config.smoothness, 4 * config.smoothness)
    plane = select_planes(scores, costs, config.min_zncc, config.uniqueness)
    step = inverse_depths[1] - inverse_depths[0]
    depth = np.where(plane >= 0, 1 / (inverse_depths[0] + np.maximum(plane, 0) * step), 0).astype(np.float32)
    return remove_specks(depth, 2 * config.max_disagreement, config.min_support)


def count_votes(
    positions: Float[ndarray, "P 3"],
    cameras: Sequence[Camera],
    depth_maps: Sequence[Float[ndarray, "_ _"]],
    tolerance: float,
    device: torch.device,  # noqa: ARG001 (as in `torch_sweep`)
) -> tuple[Int[ndarray, " P"], Int[ndarray, " P"]]:
    """Count the photos whose depth maps confirm world points, and those that contradict them by seeing through.

    ``tolerance`` is the largest relative difference of two depths that agree.
    """
    confirming, contradicting = np.zeros(len(positions), int), np.zeros(len(positions), int)
    for camera, depth_map in zip(cameras, depth_maps, strict=True):
        pixel, depth = camera.project(positions)
        pixel = np.nan_to_num(pixel, nan=-1e6)
        votes = compare_depths(pixel, depth, depth_map, tolerance)
        confirming += votes > 0
        contradicting += votes < 0
    return confirming, contradicting


@kernel(fastmath=True)
def _warp_image(image, inside, width, height, warp, inverse_depth, ref_inside, out, ok):
    """Sample ``image`` bilinearly at the reference pixels on the plane; ``ok`` is 1 where all four pixels are valid."""
    rows, columns = out.shape
    w = inverse_depth
    for y in range(rows):
        v = y + 0.5
        for x in range(columns):
            u = x + 0.5
            z = warp[2, 0] * u + warp[2, 1] * v + warp[2, 2] + w * warp[2, 3]
            out[y, x] = 0.0
            ok[y, x] = 0.0
            if z <= 1e-9 or not ref_inside[y, x]:
                continue
            px = (warp[0, 0] * u + warp[0, 1] * v + warp[0, 2] + w * warp[0, 3]) / z - 0.5
            py = (warp[1, 0] * u + warp[1, 1] * v + warp[1, 2] + w * warp[1, 3]) / z - 0.5
            if px < 0.0 or py < 0.0 or px >= width - 1 or py >= height - 1:
                continue
            i, j = int(px), int(py)
            if not (inside[j, i] and inside[j, i + 1] and inside[j + 1, i] and inside[j + 1, i + 1]):
                continue
            a, b = px - i, py - j
            top = image[j, i] * (1 - a) + image[j, i + 1] * a
            bottom = image[j + 1, i] * (1 - a) + image[j + 1, i + 1] * a
            out[y, x] = top * (1 - b) + bottom * b
            ok[y, x] = 1.0


@kernel(fastmath=True)
def _add_row(sums, reference, other, ok, y, sign):
    """Add the products of one row to the column sums ``[6, W]``, or subtract them (``sign`` -1)."""
    for x in range(reference.shape[1]):
        o = ok[y, x] * sign
        a = reference[y, x]
        b = other[y, x]
        sums[0, x] += o
        sums[1, x] += o * a
        sums[2, x] += o * b
        sums[3, x] += o * a * a
        sums[4, x] += o * b * b
        sums[5, x] += o * a * b


@kernel(fastmath=True)
def _compute_zncc(reference, other, ok, radius, min_variance, out):
    """Compute the ZNCC over square windows of valid pixels; ``INVALID`` where less than 60 % of a window is valid."""
    rows, columns = reference.shape
    sums = np.zeros((6, columns), np.float64)
    min_valid = 0.6 * (2 * radius + 1) ** 2
    for y in range(min(radius, rows)):
        _add_row(sums, reference, other, ok, y, 1.0)
    for y in range(rows):
        if y + radius < rows:
            _add_row(sums, reference, other, ok, y + radius, 1.0)
        if y - radius - 1 >= 0:
            _add_row(sums, reference, other, ok, y - radius - 1, -1.0)
        n = sa = sb = saa = sbb = sab = 0.0
        for x in range(-radius, columns):
            enter, leave = x + radius, x - radius - 1
            if enter < columns:
                n += sums[0, enter]
                sa += sums[1, enter]
                sb += sums[2, enter]
                saa += sums[3, enter]
                sbb += sums[4, enter]
                sab += sums[5, enter]
            if leave >= 0:
                n -= sums[0, leave]
                sa -= sums[1, leave]
                sb -= sums[2, leave]
                saa -= sums[3, leave]
                sbb -= sums[4, leave]
                sab -= sums[5, leave]
            if x < 0:
                continue
            score = INVALID
            if ok[y, x] > 0 and n >= min_valid:
                va = saa / n - (sa / n) ** 2
                vb = sbb / n - (sb / n) ** 2
                if va > min_variance and vb > 0.25 * min_variance:
                    score = np.float32((sab / n - sa * sb / (n * n)) / np.sqrt(va * vb))
            out[y, x] = score


@kernel(parallel=True, fastmath=True)
def sweep_planes(reference, ref_inside, images, insides, warps, inverse_depths, radii, min_variance):
    """Compute the ZNCC of a photo with its neighbors on planes of constant depth.

    Args:
        reference: gray, float32 ``[H, W]``; ref_inside: its valid pixels, bool ``[H, W]``.
        images, insides: the neighbors and their valid pixels, padded to one size, ``[N, H', W']``.
        warps: ``[A | b]`` per neighbor, float64 ``[N, 3, 4]``.
        inverse_depths: ``[K]``; radii: of the windows, pixels; min_variance: of gray in the smallest window.

    Returns:
        float32 ``[K, H, W]``: the mean over windows, then over the two best neighbors (occlusion: Kang et al. 2001).
    """
    rows, columns = reference.shape
    planes, others = len(inverse_depths), len(images)
    volume = np.empty((planes, rows, columns), np.float32)
    for k in prange(planes):
        warped = np.empty((rows, columns), np.float32)
        ok = np.empty((rows, columns), np.float32)
        score = np.empty((rows, columns), np.float32)
        mean = np.empty((rows, columns), np.float32)
        first = np.full((rows, columns), INVALID)
        second = np.full((rows, columns), INVALID)
        for i in range(others):
            height, width = images.shape[1:]
            _warp_image(images[i], insides[i], width, height, warps[i], inverse_depths[k], ref_inside, warped, ok)
            mean[:] = 0
            for radius in radii:
                _compute_zncc(reference, warped, ok, radius, min_variance, score)
                for y in range(rows):
                    for x in range(columns):
                        mean[y, x] += score[y, x] / len(radii)
            for y in range(rows):
                for x in range(columns):
                    s = mean[y, x]
                    if s > first[y, x]:
                        second[y, x] = first[y, x]
                        first[y, x] = s
                    elif s > second[y, x]:
                        second[y, x] = s
        for y in range(rows):
            for x in range(columns):
                s = first[y, x]
                if second[y, x] > INVALID:
                    s = 0.5 * (s + second[y, x])
                volume[k, y, x] = s
    return volume


@kernel(fastmath=True)
def _advance_path(cost, previous, lowest, small, large, out, total):
    """Compute the costs of a pixel from those of the pixel before it on a path. Returns the lowest."""
    planes = len(cost)
    best = np.float32(1e9)
    for k in range(planes):
        least = min(previous[k], lowest + large)
        if k > 0:
            least = min(least, previous[k - 1] + small)
        if k < planes - 1:
            least = min(least, previous[k + 1] + small)
        value = (np.float32(1.0) - cost[k]) + least - lowest
        out[k] = value
        total[k] += value
        best = min(best, value)
    return best


@kernel(parallel=True, fastmath=True)
def smooth_costs(scores, small, large):
    """Sum 1 - ZNCC semi-globally along four directions, float32 ``[H, W, K]`` (Hirschmueller 2008, eq. 13)."""
    rows, columns, planes = scores.shape
    small, large = np.float32(small), np.float32(large)
    total = np.zeros_like(scores)
    for y in prange(rows):
        a, b = np.zeros(planes, np.float32), np.zeros(planes, np.float32)
        for direction in range(2):
            a[:] = 0
            lowest = np.float32(0)
            for step in range(columns):
                x = step if direction == 0 else columns - 1 - step
                lowest = _advance_path(scores[y, x], a, lowest, small, large, b, total[y, x])
                a, b = b, a
    for x in prange(columns):
        a, b = np.zeros(planes, np.float32), np.zeros(planes, np.float32)
        for direction in range(2):
            a[:] = 0
            lowest = np.float32(0)
            for step in range(rows):
                y = step if direction == 0 else rows - 1 - step
                lowest = _advance_path(scores[y, x], a, lowest, small, large, b, total[y, x])
                a, b = b, a
    return total


@kernel(parallel=True, fastmath=True)
def select_planes(scores, total, min_zncc, uniqueness):
    """Select the plane of lowest smoothed cost per pixel: its fractional index ``[H, W]``, -1 where it is rejected.

    A plane is rejected if its ZNCC is too low, if it is the first or last, or if another peak is about as good.
    """
    rows, columns, planes = scores.shape
    selected = np.full((rows, columns), np.float32(-1.0))
    for y in prange(rows):
        for x in range(columns):
            k = np.argmin(total[y, x])
            s = scores[y, x]
            if k < 1 or k > planes - 2 or s[k] < min_zncc:
                continue
            rival = np.float32(-1.0)
            # The rival is the best score beyond the slopes of this peak.
            low, high = k, k
            while low > 0 and (k - low < 2 or s[low - 1] < s[low]):
                low -= 1
            while high < planes - 1 and (high - k < 2 or s[high + 1] < s[high]):
                high += 1
            for i in range(0, low):
                rival = max(rival, s[i])
            for i in range(high + 1, planes):
                rival = max(rival, s[i])
            if 1 - s[k] > uniqueness * (1 - rival):
                continue
            bend = s[k - 1] - 2 * s[k] + s[k + 1]
            offset = 0.0
            if bend < -1e-6:
                offset = min(max(0.5 * (s[k - 1] - s[k + 1]) / bend, -0.5), 0.5)
            selected[y, x] = k + offset
    return selected


@kernel(parallel=True)
def compare_depths(pixels, depths, depth_map, tolerance):
    """Compare points at ``pixels [P, 2]`` with ``depths [P]`` in another photo with its depth map, int8 ``[P]``.

    1: one of the four nearest pixels has that depth. -1: all of the four with a depth are farther. 0: neither.
    """
    rows, columns = depth_map.shape
    votes = np.zeros(len(pixels), np.int8)
    for p in prange(len(pixels)):
        if depths[p] <= 0:
            continue
        left = int(np.floor(pixels[p, 0] - 0.5))
        top = int(np.floor(pixels[p, 1] - 0.5))
        known = farther = 0
        for y in range(top, top + 2):
            for x in range(left, left + 2):
                if x < 0 or y < 0 or x >= columns or y >= rows or depth_map[y, x] <= 0:
                    continue
                known += 1
                if abs(depth_map[y, x] - depths[p]) < tolerance * depths[p]:
                    votes[p] = 1
                elif depth_map[y, x] > depths[p]:
                    farther += 1
        if votes[p] == 0 and known > 0 and farther == known:
            votes[p] = -1
    return votes


@kernel(parallel=True)
def remove_specks(depth_map, tolerance, least):
    """Set depths to 0 that fewer than ``least`` of the 24 pixels around them share, ``[H, W]``."""
    rows, columns = depth_map.shape
    kept = np.zeros_like(depth_map)
    for y in prange(rows):
        for x in range(columns):
            depth = depth_map[y, x]
            if depth <= 0:
                continue
            same = -1
            for j in range(max(y - 2, 0), min(y + 3, rows)):
                for i in range(max(x - 2, 0), min(x + 3, columns)):
                    same += abs(depth_map[j, i] - depth) < tolerance * depth
            if same >= least:
                kept[y, x] = depth
    return kept
