"""Autograd functions of the CPU kernels: project, color, rasterize.

They are separate so that ``means2d`` is a tensor of the graph, whose gradient densification reads. All take tensors of
``C`` cameras; a kernel processes one camera at a time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from splatfix.jit import limit_threads
from splatfix.profiling import section
from splatfix.rendering.cpu import compositing, harmonics, projection, tiles
from splatfix.rendering.cpu.lanes import allocate_aligned

# The smallest work per thread (`limit_threads`): waking a thread for less takes longer than the work.
MIN_GAUSSIANS_PROJECTED, MIN_GAUSSIANS_COLORED = 4000, 6000
MIN_GAUSSIANS_PACKED, MIN_TILES_TOUCHED, MIN_BLOCKS_DRAWN, MIN_GAUSSIANS_GATHERED = 20000, 30000, 15000, 20000

KEEP_ALL = np.zeros(0, np.bool_)  # the ``keep`` mask of a render without dropout


def _to_array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()


def _to_array_or_zeros(gradient: Tensor | None, like: Tensor) -> np.ndarray:
    return np.zeros(like.shape, np.float32) if gradient is None else _to_array(gradient)


class Project(Function):
    """Project parameters ``[N, .]`` to means2d ``[C, N, 2]``, conics ``[C, N, 3]``, depths, opacities, radii."""

    @staticmethod
    def forward(
        ctx,
        means: Tensor,
        log_scales: Tensor,
        quats: Tensor,
        opacity_logits: Tensor,
        keep: Tensor | None,
        cameras: Sequence[np.ndarray],
        antialiased: bool,
    ) -> tuple[Tensor, ...]:
        c, n = len(cameras), len(means)
        shapes = [(c, n, 2), (c, n, 3), (c, n), (c, n)]
        outputs = [torch.empty(shape, dtype=torch.float32) for shape in shapes]
        radii = torch.empty((c, n, 2), dtype=torch.int32)
        parameters = [_to_array(t) for t in (means, log_scales, quats, opacity_logits)]
        mask = KEEP_ALL if keep is None else _to_array(keep)
        for i, camera in enumerate(cameras):
            views = [output[i].numpy() for output in (*outputs, radii)]
            with section("project"), limit_threads(n, MIN_GAUSSIANS_PROJECTED) as threads:
                projection.project(*parameters, mask, camera, antialiased, threads, *views)
        ctx.save_for_backward(means, log_scales, quats, opacity_logits, radii)
        ctx.cameras, ctx.antialiased = cameras, antialiased
        ctx.mark_non_differentiable(radii)
        ctx.set_materialize_grads(False)
        return *outputs, radii

    @staticmethod
    @once_differentiable
    def backward(ctx, d_means2d, d_conics, d_depths, d_opacities, _):
        *parameters, radii = ctx.saved_tensors
        c, n = radii.shape[:2]
        d_outputs = [
            np.zeros((c, n, *end), np.float32) if d is None else _to_array(d)
            for d, end in ((d_means2d, (2,)), (d_conics, (3,)), (d_depths, ()), (d_opacities, ()))
        ]
        arrays = [_to_array(t) for t in parameters]
        gradients = [torch.empty(t.shape, dtype=torch.float32) for t in parameters]
        results = [g.numpy() for g in gradients]
        seen = _to_array(radii)
        for i, camera in enumerate(ctx.cameras):
            with section("project, backward"), limit_threads(n, MIN_GAUSSIANS_PROJECTED) as threads:
                projection.project_backward(
                    *arrays, camera, ctx.antialiased, threads, seen[i], *(d[i] for d in d_outputs), *results, i == 0
                )
        return *gradients, None, None, None


class Color(Function):
    """Evaluate harmonics to colors ``[C, N, 3]``, zero where ``radii [C, N, 2]`` is 0 (not visible)."""

    @staticmethod
    def forward(
        ctx, means: Tensor, sh0: Tensor, sh_rest: Tensor, radii: Tensor, cameras: Sequence[np.ndarray], degree: int
    ) -> Tensor:
        colors = torch.empty((*radii.shape[:2], 3), dtype=torch.float32)
        parameters = [_to_array(t) for t in (means, sh0, sh_rest)]
        seen = _to_array(radii)
        for i, camera in enumerate(cameras):
            with section("color"), limit_threads(len(means), MIN_GAUSSIANS_COLORED) as threads:
                harmonics.color(*parameters, camera[18:], degree, seen[i], threads, colors[i].numpy())
        ctx.save_for_backward(means, sh0, sh_rest, radii, colors)
        ctx.cameras, ctx.degree = cameras, degree
        return colors

    @staticmethod
    @once_differentiable
    def backward(ctx, d_colors):
        means, sh0, sh_rest, radii, colors = ctx.saved_tensors
        gradients = [torch.empty(t.shape, dtype=torch.float32) for t in (means, sh0, sh_rest)]
        results = [g.numpy() for g in gradients]
        inputs = [_to_array(means), _to_array(sh_rest)]
        seen, shown, d_shown = _to_array(radii), _to_array(colors), _to_array(d_colors)
        for i, camera in enumerate(ctx.cameras):
            with section("color, backward"), limit_threads(len(means), MIN_GAUSSIANS_COLORED) as threads:
                harmonics.color_backward(
                    *inputs, camera[18:], ctx.degree, seen[i], shown[i], threads, d_shown[i], *results, i == 0
                )
        return *gradients, None, None, None


class Rasterize(Function):
    """Rasterize to rgb ``[C, H, W, 3]``, alpha and depth ``[C, H, W]``, with smaller images at the top left."""

    @staticmethod
    def forward(
        ctx,
        means2d: Tensor,
        conics: Tensor,
        depths: Tensor,
        opacities: Tensor,
        colors: Tensor,
        background: Tensor,
        radii: Tensor,
        sizes: Sequence[tuple[int, int]],
    ) -> tuple[Tensor, Tensor, Tensor]:
        c, width, height = len(sizes), max(w for w, _ in sizes), max(h for _, h in sizes)
        allocate = torch.empty if len(set(sizes)) == 1 else torch.zeros
        images = [allocate(shape, dtype=torch.float32) for shape in ((c, height, width, 3), *[(c, height, width)] * 2)]
        projected = [_to_array(t) for t in (means2d, conics, depths, opacities, colors, radii)]
        behind = _to_array(background)
        ctx.drawn = []
        for i, (w, h) in enumerate(sizes):
            with section("sort by depth"):
                visible, order = tiles.sort_by_depth(projected[2][i], projected[5][i])
            with section("pack records"), limit_threads(len(visible), MIN_GAUSSIANS_PACKED) as threads:
                records, capacities = tiles.pack_records(visible, *(array[i] for array in projected), w, h, threads)
            with section("deal to tiles"), limit_threads(int(capacities.sum()), MIN_TILES_TOUCHED) as threads:
                entries, starts, work = tiles.assign_to_tiles(records, order, capacities, w, h, threads)
            drawn = [image[i].numpy() for image in images]
            with section("draw"), limit_threads(int(work.sum()), MIN_BLOCKS_DRAWN) as threads:
                compositing.composite(records.reshape(-1), entries, starts, threads, w, h, behind, *drawn, work)
            ctx.drawn.append((visible, records, entries, starts, work))
        ctx.save_for_backward(conics, opacities, *images)
        ctx.sizes = tuple(sizes)
        ctx.set_materialize_grads(False)
        rgb, alpha, depth = images
        return rgb, alpha, depth

    @staticmethod
    @once_differentiable
    def backward(ctx, d_rgb, d_alpha, d_depth):
        conics, opacities, rgb, alpha, depth = ctx.saved_tensors
        c, n = opacities.shape
        gradients = [torch.zeros((c, n, *end), dtype=torch.float32) for end in ((2,), (3,), (), (), (3,))]
        images = [_to_array(t) for t in (rgb, alpha, depth)]
        d_shown = [_to_array_or_zeros(d, image) for d, image in ((d_rgb, rgb), (d_alpha, alpha))]
        d_depths = None if d_depth is None else _to_array(d_depth)
        d_background = None
        if ctx.needs_input_grad[5] and d_rgb is not None:
            seen = torch.zeros_like(alpha)
            for i, (w, h) in enumerate(ctx.sizes):
                seen[i, :h, :w] = 1 - alpha[i, :h, :w]
            d_background = torch.einsum("chw,chwk->k", seen, d_rgb)
        projected = [_to_array(t) for t in (conics, opacities)]
        for i, (w, h) in enumerate(ctx.sizes):
            visible, records, entries, starts, work = ctx.drawn[i]
            d_images = [*(d[i] for d in d_shown), None if d_depths is None else d_depths[i]]
            with section("draw, backward"), limit_threads(int(work.sum()), MIN_BLOCKS_DRAWN) as threads:
                shape = threads, len(visible), compositing.NUM_SUMS
                totals = allocate_aligned(math.prod(shape)).reshape(shape)
                totals.fill(0)
                compositing.composite_backward(
                    records.reshape(-1), entries, starts, tiles.split_work(work, threads), w, h,
                    *(image[i] for image in images), *d_images, totals.reshape(-1),
                )  # fmt: skip
            with section("gather gradients"), limit_threads(len(visible), MIN_GAUSSIANS_GATHERED) as threads:
                compositing.gather_gradients(
                    visible, totals, *(array[i] for array in projected), threads, *(g[i].numpy() for g in gradients)
                )
        return *gradients, d_background, None, None
