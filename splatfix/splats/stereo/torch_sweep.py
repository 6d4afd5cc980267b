"""Plane-sweep stereo with torch, for CUDA: the functions, steps and constants of `cpu`, in float32.

Memory on the device: two volumes of 4 bytes per pixel and plane (scores and smoothed costs), the photos, and what is
computed in tiles of planes, rows or points, at most `BUDGET_BYTES` (more only where one plane needs more). Nothing
waits for the device between the upload of the photos and the download of the depth map.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy import ndarray
from torch import Tensor

from splatfix.cameras import Camera
from splatfix.shapes import Bool, Float, Int
from splatfix.splats.stereo.config import StereoConfig

INVALID = -1.0  # ZNCC where there is nothing to compare
BUDGET_BYTES = 2**29  # of a tile
# Bytes that a tile needs at most: tests/splats/test_torch_sweep.py measures them.
SWEEP_BYTES = 128  # per pixel and plane
SELECT_BYTES = 12  # per pixel and plane
VOTE_BYTES = 64  # per point


def compute_depth_map(
    reference: Float[ndarray, "H W"],
    ref_inside: Bool[ndarray, "H W"],
    images: Float[ndarray, "N h w"],
    insides: Bool[ndarray, "N h w"],
    warps: Float[ndarray, "N 3 4"],
    inverse_depths: Float[ndarray, " K"],
    config: StereoConfig,
    device: torch.device,
) -> Float[ndarray, "H W"]:
    """Compute the depth map of a photo from its neighbors on a device, as `cpu.compute_depth_map` does."""
    arrays = (reference, ref_inside, images, insides, inverse_depths.astype(np.float32))
    photo, inside, others, others_inside, planes = (torch.from_numpy(each).to(device) for each in arrays)
    radii = [side // 2 for side in config.windows_px]
    scores = sweep_planes(photo, inside, others, others_inside, warps, planes, radii, config.min_contrast**2)
    costs = smooth_costs(scores, config.smoothness, 4 * config.smoothness)
    plane = select_planes(scores, costs, config.min_zncc, config.uniqueness)
    step = float(inverse_depths[1] - inverse_depths[0])
    depth = torch.where(plane >= 0, 1 / (float(inverse_depths[0]) + plane.clamp(min=0) * step), 0)
    return remove_specks(depth, 2 * config.max_disagreement, config.min_support).cpu().numpy()


def count_votes(
    positions: Float[ndarray, "P 3"],
    cameras: Sequence[Camera],
    depth_maps: Sequence[Float[ndarray, "_ _"]],
    tolerance: float,
    device: torch.device,
) -> tuple[Int[ndarray, " P"], Int[ndarray, " P"]]:
    """Count the photos that confirm and that contradict world points on a device, as `cpu.count_votes` does."""
    if not len(positions):
        return np.zeros(0, int), np.zeros(0, int)
    origin = positions.mean(axis=0)  # float32 coordinates are relative to it
    points = torch.from_numpy((positions - origin).astype(np.float32)).to(device)
    counts = torch.zeros((2, len(points)), dtype=torch.int64, device=device)
    tile = max(1, BUDGET_BYTES // VOTE_BYTES)
    for camera, depth_map in zip(cameras, depth_maps, strict=True):
        matrix = camera.intrinsics @ camera.rotation
        offset = camera.intrinsics @ (camera.rotation @ origin + camera.camera_from_world[:3, 3])
        pixels_from_world = np.concatenate([matrix, offset[:, None]], axis=1)
        depths = torch.from_numpy(depth_map).to(device)
        for start in range(0, len(points), tile):
            some = slice(start, start + tile)
            x, y, z = points[some].unbind(1)
            u, v, depth = (a * x + b * y + c * z + d for a, b, c, d in pixels_from_world.tolist())
            confirms, contradicts = compare_depths(u / depth, v / depth, depth, depths, tolerance)
            counts[0, some] += confirms
            counts[1, some] += contradicts
    confirming, contradicting = counts.cpu().numpy()
    return confirming, contradicting


def sweep_planes(
    reference: Float[Tensor, "H W"],
    ref_inside: Bool[Tensor, "H W"],
    images: Float[Tensor, "N h w"],
    insides: Bool[Tensor, "N h w"],
    warps: Float[ndarray, "N 3 4"],
    inverse_depths: Float[Tensor, " K"],
    radii: Sequence[int],
    min_variance: float,
) -> Float[Tensor, "H W K"]:
    """Compute the ZNCC of a photo with its neighbors on planes, as `cpu.sweep_planes` does; other order of axes."""
    rows, columns = reference.shape
    scores = reference.new_empty((rows, columns, len(inverse_depths)))
    others = [_prepare_sampling(image, inside) for image, inside in zip(images, insides, strict=True)]
    tile = max(1, BUDGET_BYTES // (SWEEP_BYTES * rows * columns))
    for start in range(0, len(inverse_depths), tile):
        planes = inverse_depths[start : start + tile]
        first = reference.new_full((len(planes), rows, columns), INVALID)
        second = first.clone()
        for (values, usable), warp in zip(others, warps, strict=True):
            warped, ok = _warp_image(values, usable, images.shape[1:], warp, planes, ref_inside)
            score = _compute_zncc(reference, warped, ok, radii, min_variance)
            torch.maximum(second, torch.minimum(first, score), out=second)
            torch.maximum(first, score, out=first)
        mean = torch.where(second > INVALID, 0.5 * (first + second), first)
        scores[..., start : start + tile] = mean.permute(1, 2, 0)
    return scores


def smooth_costs(scores: Float[Tensor, "H W K"], small: float, large: float) -> Float[Tensor, "H W K"]:
    """Sum the costs semi-globally along four directions, as `cpu.smooth_costs` does, up to a constant per pixel."""
    total = torch.zeros_like(scores)
    _add_paths(scores.transpose(0, 1), total.transpose(0, 1), small, large)
    _add_paths(scores, total, small, large)
    return total


def select_planes(
    scores: Float[Tensor, "H W K"], total: Float[Tensor, "H W K"], min_zncc: float, uniqueness: float
) -> Float[Tensor, "H W"]:
    """Select the plane of lowest smoothed cost per pixel: its fractional index or -1, as `cpu.select_planes` does."""
    rows, columns, planes = scores.shape
    selected = scores.new_empty((rows, columns))
    tile = max(1, BUDGET_BYTES // (SELECT_BYTES * columns * planes))
    for start in range(0, rows, tile):
        some = slice(start, start + tile)
        s, k = scores[some], total[some].argmin(-1, keepdim=True)
        middle = k.clamp(1, planes - 2)
        before, peak, after = (s.gather(-1, middle + shift) for shift in (-1, 0, 1))
        rival = _find_rivals(s, k)
        good = (k == middle) & (peak >= min_zncc) & (1 - peak <= uniqueness * (1 - rival))
        bend = before - 2 * peak + after
        offset = torch.where(bend < -1e-6, (0.5 * (before - after) / bend).clamp(-0.5, 0.5), 0)
        selected[some] = torch.where(good, k + offset, -1)[..., 0]
    return selected


def compare_depths(
    u: Float[Tensor, " P"],
    v: Float[Tensor, " P"],
    depths: Float[Tensor, " P"],
    depth_map: Float[Tensor, "H W"],
    tolerance: float,
) -> tuple[Bool[Tensor, " P"], Bool[Tensor, " P"]]:
    """Compare points at pixels (u, v) with a depth map: which it confirms, and which it contradicts.

    The votes 1 and -1 of `cpu.compare_depths`.
    """
    rows, columns = depth_map.shape
    left = torch.where(depths > 0, u - 0.5, -2).floor().clamp(-2, columns).long()
    top = torch.where(depths > 0, v - 0.5, -2).floor().clamp(-2, rows).long()
    padded = F.pad(depth_map, (2, 2, 2, 2))  # no depth outside
    confirms = torch.zeros_like(depths, dtype=torch.bool)
    known, nearer = confirms.clone(), confirms.clone()
    for dy in (2, 3):
        for dx in (2, 3):
            seen = padded.flatten()[(top + dy) * (columns + 4) + left + dx]
            has_depth = seen > 0
            known |= has_depth
            confirms |= has_depth & ((seen - depths).abs() < tolerance * depths)
            nearer |= has_depth & (seen <= depths)
    in_front = depths > 0
    return confirms & in_front, known & ~confirms & ~nearer & in_front


def remove_specks(depth_map: Float[Tensor, "H W"], tolerance: float, least: int) -> Float[Tensor, "H W"]:
    """Set depths to 0 that fewer than ``least`` of the 24 pixels around them share."""
    rows, columns = depth_map.shape
    padded = F.pad(depth_map, (2, 2, 2, 2))
    same = torch.full_like(depth_map, -1)  # a pixel shares its own depth
    for y in range(5):
        for x in range(5):
            same += (padded[y : y + rows, x : x + columns] - depth_map).abs() < tolerance * depth_map
    return torch.where(same >= least, depth_map, 0)


def _prepare_sampling(
    image: Float[Tensor, "h w"], inside: Bool[Tensor, "h w"]
) -> tuple[Float[Tensor, " padded"], Bool[Tensor, " pixels"]]:
    """Flatten an image, padded so that four pixels from any on have an index, and whether these four are valid."""
    usable = inside & _shift(inside, 0, 1) & _shift(inside, 1, 0) & _shift(inside, 1, 1)
    return F.pad(image.flatten(), (0, image.shape[1] + 1)), usable.flatten()


def _shift(inside: Bool[Tensor, "h w"], down: int, right: int) -> Bool[Tensor, "h w"]:
    """Move an image up and to the left; what enters is False."""
    return F.pad(inside, (0, right, 0, down))[down:, right:]


def _warp_image(
    values: Float[Tensor, " padded"],
    usable: Bool[Tensor, " pixels"],
    size: Sequence[int],
    warp: Float[ndarray, "3 4"],
    planes: Float[Tensor, " k"],
    ref_inside: Bool[Tensor, "H W"],
) -> tuple[Float[Tensor, "k H W"], Bool[Tensor, "k H W"]]:
    """Sample a prepared image bilinearly at the reference pixels on planes, and whether all four pixels are valid."""
    height, width = size
    rows, columns = ref_inside.shape
    y = torch.arange(rows, device=planes.device, dtype=planes.dtype)[:, None] + 0.5
    x = torch.arange(columns, device=planes.device, dtype=planes.dtype) + 0.5
    px, py, z = (a * x + b * y + c + (planes * d)[:, None, None] for a, b, c, d in warp.tolist())
    px, py = (px / z).sub_(0.5), (py / z).sub_(0.5)
    ok = (z > 1e-9) & ref_inside & (px >= 0) & (py >= 0) & (px < width - 1) & (py < height - 1)
    px, py = torch.where(ok, px, 0), torch.where(ok, py, 0)
    i, j = px.int(), py.int()
    a, b = px.sub_(i), py.sub_(j)
    index = (j.mul_(width).add_(i)).flatten()
    ok &= usable.index_select(0, index).view_as(ok)
    corners = (values[start:].index_select(0, index).view_as(a) for start in (0, 1, width, width + 1))
    top = torch.lerp(next(corners), next(corners), a)
    bottom = torch.lerp(next(corners), next(corners), a)
    return torch.where(ok, torch.lerp(top, bottom, b), 0), ok


def _compute_zncc(
    reference: Float[Tensor, "H W"],
    other: Float[Tensor, "k H W"],
    ok: Bool[Tensor, "k H W"],
    radii: Sequence[int],
    min_variance: float,
) -> Float[Tensor, "k H W"]:
    """Compute the ZNCC over square windows of valid pixels, and its mean over the windows.

    It is ``INVALID`` over a window of which less than 60 % is valid. ``other`` is 0 where it is not valid.
    """
    masked = reference * ok
    layers = torch.stack((ok.to(other), masked, other, masked * masked, other * other, masked * other))
    mean = torch.zeros_like(other)
    for radius in radii:
        n, sa, sb, saa, sbb, sab = _sum_windows(layers, radius)
        good = ok & (n >= 0.6 * (2 * radius + 1) ** 2)
        n.clamp_(min=1)
        for each in (sa, sb, saa, sbb, sab):
            each.div_(n)
        variance, other_variance = saa.addcmul_(sa, sa, value=-1), sbb.addcmul_(sb, sb, value=-1)
        good &= (variance > min_variance) & (other_variance > 0.25 * min_variance)
        covariance = sab.addcmul_(sa, sb, value=-1)
        mean += torch.where(good, covariance.div_(variance.mul_(other_variance).sqrt_()), INVALID).div_(len(radii))
    return mean


def _sum_windows(layers: Float[Tensor, "L k H W"], radius: int) -> Float[Tensor, "L k H W"]:
    """Sum over a square window around each pixel. Direct sums, since running ones lose digits in float32."""
    side = 2 * radius + 1
    sums = F.avg_pool2d(layers, (1, side), 1, (0, radius), divisor_override=1)
    return F.avg_pool2d(sums, (side, 1), 1, (radius, 0), divisor_override=1)


def _add_paths(scores: Float[Tensor, "L M K"], total: Float[Tensor, "L M K"], small: float, large: float) -> None:
    """Add the costs of the paths along the first axis, in both directions at once, to ``total``.

    Step by step, for all M pixels of a line. A path keeps its costs less the lowest of them.
    """
    length, width, planes = scores.shape
    padded = scores.new_full((2, width, planes + 2), torch.inf)
    previous = padded[..., 1:-1]
    previous.zero_()
    for forward in range(length):
        backward = length - 1 - forward
        step = torch.minimum(padded[..., :-2], padded[..., 2:]).add_(small)
        cost = torch.minimum(step, previous, out=step).clamp_(max=large)
        for direction, line in enumerate((forward, backward)):
            cost[direction].sub_(scores[line])
            total[line].add_(cost[direction])
        torch.sub(cost, cost.amin(-1, keepdim=True), out=previous)


def _find_rivals(scores: Float[Tensor, "h W K"], k: Int[Tensor, "h W 1"]) -> Float[Tensor, "h W 1"]:
    """Find the best score beyond the slopes of the peak at plane ``k``; `INVALID` where there is none.

    Slopes fall, and reach two planes to each side at least.
    """
    index = torch.arange(scores.shape[-1], device=scores.device, dtype=torch.int32)
    rises = scores[..., :-1] >= scores[..., 1:]  # from the next plane to this one
    end = torch.where(rises & (index[:-1] < k - 2), index[:-1], -1).amax(-1, keepdim=True)
    beyond = index <= end
    rises = scores[..., 1:] >= scores[..., :-1]  # from the plane before to this one
    end = torch.where(rises & (index[1:] > k + 2), index[1:], len(index)).amin(-1, keepdim=True)
    beyond |= index >= end
    return torch.where(beyond, scores, INVALID).amax(-1, keepdim=True)
