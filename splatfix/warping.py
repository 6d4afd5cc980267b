"""Warp photos into other views by depth: to condition restorers, and to check consistency between views."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from splatfix.cameras import Camera
from splatfix.shapes import Float

DEPTH_TOLERANCE = 0.05  # relative difference of two depths at which the validity is exp(-1/2)


@runtime_checkable
class PosedPhoto(Protocol):
    """A photo with the depth and alpha that a fit renders at its camera, such as `flawed.Reference`."""

    @property
    def camera(self) -> Camera: ...
    @property
    def rgb(self) -> Float[Tensor, "H W 3"]: ...
    @property
    def depth(self) -> Float[Tensor, "H W"]: ...
    @property
    def alpha(self) -> Float[Tensor, "H W"]: ...
    @property
    def validity(self) -> Float[Tensor, "H W"] | None: ...


def warp_reference(
    view_camera: Camera,
    view_depth: Float[Tensor, "H W"],
    view_alpha: Float[Tensor, "H W"],
    reference: PosedPhoto,
    *,
    depth_tolerance: float = DEPTH_TOLERANCE,
) -> tuple[Float[Tensor, "H W 3"], Float[Tensor, "H W"]]:
    """Warp a reference photo into a view: colors ``[H, W, 3]`` and their validity in [0, 1], ``[H, W]``.

    Each pixel of the view is lifted by its rendered depth (along the axis, world units) and projected into the
    photo. Its validity is the product of both alphas, of the photo's own validity and of the depth agreement with the
    reference, ``exp(-(relative difference / depth_tolerance)^2 / 2)``, so that occluded surfaces fade out; it is 0
    outside of the photo. The color of pixels with validity 0 is 0. Sizes of view and reference may differ.
    """
    pixels, depth = reproject(view_camera, view_depth, reference.camera)
    layers = torch.cat([reference.rgb, reference.depth[..., None], reference.alpha[..., None]], dim=-1)
    sampled = sample_bilinear(layers.to(view_depth), pixels)
    rgb, seen_depth, seen_alpha = sampled[..., :3], sampled[..., 3], sampled[..., 4]
    if reference.validity is not None:  # the mean color of the valid pixels alone
        share = reference.validity[..., None]
        sampled = sample_bilinear(torch.cat([share * reference.rgb, share], dim=-1).to(view_depth), pixels)
        rgb = sampled[..., :3] / sampled[..., 3:].clamp(min=1e-6)
        seen_alpha = seen_alpha * sampled[..., 3]
    disagreement = (seen_depth - depth) / depth.clamp(min=1e-12)
    agreement = torch.exp(-0.5 * (disagreement / depth_tolerance) ** 2)
    usable = are_inside(pixels, reference.camera) & (view_depth > 0) & (depth > 0)
    validity = torch.where(usable, view_alpha * seen_alpha * agreement, 0).clamp(0, 1)
    return torch.where((validity > 0)[..., None], rgb, 0), validity


def reproject(
    camera: Camera, depth: Float[Tensor, "H W"], other: Camera
) -> tuple[Float[Tensor, "H W 2"], Float[Tensor, "H W"]]:
    """Project the pixels of one camera, at their depths, into another: pixel coordinates and depths.

    Depths run along the optical axes in world units. Coordinates are not finite where the depth in the other
    camera is not positive.
    """
    between = other.camera_from_world @ camera.world_from_camera  # float64: world coordinates may be large
    matrix = torch.from_numpy(other.intrinsics @ between[:3, :3] @ np.linalg.inv(camera.intrinsics)).to(depth)
    offset = torch.from_numpy(other.intrinsics @ between[:3, 3]).to(depth)
    local = scale_rays(depth, matrix) + offset
    z = local[..., 2]
    pixels = torch.where((z > 0)[..., None], local[..., :2] / z[..., None], torch.nan)
    return pixels, z


def scale_rays(depth: Float[Tensor, "H W"], matrix: Float[Tensor, "3 3"]) -> Float[Tensor, "H W 3"]:
    """Multiply a matrix by the homogeneous coordinates (x, y, 1) of each pixel center, and by its depth.

    With the inverse of a camera's intrinsics these are the points that its pixels show, in its coordinates.
    """
    height, width = depth.shape
    y = torch.arange(height, device=depth.device, dtype=depth.dtype) + 0.5
    x = torch.arange(width, device=depth.device, dtype=depth.dtype) + 0.5
    rays = x[None, :, None] * matrix[:, 0] + y[:, None, None] * matrix[:, 1] + matrix[:, 2]
    return rays * depth[..., None]


def are_inside(pixels: Float[Tensor, "*N 2"], camera: Camera) -> Tensor:
    """Test which pixel coordinates are inside the image of a camera: boolean ``[...]``, False where not finite."""
    x, y = pixels.unbind(-1)
    return (x >= 0) & (y >= 0) & (x <= camera.width_px) & (y <= camera.height_px)


def sample_bilinear(image: Float[Tensor, "H W C"], pixels: Float[Tensor, "h w 2"]) -> Float[Tensor, "h w C"]:
    """Sample an image bilinearly at pixel coordinates (centers at +0.5), repeating border pixels outside."""
    height, width = image.shape[:2]
    size = torch.tensor([width, height], device=pixels.device, dtype=pixels.dtype)
    grid = (pixels / size * 2 - 1).nan_to_num(nan=-2.0).clamp(-2, 2)
    planes = image.permute(2, 0, 1)[None]
    sampled = F.grid_sample(planes, grid[None], mode="bilinear", padding_mode="border", align_corners=False)
    return sampled[0].permute(1, 2, 0)
