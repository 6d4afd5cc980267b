"""A plain renderer to test the kernels against: float64 torch, autograd, every Gaussian at every pixel.

Written from the equations (3DGS, Kerbl et al. 2023; antialiasing, Yu et al. 2024) with gsplat's thresholds, and kept
apart from the kernels: covariances as matrix products, harmonics from Legendre polynomials, compositing as a cumulative
product.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from splatfix.cameras import Camera
from splatfix.gaussians import Gaussians

MIN_ALPHA, MAX_ALPHA, MIN_TRANSMITTANCE = 1 / 255, 0.999, 1e-4


@dataclass(frozen=True, eq=False)
class Reference:
    """One camera's images, float64, and how near any decision was to its threshold.

    ``margin`` is the smallest relative distance of an alpha or transmittance to a threshold: where it is well above
    float32 rounding, single precision must take the same decisions.
    """

    rgb: Tensor  # [H, W, 3]
    alpha: Tensor  # [H, W]
    depth: Tensor  # [H, W]
    means2d: Tensor  # [N, 2]
    margin: float


def rotations(quats: Tensor) -> Tensor:
    """Rotation matrices ``[N, 3, 3]`` of quaternions wxyz, through ``R v = q v q*`` of the basis vectors."""
    q = quats / quats.norm(dim=-1, keepdim=True)
    w, u = q[:, :1], q[:, 1:]
    columns = []
    for axis in torch.eye(3, dtype=q.dtype):
        v = axis.expand_as(u)
        t = 2 * torch.cross(u, v, dim=-1)
        columns.append(v + w * t + torch.cross(u, t, dim=-1))
    return torch.stack(columns, dim=-1)


def harmonics(directions: Tensor, degree: int) -> Tensor:
    """Real spherical harmonics ``[N, (degree + 1)^2]`` with the Condon-Shortley phase, at unit vectors ``[N, 3]``."""
    x, y, z = directions.unbind(-1)
    basis = []
    for band in range(degree + 1):
        legendre = np.polynomial.legendre.leg2poly([0] * band + [1])
        for order in range(-band, band + 1):
            m = abs(order)
            derivative = np.polynomial.polynomial.polyder(legendre, m) if m else legendre
            polynomial = sum(float(c) * z**i for i, c in enumerate(derivative))
            planar = torch.complex(x, y) ** m if m else torch.complex(torch.ones_like(x), torch.zeros_like(x))
            norm = math.sqrt((2 * band + 1) / (4 * math.pi) * math.factorial(band - m) / math.factorial(band + m))
            part = planar.imag if order < 0 else planar.real
            basis.append((-1) ** m * norm * (math.sqrt(2) if m else 1) * part * polynomial)
    return torch.stack(basis, dim=-1)


def render(
    gaussians: Gaussians, camera: Camera, background: Tensor, mode: str = "classic", sh_degree: int | None = None
) -> Reference:
    """Draw ``gaussians`` (converted to float64 in the graph) as ``camera`` sees them."""
    g = gaussians.to(torch.float64)
    degree = g.sh_degree if sh_degree is None else sh_degree
    width, height = camera.width_px, camera.height_px
    world_to_camera = torch.tensor(camera.rotation)
    fx, fy = camera.intrinsics[0, 0], camera.intrinsics[1, 1]
    cx, cy = camera.intrinsics[0, 2], camera.intrinsics[1, 2]

    local = g.means @ world_to_camera.T + torch.tensor(camera.camera_from_world[:3, 3])
    seen = (local[:, 2] >= 0.01) & (local[:, 2] <= 1e10)
    depth = torch.where(seen, local[:, 2], torch.ones_like(local[:, 2]))
    x, y = local[:, 0] / depth, local[:, 1] / depth
    means2d = torch.stack([fx * x + cx, fy * y + cy], dim=-1)

    held_x = x.clamp(-cx / fx - 0.15 * width / fx, (width - cx) / fx + 0.15 * width / fx)
    held_y = y.clamp(-cy / fy - 0.15 * height / fy, (height - cy) / fy + 0.15 * height / fy)
    zero = torch.zeros_like(depth)
    jacobian = torch.stack(
        [
            torch.stack([fx / depth, zero, -fx * held_x / depth], dim=-1),
            torch.stack([zero, fy / depth, -fy * held_y / depth], dim=-1),
        ],
        dim=-2,
    )
    axes = world_to_camera @ rotations(g.quats) @ torch.diag_embed(g.scales)
    covariance = jacobian @ axes @ axes.transpose(1, 2) @ jacobian.transpose(1, 2)
    widened = covariance + 0.3 * torch.eye(2, dtype=torch.float64)
    conic = torch.linalg.inv(widened)
    opacity = g.opacities
    if mode == "antialiased":
        opacity = opacity * (torch.linalg.det(covariance) / torch.linalg.det(widened)).clamp(min=0).sqrt()

    # the box beyond which nothing is drawn, in whole pixels around the mean
    reach = (2 * (opacity / MIN_ALPHA).clamp(min=1).log()).sqrt().clamp(max=3.33)
    box = (reach[:, None] * widened.diagonal(dim1=1, dim2=2).sqrt()).ceil()
    size = torch.tensor([width, height], dtype=torch.float64)
    seen = seen & (opacity >= MIN_ALPHA) & ((means2d + box > 0) & (means2d - box < size)).all(-1)

    directions = g.means - torch.tensor(camera.center)
    directions = directions / directions.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    coefficients = torch.cat([g.sh0, g.sh_rest], dim=1)[:, : (degree + 1) ** 2]
    colors = (0.5 + (harmonics(directions, degree)[:, :, None] * coefficients).sum(1)).clamp(min=0)

    order = torch.argsort(depth.detach(), stable=True)
    order = order[seen[order]]
    v, u = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    offset = torch.stack([u, v], dim=-1).reshape(-1, 1, 2) - means2d[order]
    sigma = 0.5 * torch.einsum("pni,nij,pnj->pn", offset, conic[order], offset)
    raw = opacity[order] * torch.exp(-sigma)
    alpha = torch.where(raw >= MIN_ALPHA, raw.clamp(max=MAX_ALPHA), torch.zeros_like(raw))
    after = torch.cumprod(1 - alpha, dim=1)
    live = after > MIN_TRANSMITTANCE
    before = torch.cat([torch.ones_like(after[:, :1]), after[:, :-1]], dim=1)
    weights = torch.where(live, alpha * before, torch.zeros_like(alpha))
    left = torch.where(live, 1 - alpha, torch.ones_like(alpha)).prod(dim=1)

    rgb = weights @ colors[order] + left[:, None] * background
    covered = 1 - left
    expected = torch.where(covered > 0, (weights @ depth[order]) / covered.clamp(min=1e-10), torch.zeros_like(left))
    margins = [(raw * 255 - 1).abs(), (raw / MAX_ALPHA - 1).abs(), (after / MIN_TRANSMITTANCE - 1).abs()]
    margin = min((float(m.detach().min()) for m in margins if m.numel()), default=math.inf)
    return Reference(
        rgb.reshape(height, width, 3), covered.reshape(height, width), expected.reshape(height, width), means2d, margin
    )


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Similarity at every pixel and channel ``[H, W, 3]``, by one full two-dimensional window in float64."""
    offsets = torch.arange(11, dtype=torch.float64) - 5
    weights = torch.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    weights = (weights / weights.sum())[None, None]

    def blurred(image: Tensor) -> Tensor:
        planes = image.permute(2, 0, 1)[:, None]
        return torch.nn.functional.conv2d(planes, weights, padding=5)[:, 0].permute(1, 2, 0)

    a, b = a.double(), b.double()
    mean_a, mean_b = blurred(a), blurred(b)
    var_a, var_b = blurred(a * a) - mean_a**2, blurred(b * b) - mean_b**2
    covariance = blurred(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + 0.01**2) / (mean_a**2 + mean_b**2 + 0.01**2)
    return luminance * (2 * covariance + 0.03**2) / (var_a + var_b + 0.03**2)
