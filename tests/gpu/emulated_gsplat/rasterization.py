"""Emulate what gsplat computes per tile and pixel: the Gaussians of each tile, and their blending."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from tests.gpu.emulated_gsplat.tensors import check_inputs, make_leaves
from tests.rendering import reference


def intersect_tile(
    means2d: Tensor,  # [C, N, 2]
    radii: Tensor,  # [C, N, 2]
    depths: Tensor,  # [C, N]
    image_ids: None,
    gaussian_ids: None,
    num_images: int,
    tile_size: int,
    tile_width: int,
    tile_height: int,
    sort: bool,
    segmented: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """List the pairs of a tile and a Gaussian whose box touches it, front to back in each tile.

    Returns:
        The number of tiles per Gaussian, int32 ``[C, N]``; the sorted keys of the pairs (image, tile, and depth in 32
        bits), int64; and the flat index of the Gaussian of each pair, int32.
    """
    check_inputs(means2d, depths)
    assert radii.dtype == torch.int32
    assert image_ids is gaussian_ids is None, "packed mode is not emulated"
    assert sort
    assert not segmented
    assert num_images == len(means2d)
    limits = torch.tensor([tile_width, tile_height])
    seen = (radii > 0).all(-1)
    first, last = (
        torch.where(seen[..., None], edge.clamp(min=0), 0).minimum(limits).long().flatten(0, 1)
        for edge in (((means2d - radii) / tile_size).floor(), ((means2d + radii) / tile_size).ceil())
    )
    counts = (last - first).prod(-1)
    flat = torch.repeat_interleave(torch.arange(len(counts)), counts)
    rank = torch.arange(len(flat)) - (counts.cumsum(0) - counts)[flat]
    columns = (last - first)[flat, 0]
    tiles = (first[flat, 1] + rank // columns.clamp(min=1)) * tile_width + first[flat, 0] + rank % columns.clamp(min=1)
    image = flat // means2d.shape[1]
    depth_bits = depths.flatten()[flat].view(torch.int32).long()  # ordered like the depths, which are positive
    keys = image << (32 + _count_bits(tile_width * tile_height)) | tiles << 32 | depth_bits
    keys, order = keys.sort(stable=True)
    return counts.reshape(depths.shape).to(torch.int32), keys, flat[order].to(torch.int32)


def intersect_offset(keys: Tensor, num_images: int, tile_width: int, tile_height: int) -> Tensor:
    """Find where the pairs of each tile start, int32 ``[C, tile_height, tile_width]``."""
    assert keys.dtype == torch.int64
    num_tiles = tile_width * tile_height
    image = torch.arange(num_images)[:, None]
    wanted = (image << _count_bits(num_tiles) | torch.arange(num_tiles)) << 32
    starts = torch.searchsorted(keys, wanted.flatten())
    return starts.reshape(num_images, tile_height, tile_width).to(torch.int32)


def _count_bits(num_tiles: int) -> int:
    return math.floor(math.log2(num_tiles)) + 1


def rasterize_to_pixels_3dgs_fwd(
    means2d: Tensor,  # [C, N, 2]
    conics: Tensor,  # [C, N, 3]
    colors: Tensor,  # [C, N, K]
    opacities: Tensor,  # [C, N]
    backgrounds: Tensor | None,  # [C, K]
    masks: None,
    width: int,
    height: int,
    tile_size: int,
    tile_offsets: Tensor,  # [C, tile_height, tile_width]
    flatten_ids: Tensor,  # [num_pairs]
) -> tuple[Tensor, Tensor, Tensor]:
    """Blend images ``[C, H, W, K]`` and alphas ``[C, H, W, 1]``; and the last pair that each pixel used, int32."""
    check_inputs(means2d, conics, colors, opacities, backgrounds, tile_offsets, flatten_ids)
    assert masks is None
    num_images, _, channels = colors.shape
    images = torch.full((num_images, height, width, channels), torch.nan)
    alphas = torch.full((num_images, height, width, 1), torch.nan)
    last = torch.zeros(num_images, height, width, dtype=torch.int32)
    gaussians = [t.double().flatten(0, 1) for t in (means2d, conics, colors, opacities)]
    for image, rows, columns, pairs in _each_tile(tile_offsets, len(flatten_ids), tile_size, width, height):
        ids = flatten_ids[pairs].long()
        means, *others = (t[ids] for t in gaussians)
        pixels = _pixel_centers(rows, columns)
        background = None if backgrounds is None else backgrounds[image].double()
        color, alpha, used = _blend(means.expand(len(pixels), -1, -1), *others, pixels, background)
        images[image, rows, columns] = color.reshape(*images[image, rows, columns].shape).float()
        alphas[image, rows, columns] = alpha.reshape(*alphas[image, rows, columns].shape).float()
        index = torch.where(used, torch.arange(pairs.start, pairs.stop), 0).amax(1) if len(ids) else used.sum(1)
        last[image, rows, columns] = index.reshape(last[image, rows, columns].shape).to(torch.int32)
    return images, alphas, last


def rasterize_to_pixels_3dgs_bwd(
    means2d: Tensor,
    conics: Tensor,
    colors: Tensor,
    opacities: Tensor,
    backgrounds: Tensor | None,
    masks: None,
    width: int,
    height: int,
    tile_size: int,
    tile_offsets: Tensor,
    flatten_ids: Tensor,
    alphas: Tensor,
    last_ids: Tensor,
    v_images: Tensor,
    v_alphas: Tensor,
    absgrad: bool,
) -> tuple[Tensor | None, Tensor, Tensor, Tensor, Tensor]:
    """Differentiate `rasterize_to_pixels_3dgs_fwd`.

    Returns:
        Gradients of means2d, conics, colors and opacities; before them, that of means2d with absolute values of each
        pixel, or None without ``absgrad`` (AbsGS, Ye et al. 2024).
    """
    check_inputs(means2d, conics, colors, opacities, backgrounds, alphas, last_ids, v_images, v_alphas)
    assert masks is None
    gaussians = [t.double().flatten(0, 1) for t in (means2d, conics, colors, opacities)]
    totals = [torch.zeros_like(t) for t in (gaussians[0], *gaussians)]
    for image, rows, columns, pairs in _each_tile(tile_offsets, len(flatten_ids), tile_size, width, height):
        ids = flatten_ids[pairs].long()
        if len(ids) == 0:
            continue
        pixels = _pixel_centers(rows, columns)
        background = None if backgrounds is None else backgrounds[image].double()
        with torch.enable_grad():
            means, *others = (t[ids] for t in gaussians)
            leaves = make_leaves(means.expand(len(pixels), -1, -1), *others)
            color, alpha, _ = _blend(*leaves, pixels, background)
            wanted = (v_images[image, rows, columns].flatten(0, 1), v_alphas[image, rows, columns].flatten())
            found = torch.autograd.grad((color, alpha), leaves, [v.double() for v in wanted])
        for total, gradient in zip(totals, (found[0].abs().sum(0), found[0].sum(0), *found[1:]), strict=True):
            total.index_add_(0, ids, gradient)
    shapes = (means2d, means2d, conics, colors, opacities)
    absolute, *gradients = (total.float().reshape(t.shape) for total, t in zip(totals, shapes, strict=True))
    return absolute if absgrad else None, *gradients


def _each_tile(
    offsets: Tensor, num_pairs: int, tile_size: int, width: int, height: int
) -> Iterator[tuple[int, slice, slice, slice]]:
    """Yield each tile: its image, its rows and columns of pixels, and its pairs."""
    starts = [*offsets.flatten().tolist(), num_pairs]
    num_images, tile_height, tile_width = offsets.shape
    for k in range(num_images * tile_height * tile_width):
        image, row, column = k // (tile_height * tile_width), k // tile_width % tile_height, k % tile_width
        rows = slice(row * tile_size, min((row + 1) * tile_size, height))
        columns = slice(column * tile_size, min((column + 1) * tile_size, width))
        yield image, rows, columns, slice(starts[k], starts[k + 1])


def _pixel_centers(rows: slice, columns: slice) -> Tensor:
    y, x = torch.meshgrid(*(torch.arange(s.start, s.stop) + 0.5 for s in (rows, columns)), indexing="ij")
    return torch.stack([x, y], dim=-1).reshape(-1, 1, 2).double()


def _blend(
    means: Tensor,  # [P, n, 2]
    conics: Tensor,  # [n, 3]
    colors: Tensor,  # [n, K]
    opacities: Tensor,  # [n]
    pixels: Tensor,  # [P, 1, 2]
    background: Tensor | None,  # [K]
) -> tuple[Tensor, Tensor, Tensor]:
    """Blend n Gaussians, front to back, at P pixels (Kerbl et al. 2023, eq. 3): colors, alphas, who was used.

    A Gaussian below alpha 1/255 is left out. A pixel ends before the Gaussian with which its transmittance would fall
    to 1e-4.
    """
    x, y = (pixels - means).unbind(-1)
    a, b, c = conics.unbind(-1)
    power = 0.5 * (a * x * x + c * y * y) + b * x * y
    alpha = (opacities * torch.exp(-power)).clamp(max=reference.MAX_ALPHA)
    alpha = torch.where((power >= 0) & (alpha >= reference.MIN_ALPHA), alpha, 0)
    transmittance = torch.cumprod(1 - alpha, dim=1)
    live = transmittance > reference.MIN_TRANSMITTANCE
    before = torch.cat([torch.ones_like(alpha[:, :1]), transmittance[:, :-1]], dim=1)[:, : alpha.shape[1]]
    weights = torch.where(live, alpha * before, 0)
    remaining = 1 - weights.sum(1)
    color = weights @ colors
    if background is not None:
        color = color + remaining[:, None] * background
    return color, 1 - remaining, live & (alpha > 0)
