"""View-dependent color from real spherical harmonics of degree 0 to 3, forward and backward.

Basis and signs as in 3D Gaussian Splatting; polynomial form after Sloan, "Efficient Spherical Harmonic Evaluation",
JCGT 2013. Color = max(0, 0.5 + sum of coefficient times basis at the unit vector from the camera to the mean).
"""

from __future__ import annotations

import numpy as np
from numba import prange

from splatfix.gaussians import SH_C0
from splatfix.jit import kernel

C0 = SH_C0
C1 = 0.4886025119029199
C2 = (1.0925484305920792, 0.31539156525252005, 0.5462742152960396)
C3 = (0.5900435899266435, 2.890611442640554, 0.4570457994644658, 0.3731763325901154, 1.445305721320277)


@kernel()
def _direction(means, i, center):
    """Compute the unit vector from the camera center to mean ``i``, and the distance (if it is 0, the zero vector)."""
    x, y, z = means[i, 0] - center[0], means[i, 1] - center[1], means[i, 2] - center[2]
    distance = np.sqrt(x * x + y * y + z * z)
    scale = 1 / distance if distance > 0 else 0.0
    return x * scale, y * scale, z * scale, distance


@kernel()
def _write_basis(x, y, z, degree, basis):
    """Write the (degree + 1)^2 - 1 non-constant basis functions of a unit vector to ``basis``."""
    if degree >= 1:
        basis[0], basis[1], basis[2] = -C1 * y, C1 * z, -C1 * x
    if degree >= 2:
        basis[3] = C2[0] * x * y
        basis[4] = -C2[0] * y * z
        basis[5] = C2[1] * (3 * z * z - 1)
        basis[6] = -C2[0] * x * z
        basis[7] = C2[2] * (x * x - y * y)
    if degree >= 3:
        basis[8] = -C3[0] * y * (3 * x * x - y * y)
        basis[9] = C3[1] * x * y * z
        basis[10] = -C3[2] * y * (5 * z * z - 1)
        basis[11] = C3[3] * z * (5 * z * z - 3)
        basis[12] = -C3[2] * x * (5 * z * z - 1)
        basis[13] = C3[4] * z * (x * x - y * y)
        basis[14] = -C3[0] * x * (x * x - 3 * y * y)


@kernel()
def _d_direction(x, y, z, degree, s):
    """Compute the gradient of ``sum_k s[k] basis[k]`` with respect to x, y and z."""
    dx, dy, dz = -C1 * s[2], -C1 * s[0], C1 * s[1]
    if degree >= 2:
        dx += C2[0] * (y * s[3] - z * s[6]) + 2 * C2[2] * x * s[7]
        dy += C2[0] * (x * s[3] - z * s[4]) - 2 * C2[2] * y * s[7]
        dz += -C2[0] * (y * s[4] + x * s[6]) + 6 * C2[1] * z * s[5]
    if degree >= 3:
        xx, yy, zz = x * x, y * y, z * z
        dx += -6 * C3[0] * x * y * s[8] + C3[1] * y * z * s[9] - C3[2] * (5 * zz - 1) * s[12]
        dx += 2 * C3[4] * x * z * s[13] - 3 * C3[0] * (xx - yy) * s[14]
        dy += -3 * C3[0] * (xx - yy) * s[8] + C3[1] * x * z * s[9] - C3[2] * (5 * zz - 1) * s[10]
        dy += -2 * C3[4] * y * z * s[13] + 6 * C3[0] * x * y * s[14]
        dz += C3[1] * x * y * s[9] - 10 * C3[2] * z * (y * s[10] + x * s[12])
        dz += C3[3] * (15 * zz - 3) * s[11] + C3[4] * (xx - yy) * s[13]
    return dx, dy, dz


@kernel(parallel=True)
def color(means, sh0, sh_rest, center, degree, radii, num_threads, colors):
    """Write the colors seen from ``center [3]`` to ``colors [N, 3]``; 0 where ``radii [N, 2]`` is 0 (not visible).

    ``sh0 [N, 1, 3]`` and ``sh_rest [N, K, 3]`` hold the coefficients; bands above ``degree`` are ignored.
    """
    n = len(means)
    count = (degree + 1) ** 2 - 1
    for thread in prange(num_threads):
        basis = np.zeros(15)
        for i in range(n * thread // num_threads, n * (thread + 1) // num_threads):
            if radii[i, 0] == 0:
                colors[i, 0] = colors[i, 1] = colors[i, 2] = 0
                continue
            red, green, blue = 0.5 + C0 * sh0[i, 0, 0], 0.5 + C0 * sh0[i, 0, 1], 0.5 + C0 * sh0[i, 0, 2]
            if degree > 0:
                x, y, z, _ = _direction(means, i, center)
                _write_basis(x, y, z, degree, basis)
                for k in range(count):
                    red += basis[k] * sh_rest[i, k, 0]
                    green += basis[k] * sh_rest[i, k, 1]
                    blue += basis[k] * sh_rest[i, k, 2]
            colors[i, 0], colors[i, 1], colors[i, 2] = max(red, 0.0), max(green, 0.0), max(blue, 0.0)


@kernel(parallel=True)
def color_backward(
    means, sh_rest, center, degree, radii, colors, num_threads, d_colors, d_means, d_sh0, d_sh_rest, first
):
    """Backpropagate through ``color``: read ``d_colors``, add to the gradients of ``means``, ``sh0`` and ``sh_rest``.

    The ``first`` camera overwrites them. A channel clamped at 0 has no gradient.
    """
    n = len(means)
    count = (degree + 1) ** 2 - 1
    for thread in prange(num_threads):
        basis, s = np.zeros(15), np.zeros(15)
        for i in range(n * thread // num_threads, n * (thread + 1) // num_threads):
            if first:
                d_means[i] = 0
                d_sh0[i] = 0
                d_sh_rest[i] = 0
            if radii[i, 0] == 0:
                continue
            red = d_colors[i, 0] if colors[i, 0] > 0 else np.float32(0)
            green = d_colors[i, 1] if colors[i, 1] > 0 else np.float32(0)
            blue = d_colors[i, 2] if colors[i, 2] > 0 else np.float32(0)
            d_sh0[i, 0, 0] += C0 * red
            d_sh0[i, 0, 1] += C0 * green
            d_sh0[i, 0, 2] += C0 * blue
            if degree == 0:
                continue
            x, y, z, distance = _direction(means, i, center)
            _write_basis(x, y, z, degree, basis)
            for k in range(count):
                s[k] = sh_rest[i, k, 0] * red + sh_rest[i, k, 1] * green + sh_rest[i, k, 2] * blue
                d_sh_rest[i, k, 0] += basis[k] * red
                d_sh_rest[i, k, 1] += basis[k] * green
                d_sh_rest[i, k, 2] += basis[k] * blue
            if distance == 0:
                continue
            dx, dy, dz = _d_direction(x, y, z, degree, s)
            along = dx * x + dy * y + dz * z  # removed, because the direction is a unit vector
            d_means[i, 0] += (dx - along * x) / distance
            d_means[i, 1] += (dy - along * y) / distance
            d_means[i, 2] += (dz - along * z) / distance
