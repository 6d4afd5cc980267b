"""Emulate what gsplat computes per Gaussian: projection, harmonics, covariances, relocation."""

from __future__ import annotations

import math
from enum import Enum

import torch
from torch import Tensor

from tests.gpu.emulated_gsplat.tensors import check_inputs, make_leaves, poison, pull_back
from tests.rendering import reference

MAX_REACH = 3.33  # standard deviations of the largest box


class CameraModelType(Enum):
    """Camera models of the compiled module; only the pinhole camera is emulated."""

    PINHOLE = 0


PINHOLE = CameraModelType.PINHOLE  # the compiled module exports the values, too, and gsplat looks up these


def projection_ewa_3dgs_fused_fwd(
    means: Tensor,  # [N, 3]
    covars: None,
    quats: Tensor,  # [N, 4]
    scales: Tensor,  # [N, 3]
    opacities: Tensor,  # [N]
    viewmats: Tensor,  # [C, 4, 4]
    intrinsics: Tensor,  # [C, 3, 3]
    width: int,
    height: int,
    eps2d: float,
    near: float,
    far: float,
    radius_clip: float,
    calc_compensations: bool,
    camera_model: CameraModelType,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    """Project Gaussians: radii ``[C, N, 2]``, means2d, depths, conics, and compensations of opacity (or None)."""
    check_inputs(means, quats, scales, opacities, viewmats, intrinsics)
    assert covars is None, "only quaternions and scales are emulated"
    assert camera_model is CameraModelType.PINHOLE
    inputs = [t.double() for t in (means, quats, scales, viewmats)]
    means2d, depths, conics, compensations = _project(*inputs, intrinsics.double(), width, height, eps2d)
    # the box ends where alpha falls below 1/255 (StopThePop, Radl et al. 2024, appendix B.2)
    opacity = opacities.double() * (compensations if calc_compensations else 1)
    reach = (2 * (opacity / reference.MIN_ALPHA).clamp(min=1).log()).sqrt().clamp(max=MAX_REACH)
    box = (reach[..., None] * _variances(conics).sqrt()).ceil()
    size = torch.tensor([width, height])
    seen = (depths >= near) & (depths <= far) & (opacity >= reference.MIN_ALPHA) & (box > radius_clip).any(-1)
    seen &= ((means2d + box > 0) & (means2d - box < size)).all(-1)
    radii = torch.where(seen[..., None], box, 0).to(torch.int32)
    outputs = [poison(t, ~seen) for t in (means2d, depths, conics)]
    # the compiled module fills the compensations with zeros
    return radii, *outputs, torch.where(seen, compensations, 0).float() if calc_compensations else None


def projection_ewa_3dgs_fused_bwd(
    means: Tensor,
    covars: None,
    quats: Tensor,
    scales: Tensor,
    viewmats: Tensor,
    intrinsics: Tensor,
    width: int,
    height: int,
    eps2d: float,
    camera_model: CameraModelType,
    radii: Tensor,
    conics: Tensor,
    compensations: Tensor | None,
    v_means2d: Tensor,
    v_depths: Tensor,
    v_conics: Tensor,
    v_compensations: Tensor | None,
    viewmats_requires_grad: bool,
) -> tuple[Tensor, None, Tensor, Tensor, Tensor | None]:
    """Differentiate `projection_ewa_3dgs_fused_fwd`, only for the Gaussians that it drew."""
    check_inputs(means, quats, scales, viewmats, intrinsics, conics, v_means2d, v_depths, v_conics)
    assert covars is None
    assert camera_model is CameraModelType.PINHOLE
    assert (compensations is None) == (v_compensations is None)
    seen = (radii > 0).all(-1)
    wanted = [v_means2d, v_depths, v_conics, torch.zeros_like(v_depths) if v_compensations is None else v_compensations]
    wanted = [torch.where(seen.reshape(*seen.shape, *[1] * (v.ndim - 2)), v, 0) for v in wanted]
    with torch.enable_grad():
        leaves = make_leaves(means, quats, scales, viewmats)
        outputs = _project(*leaves, intrinsics.double(), width, height, eps2d)
        v_means, v_quats, v_scales, v_viewmats = pull_back(outputs, wanted, leaves)
    return v_means, None, v_quats, v_scales, v_viewmats if viewmats_requires_grad else None


def _project(
    means: Tensor, quats: Tensor, scales: Tensor, viewmats: Tensor, intrinsics: Tensor, w: int, h: int, eps2d: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute means2d, depths, conics and compensations, ``[C, N, .]``, of all Gaussians (Kerbl et al. 2023, eq. 5).

    The Jacobian of the perspective is taken at most 0.3 half fields of view beyond the border of the image. The
    compensation is that of Mip-Splatting (Yu et al. 2024).
    """
    rotation = viewmats[:, None, :3, :3]
    local = (rotation @ means[..., None])[..., 0] + viewmats[:, None, :3, 3]
    depths = local[..., 2]
    z = torch.where(depths > 0, depths, 1)  # behind the camera nothing is drawn; 1 keeps its gradients finite
    slopes = local[..., :2] / z[..., None]
    focal, center = intrinsics[:, None, [0, 1], [0, 1]], intrinsics[:, None, :2, 2]
    size = torch.tensor([w, h])
    low, high = (-center - 0.15 * size) / focal, (size - center + 0.15 * size) / focal
    held = torch.minimum(torch.maximum(slopes, low), high)
    jacobian = torch.cat([torch.diag_embed(focal / z[..., None]), -(focal * held / z[..., None])[..., None]], dim=-1)
    axes = jacobian @ rotation @ (reference.rotations(quats) * scales[:, None, :])  # eq. 6: S = A A^T
    covariance = axes @ axes.mT
    blurred = covariance + eps2d * torch.eye(2, dtype=covariance.dtype)
    conic = torch.linalg.inv(blurred)
    ratio = torch.linalg.det(covariance).clamp(min=1e-300) / torch.linalg.det(blurred)
    upper_triangle = conic.flatten(-2)[..., [0, 1, 3]]
    return focal * slopes + center, depths, upper_triangle, ratio.sqrt()


def _variances(conics: Tensor) -> Tensor:
    """Invert conics to the variances along x and y, ``[..., 2]``."""
    a, b, c = conics.unbind(-1)
    return torch.stack([c, a], dim=-1) / (a * c - b * b)[..., None]


def quat_scale_to_covar_preci_fwd(
    quats: Tensor, scales: Tensor, compute_covar: bool, compute_preci: bool, triu: bool
) -> tuple[Tensor, None]:
    """Compute covariances ``[N, 3, 3]`` (Kerbl et al. 2023, eq. 6); precisions and triangles are not emulated."""
    check_inputs(quats, scales)
    assert (compute_covar, compute_preci, triu) == (True, False, False)
    axes = reference.rotations(quats.double()) * scales.double()[:, None, :]
    return (axes @ axes.mT).float(), None


def spherical_harmonics_fwd(degree: int, directions: Tensor, coefficients: Tensor, masks: Tensor | None) -> Tensor:
    """Evaluate colors ``[C, N, 3]`` of coefficients ``[C, N, K, 3]`` towards directions of any length."""
    check_inputs(directions, coefficients, masks)
    colors = _evaluate_harmonics(degree, directions.double(), coefficients.double())
    return poison(colors, torch.zeros_like(colors[..., 0], dtype=torch.bool) if masks is None else ~masks)


def spherical_harmonics_bwd(
    num_bases: int,
    degree: int,
    directions: Tensor,
    coefficients: Tensor,
    masks: Tensor | None,
    v_colors: Tensor,
    compute_v_dirs: bool,
) -> tuple[Tensor, Tensor | None]:
    """Differentiate `spherical_harmonics_fwd`; zero where masked."""
    check_inputs(directions, coefficients, masks, v_colors)
    assert num_bases == coefficients.shape[-2]
    wanted = v_colors
    if masks is not None:
        wanted, directions = (torch.where(masks[..., None], t, k) for t, k in ((v_colors, 0), (directions, 1)))
    with torch.enable_grad():
        leaves = make_leaves(coefficients, directions)
        colors = _evaluate_harmonics(degree, leaves[1], leaves[0])
        v_coefficients, v_directions = pull_back([colors], [wanted], leaves)
    return v_coefficients, v_directions if compute_v_dirs else None


def _evaluate_harmonics(degree: int, directions: Tensor, coefficients: Tensor) -> Tensor:
    units = directions / directions.norm(dim=-1, keepdim=True)
    basis = reference.harmonics(units, degree)
    return (basis[..., None] * coefficients[..., : (degree + 1) ** 2, :]).sum(-2)


def relocation(opacities: Tensor, scales: Tensor, ratios: Tensor, binoms: Tensor, n_max: int) -> tuple[Tensor, Tensor]:
    """Compute opacities and scales of ``ratios`` copies that together equal the original (3DGS-MCMC, eq. 9).

    The sum of binomials in eq. 9 is the integral of ``1 - (1 - o g(x))^n`` along a line through a Gaussian g, in units
    of the integral of g; here it is that integral.
    """
    check_inputs(opacities, scales, ratios, binoms)
    assert ratios.dtype == torch.int32
    assert binoms.shape == (n_max, n_max)
    old, copies = opacities.double(), ratios.double()
    new = 1 - (1 - old) ** (1 / copies)
    x = torch.linspace(-9, 9, 400, dtype=torch.float64)
    covered = 1 - (1 - new[:, None] * torch.exp(-0.5 * x**2)) ** copies[:, None]
    integral = torch.trapezoid(covered, x, dim=1) / math.sqrt(2 * math.pi)
    return new.float(), (scales.double() * (old / integral)[:, None]).float()
