"""Emulate the compiled module of gsplat on CPU tensors, so that gsplat's own Python runs without a GPU.

``gsplat.rasterization``, its autograd functions, assertions and strategies run unchanged; they look up each compiled
function here by name and pass arguments by position. The functions are written from the published equations: 3DGS
(Kerbl et al. 2023), EWA splatting (Zwicker et al. 2001), the mathematical supplement of gsplat (Ye and Kanazawa 2023,
arXiv:2312.02121) and 3DGS-MCMC (Kheradmand et al. 2024). Each backward function differentiates the same forward
function by autograd. The arithmetic is float64 within a function and float32 between functions.

Memory that CUDA does not write (the projection and the color of culled Gaussians) is NaN here, so that a test fails
where the code reads it.

This tests our call and gsplat's Python. It proves nothing about the CUDA code itself: `make gpu-check` does.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import NoReturn

import pytest
import torch

from tests.gpu.emulated_gsplat.projection import (
    PINHOLE,
    CameraModelType,
    projection_ewa_3dgs_fused_bwd,
    projection_ewa_3dgs_fused_fwd,
    quat_scale_to_covar_preci_fwd,
    relocation,
    spherical_harmonics_bwd,
    spherical_harmonics_fwd,
)
from tests.gpu.emulated_gsplat.rasterization import (
    intersect_offset,
    intersect_tile,
    rasterize_to_pixels_3dgs_bwd,
    rasterize_to_pixels_3dgs_fwd,
)

__all__ = [
    "PINHOLE",
    "CameraModelType",
    "intersect_offset",
    "intersect_tile",
    "projection_ewa_3dgs_fused_bwd",
    "projection_ewa_3dgs_fused_fwd",
    "quat_scale_to_covar_preci_fwd",
    "rasterize_to_pixels_3dgs_bwd",
    "rasterize_to_pixels_3dgs_fwd",
    "relocation",
    "render_through_gsplat",
    "spherical_harmonics_bwd",
    "spherical_harmonics_fwd",
]

BACKEND = "gsplat.cuda._backend"


@contextmanager
def render_through_gsplat() -> Iterator[None]:
    """Render CPU tensors as if they were on CUDA: through gsplat's Python over this module."""
    from splatfix import rendering
    from splatfix.splats import densify

    backend = ModuleType(BACKEND)
    vars(backend)["_C"] = sys.modules[__name__]
    use_helpers_of = densify._patch_mcmc_helpers
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, BACKEND, backend)
        patch.setattr(rendering, "_choose_backend", lambda *_: "cuda")
        patch.setattr(densify, "_patch_mcmc_helpers", lambda _: use_helpers_of(torch.device("cuda")))
        yield


def __getattr__(name: str) -> NoReturn:
    raise AttributeError(
        f"gsplat's Python calls {name!r}, which tests/gpu/emulated_gsplat does not emulate: gsplat has changed, or "
        "we use another part of it. Add the function there, from its published equations."
    )
