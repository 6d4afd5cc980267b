"""The photometric loss on CUDA in four kernels of Triton, with its gradient.

Torch needs some sixty kernels for the same, and keeps more than twenty images for the backward pass. Here the window is
separable: one kernel filters along rows, the next along columns and computes the similarity with its derivatives by the
window's means; two more filter these to the gradient. Images remain interleaved, so the window steps by three numbers
along a row. Sums are per block and added up by torch, so that they are the same each time.

Only imported where `triton` is; `rendering.ssim` chooses.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from splatfix.metrics import SSIM_C1, SSIM_C2, SSIM_RADIUS_PX, ssim_window

BLOCK = 1024  # numbers of a program
CHANNELS = 3


@triton.jit
def _filter_pair_along_rows(a, b, moments, window, length, size, RADIUS: tl.constexpr, BLOCK: tl.constexpr):
    """Write the means along rows of a, b, aa, bb, ab to the five sections of ``moments``, each ``[size]``.

    ``length``: numbers in a row.
    """
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    column = i % length
    m_a = tl.zeros((BLOCK,), tl.float32)
    m_b, m_aa, m_bb, m_ab = m_a, m_a, m_a, m_a
    for k in tl.static_range(2 * RADIUS + 1):
        step = 3 * (k - RADIUS)
        inside = (i < size) & (column + step >= 0) & (column + step < length)
        weight = tl.load(window + k)
        u = tl.load(a + i + step, mask=inside, other=0.0)
        v = tl.load(b + i + step, mask=inside, other=0.0)
        m_a += weight * u
        m_b += weight * v
        m_aa += weight * u * u
        m_bb += weight * v * v
        m_ab += weight * u * v
    inside = i < size
    tl.store(moments + i, m_a, mask=inside)
    tl.store(moments + i + size, m_b, mask=inside)
    tl.store(moments + i + 2 * size, m_aa, mask=inside)
    tl.store(moments + i + 3 * size, m_bb, mask=inside)
    tl.store(moments + i + 4 * size, m_ab, mask=inside)


@triton.jit
def _compare_along_columns(
    a, b, moments, partials, totals, window, length, size, num_blocks, C1, C2, RADIUS: tl.constexpr, BLOCK: tl.constexpr
):
    """Write the derivatives of the similarity by the window's mean of a, aa and ab to ``partials``, ``[3, size]``.

    ``totals [2, num_blocks]`` receives the sums of the similarity and of ``|a - b|`` over each block.
    """
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    u = tl.zeros((BLOCK,), tl.float32)
    v, aa, bb, ab = u, u, u, u
    for k in tl.static_range(2 * RADIUS + 1):
        at = i + (k - RADIUS) * length
        inside = (i < size) & (at >= 0) & (at < size)
        weight = tl.load(window + k)
        u += weight * tl.load(moments + at, mask=inside, other=0.0)
        v += weight * tl.load(moments + at + size, mask=inside, other=0.0)
        aa += weight * tl.load(moments + at + 2 * size, mask=inside, other=0.0)
        bb += weight * tl.load(moments + at + 3 * size, mask=inside, other=0.0)
        ab += weight * tl.load(moments + at + 4 * size, mask=inside, other=0.0)
    top1, top2 = 2 * u * v + C1, 2 * (ab - u * v) + C2
    bottom1, bottom2 = u * u + v * v + C1, (aa - u * u) + (bb - v * v) + C2
    inverse = 1.0 / (bottom1 * bottom2)
    value = top1 * top2 * inverse
    d_ab = 2 * top1 * inverse
    d_aa = -value * inverse * bottom1
    d_mean = 2 * v * top2 * inverse - value * 2 * u * inverse * bottom2 - d_ab * v - 2 * d_aa * u
    inside = i < size
    tl.store(partials + i, d_mean, mask=inside)
    tl.store(partials + i + size, d_aa, mask=inside)
    tl.store(partials + i + 2 * size, d_ab, mask=inside)
    distance = tl.abs(tl.load(a + i, mask=inside, other=0.0) - tl.load(b + i, mask=inside, other=0.0))
    tl.store(totals + tl.program_id(0), tl.sum(tl.where(inside, value, 0.0)))
    tl.store(totals + num_blocks + tl.program_id(0), tl.sum(distance))


@triton.jit
def _filter_partials_along_rows(partials, filtered, window, length, size, RADIUS: tl.constexpr, BLOCK: tl.constexpr):
    """Filter the three sections of ``partials`` along rows."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    column = i % length
    by_mean = tl.zeros((BLOCK,), tl.float32)
    by_aa, by_ab = by_mean, by_mean
    for k in tl.static_range(2 * RADIUS + 1):
        step = 3 * (k - RADIUS)
        inside = (i < size) & (column + step >= 0) & (column + step < length)
        weight = tl.load(window + k)
        by_mean += weight * tl.load(partials + i + step, mask=inside, other=0.0)
        by_aa += weight * tl.load(partials + i + step + size, mask=inside, other=0.0)
        by_ab += weight * tl.load(partials + i + step + 2 * size, mask=inside, other=0.0)
    inside = i < size
    tl.store(filtered + i, by_mean, mask=inside)
    tl.store(filtered + i + size, by_aa, mask=inside)
    tl.store(filtered + i + 2 * size, by_ab, mask=inside)


