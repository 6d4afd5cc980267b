"""Structural similarity in one fused pass per direction: products, both one-dimensional windows, and the formula.

Images stay interleaved ``[H, W, 3]``: along a row the window steps by three numbers, so every loop runs over contiguous
memory. Each thread takes a band of rows; nothing of the size of an image is stored but what the backward pass needs.
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from numba import prange, uint64
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from splatfix.rendering.cpu.compile import REORDERED, kernel
from splatfix.rendering.ssim import K1, K2, RADIUS, window

TAPS = 2 * RADIUS + 1
PADDING = np.uint64(3 * RADIUS)  # numbers on either side of a row
WINDOW = window(torch.float32).numpy()
C1, C2 = np.float32(K1), np.float32(K2)
ZERO, ONE, TWO = np.float32(0), np.float32(1), np.float32(2)


@kernel(fastmath=REORDERED)
def _down(a, b, row, length, stride, moments):
    """Window along the column: five moments of the rows around ``row`` into ``moments [5 * stride]``."""
    moments[:] = 0
    s = uint64(stride)
    height = len(a)
    for k in range(max(0, RADIUS - row), min(TAPS, height + RADIUS - row)):
        weight = WINDOW[k]
        row_a, row_b = a[row + k - RADIUS], b[row + k - RADIUS]
        for p in range(uint64(length)):
            u, v = row_a[p], row_b[p]
            wu, wv = weight * u, weight * v
            q = p + PADDING
            moments[q] += wu
            moments[q + s] += wv
            moments[q + s + s] += wu * u
            moments[q + s + s + s] += wv * v
            moments[q + s + s + s + s] += wu * v


@kernel(fastmath=REORDERED)
def _across(source, offset, length, out):
    """Window along the row of one padded section of ``source``."""
    w0, w1, w2, w3, w4, w5 = WINDOW[0], WINDOW[1], WINDOW[2], WINDOW[3], WINDOW[4], WINDOW[5]
    o = uint64(offset)
    for p in range(uint64(length)):
        i = p + o
        total = w5 * source[i + uint64(15)]
        total += w0 * (source[i] + source[i + uint64(30)]) + w1 * (source[i + uint64(3)] + source[i + uint64(27)])
        total += w2 * (source[i + uint64(6)] + source[i + uint64(24)])
        total += w3 * (source[i + uint64(9)] + source[i + uint64(21)])
        total += w4 * (source[i + uint64(12)] + source[i + uint64(18)])
        out[p + o] = total


@kernel(fastmath=REORDERED)
def _formula(m, length, stride, similarity):
    """Similarity of one row from its moments; their sections then hold its derivatives by mean a, E[aa], E[ab]."""
    s = uint64(stride)
    for p in range(uint64(length)):
        u, v = m[p], m[p + s]
        var_a, var_b = m[p + s + s] - u * u, m[p + s + s + s] - v * v
        cov = m[p + s + s + s + s] - u * v
        top1, top2 = TWO * u * v + C1, TWO * cov + C2
        bottom1, bottom2 = u * u + v * v + C1, var_a + var_b + C2
        inverse = ONE / (bottom1 * bottom2)
        value = top1 * top2 * inverse
        similarity[p] = value
        d_ab = TWO * top1 * inverse
        d_aa = -value / bottom2
        d_mean = TWO * v * top2 * inverse - value * TWO * u / bottom1 - d_ab * v - TWO * d_aa * u
        m[p], m[p + s], m[p + s + s] = d_mean, d_aa, d_ab


@kernel(parallel=True)
def similarity_forward(a, b, similarity, partials, num_threads):
    """``similarity [H, W * 3]`` of ``a`` and ``b [H, W * 3]``; ``partials [3, H, W * 3]`` if that is not empty."""
    height, length = a.shape
    stride = length + 2 * 3 * RADIUS
    for thread in prange(num_threads):
        down, across = np.empty(5 * stride, np.float32), np.empty(5 * stride, np.float32)
        for row in range(height * thread // num_threads, height * (thread + 1) // num_threads):
            _down(a, b, row, length, stride, down)
            for section in range(5):
                _across(down, section * stride, length, across)
            _formula(across, length, stride, similarity[row])
            for section in range(len(partials)):
                partials[section, row, :] = across[section * stride : section * stride + length]


@kernel(fastmath=REORDERED)
def _down_weighted(d, partials, row, length, stride, sums):
    """Window along the column over the three partials, each times the gradient ``d``."""
    sums[:] = 0
    s = uint64(stride)
    height = len(d)
    for k in range(max(0, RADIUS - row), min(TAPS, height + RADIUS - row)):
        r = row + k - RADIUS
        d_row, by_mean, by_aa, by_ab = d[r], partials[0, r], partials[1, r], partials[2, r]
        for p in range(uint64(length)):
            weight = WINDOW[k] * d_row[p]
            q = p + PADDING
            sums[q] += weight * by_mean[p]
            sums[q + s] += weight * by_aa[p]
            sums[q + s + s] += weight * by_ab[p]


@kernel(fastmath=REORDERED)
def _combine(m, a, b, length, stride, d_a):
    s = uint64(stride)
    for p in range(uint64(length)):
        d_a[p] = m[p] + TWO * a[p] * m[p + s] + b[p] * m[p + s + s]


@kernel(parallel=True)
def similarity_backward(a, b, partials, d, d_a, num_threads):
    """Gradient of ``a`` from that of the similarity, ``d``; both ``[H, W * 3]``."""
    height, length = a.shape
    stride = length + 2 * 3 * RADIUS
    for thread in prange(num_threads):
        down, across = np.empty(3 * stride, np.float32), np.empty(3 * stride, np.float32)
        for row in range(height * thread // num_threads, height * (thread + 1) // num_threads):
            _down_weighted(d, partials, row, length, stride, down)
            for section in range(3):
                _across(down, section * stride, length, across)
            _combine(across, a[row], b[row], length, stride, d_a[row])


class Similarity(Function):
    """Images ``[H, W, 3]`` to the similarity at every pixel and channel, ``[H, W, 3]``; differentiable in ``a``."""

    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor) -> Tensor:
        h, w, channels = a.shape
        first, second = (t.detach().contiguous().reshape(h, w * channels) for t in (a, b))
        similarity = torch.empty(h, w * channels)
        partials = torch.empty(3 if ctx.needs_input_grad[0] else 0, h, w * channels)
        similarity_forward(first.numpy(), second.numpy(), similarity.numpy(), partials.numpy(), numba.get_num_threads())
        ctx.save_for_backward(first, second, partials)
        return similarity.reshape(h, w, channels)

    @staticmethod
    @once_differentiable
    def backward(ctx, d):
        first, second, partials = ctx.saved_tensors
        d_a = torch.empty_like(first)
        given = d.contiguous().reshape(first.shape).numpy()
        similarity_backward(
            first.numpy(), second.numpy(), partials.numpy(), given, d_a.numpy(), numba.get_num_threads()
        )
        return d_a.reshape(d.shape), None
