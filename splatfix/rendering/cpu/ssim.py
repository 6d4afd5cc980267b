"""Structural similarity and the photometric loss, in one fused pass forward and one backward.

Images remain interleaved ``[H, W, 3]``: along a row the window steps by three numbers, so every loop runs over
contiguous memory, 16 numbers at a time. Each thread processes a range of rows. The only intermediate arrays as large as
an image are those that the backward pass needs.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import prange, uint64
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from splatfix.jit import kernel, limit_threads
from splatfix.metrics import SSIM_C1, SSIM_C2, SSIM_RADIUS_PX, ssim_window
from splatfix.rendering.cpu.lanes import (
    LANES,
    allocate_aligned,
    broadcast,
    load,
    load_part,
    maximum,
    select,
    store,
    store_part,
    sum_lanes,
)

RADIUS = SSIM_RADIUS_PX
PADDING = 3 * RADIUS  # numbers on either side of a row
WINDOW = ssim_window(torch.float32).numpy()
W0, W1, W2, W3, W4, W5 = (np.float32(weight) for weight in WINDOW[: RADIUS + 1])
C1, C2 = np.float32(SSIM_C1), np.float32(SSIM_C2)
ZERO, ONE, TWO = np.float32(0), np.float32(1), np.float32(2)
MIN_NUMBERS = 100_000  # the smallest work per thread
ONES = np.ones(LANES, np.float32)


@kernel()
def _stride(length):
    """Compute the length of a row of ``length`` numbers with padding, rounded up to whole vectors."""
    return uint64((length + 2 * PADDING + 2 * LANES - 1) // LANES * LANES)


@kernel()
def _window_rows(row, height):
    """Return the first and last (exclusive) row of an image under the window around ``row``."""
    return max(0, row - RADIUS), min(height, row + RADIUS + 1)


@kernel()
def _filter_columns(a, b, row, height, length, stride, moments):
    """Filter along columns: write the means of a, b, aa, bb, ab around ``row`` to the five sections of ``moments``."""
    first, last = _window_rows(row, height)
    for c in range(0, length, LANES):
        num = min(LANES, length - c)
        s_a = s_b = s_aa = s_bb = s_ab = broadcast(ZERO)
        for r in range(first, last):
            at, weight = uint64(r * length + c), WINDOW[r - row + RADIUS]
            u = load(a, at) if num == LANES else load_part(a, at, num)
            v = load(b, at) if num == LANES else load_part(b, at, num)
            wu, wv = weight * u, weight * v
            s_a += wu
            s_b += wv
            s_aa += wu * u
            s_bb += wv * v
            s_ab += wu * v
        to = uint64(c + PADDING)
        store(moments, to, s_a)
        store(moments, to + stride, s_b)
        store(moments, to + stride + stride, s_aa)
        store(moments, to + stride + stride + stride, s_bb)
        store(moments, to + stride + stride + stride + stride, s_ab)


@kernel()
def _filter_row(source, i):
    """Filter 16 numbers along the row, the first at index ``i`` of the row without padding."""
    total = W5 * load(source, i + uint64(15))
    total += W4 * (load(source, i + uint64(12)) + load(source, i + uint64(18)))
    total += W3 * (load(source, i + uint64(9)) + load(source, i + uint64(21)))
    total += W2 * (load(source, i + uint64(6)) + load(source, i + uint64(24)))
    total += W1 * (load(source, i + uint64(3)) + load(source, i + uint64(27)))
    total += W0 * (load(source, i) + load(source, i + uint64(30)))
    return total


@kernel(parallel=True)
def similarity_forward(a, b, height, similarity, partials, totals):
    """Write the similarity of ``a`` and ``b`` (flat, of ``height`` rows) to ``similarity``, flat, unless that is empty.

    ``partials``, flat ``[3 * size]`` unless empty, receives its derivatives by the window's mean of a, aa and ab;
    ``totals [threads, 2]`` the sums of the similarity and of ``|a - b|`` over each thread's rows.
    """
    length = len(a) // height
    stride = _stride(length)
    for thread in prange(len(totals)):
        moments, row_sums = allocate_aligned(5 * stride), allocate_aligned(LANES)
        moments[:] = 0
        total, distance = 0.0, 0.0
        for row in range(height * thread // len(totals), height * (thread + 1) // len(totals)):
            _filter_columns(a, b, row, height, length, stride, moments)
            row_total = row_distance = broadcast(ZERO)
            for c in range(0, length, LANES):
                i, at, num = uint64(c), uint64(row * length + c), min(LANES, length - c)
                u, v = _filter_row(moments, i), _filter_row(moments, i + stride)
                aa = _filter_row(moments, i + stride + stride)
                bb = _filter_row(moments, i + stride + stride + stride)
                ab = _filter_row(moments, i + stride + stride + stride + stride)
                uu, vv, uv = u * u, v * v, u * v
                top1, top2 = TWO * uv + C1, TWO * (ab - uv) + C2
                bottom1, bottom2 = uu + vv + C1, (aa - uu) + (bb - vv) + C2
                inverse = ONE / (bottom1 * bottom2)
                value = top1 * top2 * inverse
                full = num == LANES
                difference = load(a, at) - load(b, at) if full else load_part(a, at, num) - load_part(b, at, num)
                row_distance += maximum(difference, ZERO - difference)
                row_total += value if full else load_part(ONES, uint64(0), num) * value
                if len(similarity) > 0:
                    store_part(similarity, at, value, num)
                if len(partials) > 0:
                    d_ab = TWO * top1 * inverse
                    d_aa = (ZERO - value) * inverse * bottom1
                    d_mean = TWO * v * top2 * inverse - value * TWO * u * inverse * bottom2 - d_ab * v - TWO * d_aa * u
                    store_part(partials, at, d_mean, num)
                    store_part(partials, at + uint64(len(a)), d_aa, num)
                    store_part(partials, at + uint64(2 * len(a)), d_ab, num)
            store(row_sums, uint64(0), sum_lanes(row_total, row_distance))
            total += row_sums[0]
            distance += row_sums[1]
        totals[thread, 0], totals[thread, 1] = total, distance


@kernel()
def _filter_columns_weighted(partials, d, row, height, length, stride, moments):
    """Filter the three partials along columns, each times the gradient ``d`` if there is one."""
    first, last = _window_rows(row, height)
    size = uint64(height * length)
    for c in range(0, length, LANES):
        num = min(LANES, length - c)
        s_mean = s_aa = s_ab = broadcast(ZERO)
        for r in range(first, last):
            at, weight = uint64(r * length + c), WINDOW[r - row + RADIUS]
            # a vector may reach into the next row: those numbers are not used
            by_mean, by_aa = load(partials, at), load(partials, at + size)
            by_ab = load(partials, at + size + size) if num == LANES else load_part(partials, at + size + size, num)
            if d is None:
                s_mean += weight * by_mean
                s_aa += weight * by_aa
                s_ab += weight * by_ab
            else:
                scaled = weight * (load(d, at) if num == LANES else load_part(d, at, num))
                s_mean += scaled * by_mean
                s_aa += scaled * by_aa
                s_ab += scaled * by_ab
        to = uint64(c + PADDING)
        store_part(moments, to, s_mean, num)
        store_part(moments, to + stride, s_aa, num)
        store_part(moments, to + stride + stride, s_ab, num)


@kernel(parallel=True)
def similarity_backward(a, b, height, partials, d, scale, distance_scale, d_a, num_threads):
    """Write the gradient by ``a`` of ``scale * sum(similarity) + distance_scale * sum(|a - b|)`` to ``d_a``.

    The similarity is weighted by ``d`` unless that is None. All flat, as in `similarity_forward`.
    """
    length = len(a) // height
    stride = _stride(length)
    for thread in prange(num_threads):
        moments = allocate_aligned(3 * stride)
        moments[:] = 0
        for row in range(height * thread // num_threads, height * (thread + 1) // num_threads):
            _filter_columns_weighted(partials, d, row, height, length, stride, moments)
            for c in range(0, length, LANES):
                i, at, num = uint64(c), uint64(row * length + c), min(LANES, length - c)
                u, v = load_part(a, at, num), load_part(b, at, num)
                by_mean, by_aa, by_ab = (
                    _filter_row(moments, i),
                    _filter_row(moments, i + stride),
                    _filter_row(moments, i + stride + stride),
                )
                sign = select(u > v, distance_scale, select(u < v, -distance_scale, ZERO))
                store_part(d_a, at, scale * (by_mean + TWO * u * by_aa + v * by_ab) + sign, num)


def _flat(image: Tensor) -> np.ndarray:
    return image.detach().contiguous().numpy().reshape(-1)


def _no_numbers() -> np.ndarray:
    return np.empty(0, np.float32)


class Similarity(Function):
    """Compute the similarity of images per pixel and channel, ``[H, W, 3]``; differentiable in ``a``."""

    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor) -> Tensor:
        similarity = torch.empty(a.shape)
        partials = torch.empty(3 if ctx.needs_input_grad[0] else 0, *a.shape)
        with limit_threads(a.numel(), MIN_NUMBERS) as threads:
            totals = np.empty((threads, 2))
            similarity_forward(_flat(a), _flat(b), len(a), _flat(similarity), _flat(partials), totals)
        ctx.save_for_backward(a, b, partials)
        return similarity

    @staticmethod
    @once_differentiable
    def backward(ctx, d):
        a, b, partials = ctx.saved_tensors
        d_a = torch.empty(a.shape)
        with limit_threads(a.numel(), MIN_NUMBERS) as threads:
            similarity_backward(_flat(a), _flat(b), len(a), _flat(partials), _flat(d), ONE, ZERO, _flat(d_a), threads)
        return d_a, None


class Photometric(Function):
    """Compute ``(1 - w) mean |a - b| + w (1 - mean similarity)`` of images ``[H, W, 3]``; differentiable in ``a``."""

    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor, ssim_weight: float) -> Tensor:
        with_gradient = ctx.needs_input_grad[0]
        partials = np.empty(3 * a.numel() if with_gradient else 0, np.float32)
        images = _flat(a), _flat(b)
        with limit_threads(a.numel(), MIN_NUMBERS) as threads:
            totals = np.empty((threads, 2))
            similarity_forward(*images, len(a), _no_numbers(), partials, totals)
            if with_gradient:
                d_a = torch.empty(a.shape)
                scales = np.float32(-ssim_weight / a.numel()), np.float32((1 - ssim_weight) / a.numel())
                similarity_backward(*images, len(a), partials, None, *scales, _flat(d_a), threads)
                ctx.save_for_backward(d_a)
        similarity, distance = totals.sum(axis=0) / a.numel()
        return torch.tensor((1 - ssim_weight) * distance + ssim_weight * (1 - similarity), dtype=torch.float32)

    @staticmethod
    @once_differentiable
    def backward(ctx, d):
        (d_a,) = ctx.saved_tensors
        return d_a * d, None, None