@triton.jit
def _combine_along_columns(
    a, b, filtered, d_a, window, length, size, scale, distance_scale, RADIUS: tl.constexpr, BLOCK: tl.constexpr
):
    """Write the gradient by ``a`` of ``scale * sum(similarity) + distance_scale * sum(|a - b|)`` to ``d_a``."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    by_mean = tl.zeros((BLOCK,), tl.float32)
    by_aa, by_ab = by_mean, by_mean
    for k in tl.static_range(2 * RADIUS + 1):
        at = i + (k - RADIUS) * length
        inside = (i < size) & (at >= 0) & (at < size)
        weight = tl.load(window + k)
        by_mean += weight * tl.load(filtered + at, mask=inside, other=0.0)
        by_aa += weight * tl.load(filtered + at + size, mask=inside, other=0.0)
        by_ab += weight * tl.load(filtered + at + 2 * size, mask=inside, other=0.0)
    inside = i < size
    u, v = tl.load(a + i, mask=inside, other=0.0), tl.load(b + i, mask=inside, other=0.0)
    sign = tl.where(u > v, distance_scale, tl.where(u < v, -distance_scale, 0.0))
    tl.store(d_a + i, scale * (by_mean + 2 * u * by_aa + v * by_ab) + sign, mask=inside)


class Photometric(Function):
    """Compute ``(1 - w) mean |a - b| + w (1 - mean similarity)`` of images ``[H, W, 3]``; differentiable in ``a``.

    The images are float32, on the same device.
    """

    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor, ssim_weight: float) -> Tensor:
        a, b = a.detach().contiguous(), b.detach().contiguous()
        size, length = a.numel(), CHANNELS * a.shape[1]
        num_blocks = triton.cdiv(size, BLOCK)
        totals, partials = a.new_empty(2, num_blocks), a.new_empty(3, size)
        window, options = ssim_window(a.dtype, a.device), {"RADIUS": SSIM_RADIUS_PX, "BLOCK": BLOCK}
        with torch.cuda.device_of(a):  # Triton launches on the current device
            grid, moments = (num_blocks,), a.new_empty(5, size)
            _filter_pair_along_rows[grid](a, b, moments, window, length, size, **options)
            places = (moments, partials, totals, window)
            _compare_along_columns[grid](a, b, *places, length, size, num_blocks, SSIM_C1, SSIM_C2, **options)
            if ctx.needs_input_grad[0]:
                filtered, d_a = moments[:3], torch.empty_like(a)
                scales = -ssim_weight / size, (1 - ssim_weight) / size
                _filter_partials_along_rows[grid](partials, filtered, window, length, size, **options)
                _combine_along_columns[grid](a, b, filtered, d_a, window, length, size, *scales, **options)
                ctx.save_for_backward(d_a)
        similarity, distance = (totals.sum(dim=1) / size).unbind()
        return (1 - ssim_weight) * distance + ssim_weight * (1 - similarity)

    @staticmethod
    @once_differentiable
    def backward(ctx, d):
        (d_a,) = ctx.saved_tensors
        return d_a * d, None, None
