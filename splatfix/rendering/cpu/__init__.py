"""Rendering on the CPU: numba kernels for projection, harmonics, rasterization and SSIM.

``projection`` and ``harmonics`` compute per Gaussian, ``tiles`` sorts by depth and assigns Gaussians to tiles,
``compositing`` blends, ``functions`` wraps these as autograd functions, and ``render`` calls them. ``lanes`` has the
vector types of the inner loops; `splatfix.jit` compiles the kernels.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from splatfix.cameras import Camera
from splatfix.gaussians import Gaussians
from splatfix.rendering.cpu.functions import Color, Project, Rasterize
from splatfix.rendering.cpu.projection import pack_camera


def render(
    gaussians: Gaussians,
    cameras: Sequence[Camera],
    background: Tensor,  # [3]
    antialiased: bool,
    sh_degree: int,
    keep: Tensor | None,  # [N] bool
) -> tuple[Tensor, Tensor, Tensor, dict]:
    """Render ``rgb [C, H, W, 3]``, ``alpha [C, H, W]`` and ``depth [C, H, W]``; the dict is for gsplat's strategies."""
    g = gaussians
    packed = [pack_camera(camera) for camera in cameras]
    sizes = [(camera.width_px, camera.height_px) for camera in cameras]
    means2d, conics, depths, opacities, radii = Project.apply(
        g.means.float(), g.log_scales.float(), g.quats.float(), g.opacity_logits.float(), keep, packed, antialiased
    )
    colors = Color.apply(g.means.float(), g.sh0.float(), g.sh_rest.float(), radii, packed, sh_degree)
    rgb, alpha, depth = Rasterize.apply(means2d, conics, depths, opacities, colors, background, radii, sizes)
    info = {"means2d": means2d, "radii": radii, "depths": depths, "conics": conics, "opacities": opacities}
    return rgb, alpha, depth, info
