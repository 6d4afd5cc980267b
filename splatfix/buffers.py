"""Buffers of a flawed view: images that tell a restorer what makes each pixel of a fit, and how well it was seen.

A color alone does not say whether it comes from one opaque Gaussian on a surface or from many translucent ones along
the ray. The buffers do. They are drawn by the rasterizer of the device (`rendering.render`), with properties of the
Gaussians in place of their colors, so that both backends give the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from splatfix.cameras import Camera
from splatfix.flawed import FlawedView
from splatfix.gaussians import SH_C0, Gaussians, Splat, covariances, rotations
from splatfix.rendering import render
from splatfix.shapes import Float
from splatfix.warping import scale_rays, warp_reference

BufferName = Literal["normal", "footprint", "opacity", "thickness", "spread", "seen", "angle"]
PLANES: dict[str, slice] = {
    "normal": slice(0, 3),
    "footprint": slice(3, 5),
    "opacity": slice(5, 6),
    "thickness": slice(6, 7),
    "spread": slice(7, 8),
    "seen": slice(8, 9),
    "angle": slice(9, 10),
}
NUM_PLANES = 10
assert tuple(PLANES) == get_args(BufferName)

MIN_ALPHA = 1 / 255  # below it a pixel is empty, and its planes of the fit are 0
DILATION_PX2 = 0.3  # variance that the rasterizers add to a projected Gaussian (Kerbl et al. 2023)
FOOTPRINT_OCTAVES = 9  # from half a pixel, where the plane is 0, to 256 pixels, where it is 1
SPREAD_SCALE = 4.0  # planes are 1 at a deviation of a quarter
MAX_ANGLE_RAD = math.radians(60)  # where the plane is 1
EDGE = 1.3  # of half the field of view, where the projection is linearized at most (Kerbl et al. 2023)


def compute_buffers(view: FlawedView, inverse_depth_scale: float) -> Float[Tensor, "H W 10"]:
    """Compute the buffers of a view, each plane in [0, 1].

    Where the view is empty, all planes are 0 except ``angle``, which is 1, and ``spread``, which may be above 0.

    ``inverse_depth_scale`` is that of the view's nearness (`conditioning.compute_nearness`).

    ``normal``: direction of the shortest axis, towards the camera, in its coordinates (x right, y down, z forward), 0.5
    for 0. ``footprint``: standard deviations on the screen along the major and the minor axis, as log2 over
    `FOOTPRINT_OCTAVES`. ``opacity``: that of the Gaussians that make the pixel; its inverse is how many it takes.
    ``thickness``: deviation of their nearness (`conditioning.compute_nearness`) along the ray, times `SPREAD_SCALE`.
    ``spread``: deviation of the color between the fits, times `SPREAD_SCALE`; 0 for a single fit. ``seen``: ``n / (n +
    1)``, where ``n`` training photos see the point (the sum of their validities). ``angle``: at the point, between the
    view and the nearest photo that sees it, over `MAX_ANGLE_RAD`; 1 where none does.

    Raises:
        ValueError: the view does not know its fits, since it was not made by `flawed.render_flawed`.
    """
    if not view.fits:
        raise ValueError(
            f"view {view.camera.name}: has no fits to compute buffers from, which this restorer is given; make it with "
            "splatfix.render_flawed, or choose a restorer without network.buffers"
        )
    depth, alpha = view.depth.detach().float(), view.alpha.detach().float()
    drawn = torch.stack([_draw(splat, view.camera, inverse_depth_scale) for splat in view.fits]).mean(0)
    opaque = drawn[..., -1:]
    means = torch.where(opaque >= MIN_ALPHA, drawn[..., :-1] / opaque.clamp(min=MIN_ALPHA), 0)
    normal, footprint, opacity, near, near_squared = means.split([3, 2, 1, 1, 1], dim=-1)
    thickness = SPREAD_SCALE * (near_squared - near.square()).clamp(min=0).sqrt()
    spread = torch.zeros_like(alpha) if view.spread is None else SPREAD_SCALE * view.spread.detach().float()
    seen, angle = _find_support(view, depth, alpha)
    planes = [normal, footprint, opacity, thickness, spread[..., None], seen[..., None], angle[..., None]]
    return torch.cat(planes, dim=-1).clamp(0, 1)


@torch.no_grad()
def _draw(splat: Splat, camera: Camera, inverse_depth_scale: float) -> Float[Tensor, "H W 9"]:
    """Draw the properties of the Gaussians: sums over those that make each pixel, by their share of it, then alpha."""
    properties = describe_gaussians(splat.gaussians, camera, inverse_depth_scale)
    images, alpha = [], None
    for three in functional.pad(properties, (0, -properties.shape[1] % 3)).split(3, dim=1):
        plain = replace(splat.gaussians, sh0=((three - 0.5) / SH_C0)[:, None], sh_rest=splat.gaussians.sh_rest[:, :0])
        rendering = render(Splat(plain, splat.mode), [camera])
        images.append(rendering.rgb[0])
        alpha = rendering.alpha[0, ..., None]
    assert alpha is not None
    return torch.cat([torch.cat(images, dim=-1)[..., : properties.shape[1]], alpha], dim=-1)


def describe_gaussians(gaussians: Gaussians, camera: Camera, inverse_depth_scale: float) -> Float[Tensor, "N 8"]:
    """The properties that are drawn, in [0, 1]: normal, footprint, opacity, nearness and its square.

    The footprint is that of the projection as the rasterizers linearize it (EWA, Zwicker et al. 2001), with their
    dilation.
    """
    g = gaussians.detach()
    pose = torch.from_numpy(camera.camera_from_world).to(g.means)
    points = g.means @ pose[:3, :3].T + pose[:3, 3]
    depth = points[:, 2].clamp(min=1e-6)
    shortest = g.log_scales.argmin(1)[:, None, None].expand(-1, 3, 1)
    normals = rotations(g.quats).gather(2, shortest)[..., 0] @ pose[:3, :3].T
    normals = torch.where((normals * points).sum(1, keepdim=True) > 0, -normals, normals)
    major, minor = _project_axes(points, depth, pose[:3, :3] @ covariances(g.quats, g.scales) @ pose[:3, :3].T, camera)
    footprint = [(size.log2() + 1) / FOOTPRINT_OCTAVES for size in (major, minor)]
    nearness = 1 / (1 + inverse_depth_scale * depth)
    columns = [*(normals + 1).div(2).unbind(1), *footprint, g.opacities, nearness, nearness.square()]
    return torch.stack(columns, dim=1).clamp(0, 1)


def _project_axes(
    points: Float[Tensor, "N 3"], depth: Float[Tensor, " N"], covariance: Float[Tensor, "N 3 3"], camera: Camera
) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
    """Standard deviations of projected Gaussians along their major and minor axes, in pixels."""
    focal_x, focal_y = float(camera.intrinsics[0, 0]), float(camera.intrinsics[1, 1])
    limit_x, limit_y = EDGE * camera.width_px / (2 * focal_x), EDGE * camera.height_px / (2 * focal_y)
    slope_x = (points[:, 0] / depth).clamp(-limit_x, limit_x)
    slope_y = (points[:, 1] / depth).clamp(-limit_y, limit_y)
    zero = torch.zeros_like(depth)
    rows = [(focal_x / depth, zero, -focal_x * slope_x / depth), (zero, focal_y / depth, -focal_y * slope_y / depth)]
    jacobian = torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)
    projected = jacobian @ covariance @ jacobian.transpose(1, 2)
    a, b, c = projected[:, 0, 0] + DILATION_PX2, projected[:, 0, 1], projected[:, 1, 1] + DILATION_PX2
    middle, radius = (a + c) / 2, (((a - c) / 2).square() + b.square()).sqrt()
    return (middle + radius).sqrt(), (middle - radius).clamp(min=DILATION_PX2).sqrt()


def _find_support(
    view: FlawedView, depth: Float[Tensor, "H W"], alpha: Float[Tensor, "H W"]
) -> tuple[Float[Tensor, "H W"], Float[Tensor, "H W"]]:
    """The planes ``seen`` and ``angle`` of a view, from the training photos of its fits."""
    num, angle = torch.zeros_like(depth), torch.ones_like(depth)
    points = scale_rays(depth, torch.from_numpy(np.linalg.inv(view.camera.intrinsics)).to(depth))
    for photo in view.photos:
        validity = warp_reference(view.camera, depth, alpha, photo)[1]
        num = num + validity
        center = torch.from_numpy(view.camera.camera_from_world[:3] @ [*photo.camera.center, 1.0]).to(points)
        cosine = functional.cosine_similarity(points, points - center, dim=-1)
        between = cosine.clamp(-1, 1).acos() / MAX_ANGLE_RAD
        angle = torch.minimum(angle, torch.lerp(torch.ones_like(between), between.clamp(max=1), validity))
    return num / (num + 1), angle


def plane_indices(names: Sequence[str]) -> list[int]:
    """The indices of the planes of the named buffers, in their order."""
    return [index for name in names for index in range(*PLANES[name].indices(NUM_PLANES))]
