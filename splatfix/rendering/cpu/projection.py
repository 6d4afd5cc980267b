"""Projection of 3D Gaussians to the image plane, forward and backward (EWA splatting, Zwicker et al. 2001).

The constants are those of gsplat 1.5: near plane 0.01, Jacobian clamped to 1.3 half fields of view, low-pass 0.3 px^2,
and boxes that end where alpha falls below 1/255. The activations of the parameters (exp, sigmoid, normalization) are
part of these kernels. Scalars are float64, because the kernels are not bound by arithmetic.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from splatfix.jit import kernel

NEAR, FAR = 0.01, 1e10  # world units
LOW_PASS = 0.3  # px^2, added to the variances of the projected Gaussian
REACH = 3.33  # standard deviations at which a fully opaque Gaussian falls below MIN_ALPHA
MIN_ALPHA = 1.0 / 255.0
MAX_RADIUS = 1e9  # px; larger ones would overflow an int32


def pack_camera(camera) -> np.ndarray:
    """Pack a ``Camera`` for the kernels: rotation, translation, fx, fy, cx, cy, width, height, center, ``[21]``."""
    k = camera.intrinsics
    pose = camera.camera_from_world
    lens = [k[0, 0], k[1, 1], k[0, 2], k[1, 2], camera.width_px, camera.height_px]
    return np.concatenate([pose[:3, :3].ravel(), pose[:3, 3], lens, camera.center]).astype(np.float64)


@kernel()
def _rotation_matrix(quats, i):
    """Compute the rotation matrix of quaternion ``i`` (nine numbers, by rows), the unit quaternion and the norm."""
    w, x, y, z = np.float64(quats[i, 0]), np.float64(quats[i, 1]), np.float64(quats[i, 2]), np.float64(quats[i, 3])
    norm = max(np.sqrt(w * w + x * x + y * y + z * z), 1e-12)
    w, x, y, z = w / norm, x / norm, y / norm, z / norm
    rotation = (
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    )  # fmt: skip
    return rotation, (w, x, y, z), norm


@kernel()
def _camera_coordinates(means, i, cam):
    """Transform mean ``i`` to camera coordinates."""
    x, y, z = np.float64(means[i, 0]), np.float64(means[i, 1]), np.float64(means[i, 2])
    return (
        cam[0] * x + cam[1] * y + cam[2] * z + cam[9],
        cam[3] * x + cam[4] * y + cam[5] * z + cam[10],
        cam[6] * x + cam[7] * y + cam[8] * z + cam[11],
    )


@kernel()
def _clamp_to_view(x, y, z, cam):
    """Clamp ``x`` and ``y`` to 1.3 half fields of view, for the Jacobian."""
    fx, fy, cx, cy, width, height = cam[12], cam[13], cam[14], cam[15], cam[16], cam[17]
    margin_x, margin_y = 0.15 * width / fx, 0.15 * height / fy
    tx = z * min((width - cx) / fx + margin_x, max(-cx / fx - margin_x, x / z))
    ty = z * min((height - cy) / fy + margin_y, max(-cy / fy - margin_y, y / z))
    return tx, ty


@kernel()
def _project_axes(log_scales, i, rotation, cam, fx_z, fy_z, jx, jy):
    """Compute the scaled axes of Gaussian ``i`` in camera coordinates (``m``, by rows) and in the image (``u``, ``v``).

    The covariance in the image is ``[[u.u, u.v], [u.v, v.v]]``.
    """
    s0, s1, s2 = (
        np.exp(np.float64(log_scales[i, 0])),
        np.exp(np.float64(log_scales[i, 1])),
        np.exp(np.float64(log_scales[i, 2])),
    )
    r = rotation
    m = (
        (cam[0] * r[0] + cam[1] * r[3] + cam[2] * r[6]) * s0,
        (cam[0] * r[1] + cam[1] * r[4] + cam[2] * r[7]) * s1,
        (cam[0] * r[2] + cam[1] * r[5] + cam[2] * r[8]) * s2,
        (cam[3] * r[0] + cam[4] * r[3] + cam[5] * r[6]) * s0,
        (cam[3] * r[1] + cam[4] * r[4] + cam[5] * r[7]) * s1,
        (cam[3] * r[2] + cam[4] * r[5] + cam[5] * r[8]) * s2,
        (cam[6] * r[0] + cam[7] * r[3] + cam[8] * r[6]) * s0,
        (cam[6] * r[1] + cam[7] * r[4] + cam[8] * r[7]) * s1,
        (cam[6] * r[2] + cam[7] * r[5] + cam[8] * r[8]) * s2,
    )
    u = (fx_z * m[0] + jx * m[6], fx_z * m[1] + jx * m[7], fx_z * m[2] + jx * m[8])
    v = (fy_z * m[3] + jy * m[6], fy_z * m[4] + jy * m[7], fy_z * m[5] + jy * m[8])
    return (s0, s1, s2), m, u, v


@kernel()
def _sigmoid(logit):
    return 1.0 / (1.0 + np.exp(-np.float64(logit)))


@kernel(parallel=True)
def project(
    means, log_scales, quats, opacity_logits, keep, cam, antialiased, num_threads,
    means2d, conics, depths, opacities, radii,
):  # fmt: skip
    """Project all Gaussians into one camera.

    Reads float32 ``means [N, 3]``, ``log_scales [N, 3]``, ``quats [N, 4]``, ``opacity_logits [N]``, boolean ``keep``
    (``[N]``, or ``[0]`` for all) and the packed camera. Writes ``means2d [N, 2]`` in px, ``conics [N, 3]`` (upper
    triangle of the inverse covariance, px^-2), ``depths [N]``, ``opacities [N]`` (with the compensation of
    ``antialiased`` mode, Yu et al. 2024) and ``radii [N, 2]`` in px. All are zero for Gaussians that are not visible.
    """
    n = len(means)
    fx, fy, cx, cy, width, height = cam[12], cam[13], cam[14], cam[15], cam[16], cam[17]
    for thread in prange(num_threads):
        for i in range(n * thread // num_threads, n * (thread + 1) // num_threads):
            means2d[i, 0] = means2d[i, 1] = 0
            conics[i, 0] = conics[i, 1] = conics[i, 2] = 0
            depths[i] = opacities[i] = 0
            radii[i, 0] = radii[i, 1] = 0
            if len(keep) > 0 and not keep[i]:
                continue
            x, y, z = _camera_coordinates(means, i, cam)
            if not (NEAR <= z <= FAR):
                continue
            opacity = _sigmoid(opacity_logits[i])
            if not opacity >= MIN_ALPHA:
                continue
            rotation, _, _ = _rotation_matrix(quats, i)
            tx, ty = _clamp_to_view(x, y, z, cam)
            _, _, u, v = _project_axes(
                log_scales, i, rotation, cam, fx / z, fy / z, -fx * tx / (z * z), -fy * ty / (z * z)
            )
            xx = u[0] * u[0] + u[1] * u[1] + u[2] * u[2]
            xy = u[0] * v[0] + u[1] * v[1] + u[2] * v[2]
            yy = v[0] * v[0] + v[1] * v[1] + v[2] * v[2]
            determinant = (xx + LOW_PASS) * (yy + LOW_PASS) - xy * xy
            if not determinant > 0:
                continue
            if antialiased:
                opacity *= np.sqrt(max(0.0, (xx * yy - xy * xy) / determinant))
                if not opacity >= MIN_ALPHA:
                    continue
            xx += LOW_PASS
            yy += LOW_PASS
            reach = min(REACH, np.sqrt(2 * np.log(opacity / MIN_ALPHA)))
            radius_x, radius_y = np.ceil(reach * np.sqrt(xx)), np.ceil(reach * np.sqrt(yy))
            if not (0 < radius_x < MAX_RADIUS and 0 < radius_y < MAX_RADIUS):
                continue
            px, py = fx * x / z + cx, fy * y / z + cy
            if not (px + radius_x > 0 and px - radius_x < width and py + radius_y > 0 and py - radius_y < height):
                continue
            means2d[i, 0], means2d[i, 1] = px, py
            conics[i, 0], conics[i, 1], conics[i, 2] = yy / determinant, -xy / determinant, xx / determinant
            depths[i] = z
            opacities[i] = opacity
            radii[i, 0], radii[i, 1] = np.int32(radius_x), np.int32(radius_y)


@kernel(parallel=True)
def project_backward(
    means, log_scales, quats, opacity_logits, cam, antialiased, num_threads, radii,
    d_means2d, d_conics, d_depths, d_opacities,
    d_means, d_log_scales, d_quats, d_opacity_logits, first,
):  # fmt: skip
    """Backpropagate through ``project``: read the gradients of its outputs, add to those of its parameters.

    The ``first`` camera overwrites them.
    """
    n = len(means)
    fx, fy = cam[12], cam[13]
    for thread in prange(num_threads):
        for i in range(n * thread // num_threads, n * (thread + 1) // num_threads):
            if first:
                d_means[i] = 0
                d_log_scales[i] = 0
                d_quats[i] = 0
                d_opacity_logits[i] = 0
            if radii[i, 0] == 0:
                continue
            x, y, z = _camera_coordinates(means, i, cam)
            rotation, q, norm = _rotation_matrix(quats, i)
            tx, ty = _clamp_to_view(x, y, z, cam)
            fx_z, fy_z, jx, jy = fx / z, fy / z, -fx * tx / (z * z), -fy * ty / (z * z)
            scale, m, u, v = _project_axes(log_scales, i, rotation, cam, fx_z, fy_z, jx, jy)
            xx = u[0] * u[0] + u[1] * u[1] + u[2] * u[2]
            xy = u[0] * v[0] + u[1] * v[1] + u[2] * v[2]
            yy = v[0] * v[0] + v[1] * v[1] + v[2] * v[2]
            determinant = (xx + LOW_PASS) * (yy + LOW_PASS) - xy * xy
            a, b, c = (yy + LOW_PASS) / determinant, -xy / determinant, (xx + LOW_PASS) / determinant

            # the inverse: d covariance = -conic (d conic) conic
            da, db, dc = np.float64(d_conics[i, 0]), 0.5 * np.float64(d_conics[i, 1]), np.float64(d_conics[i, 2])
            p00, p01, p10, p11 = a * da + b * db, a * db + b * dc, b * da + c * db, b * db + c * dc
            d_xx = -(p00 * a + p01 * b)
            d_xy = -(p00 * b + p01 * c) - (p10 * a + p11 * b)
            d_yy = -(p10 * b + p11 * c)

            opacity = _sigmoid(opacity_logits[i])
            d_opacity = np.float64(d_opacities[i])
            if antialiased:  # opacity * sqrt(r), r = det(covariance) / det(covariance + low-pass)
                r = (xx * yy - xy * xy) / determinant
                compensation = np.sqrt(r)
                d_r = 0.5 * d_opacity * opacity / compensation
                d_opacity *= compensation
                d_xx += d_r * (yy / determinant - r * a)
                d_yy += d_r * (xx / determinant - r * c)
                d_xy += d_r * 2 * (r - 1) * xy / determinant
            d_opacity_logits[i] += d_opacity * opacity * (1 - opacity)

            du = (2 * d_xx * u[0] + d_xy * v[0], 2 * d_xx * u[1] + d_xy * v[1], 2 * d_xx * u[2] + d_xy * v[2])
            dv = (2 * d_yy * v[0] + d_xy * u[0], 2 * d_yy * v[1] + d_xy * u[1], 2 * d_yy * v[2] + d_xy * u[2])

            # the Jacobian's entries fx/z, -fx tx/z^2 and fy/z, -fy ty/z^2, and the projected mean
            d_fx_z = du[0] * m[0] + du[1] * m[1] + du[2] * m[2]
            d_fy_z = dv[0] * m[3] + dv[1] * m[4] + dv[2] * m[5]
            d_jx = du[0] * m[6] + du[1] * m[7] + du[2] * m[8]
            d_jy = dv[0] * m[6] + dv[1] * m[7] + dv[2] * m[8]
            dpx, dpy = np.float64(d_means2d[i, 0]), np.float64(d_means2d[i, 1])
            dx, dy = fx_z * dpx, fy_z * dpy
            dz = np.float64(d_depths[i]) - (fx_z * x * dpx + fy_z * y * dpy) / z
            dz -= (fx_z * d_fx_z + fy_z * d_fy_z) / z
            if tx == z * (x / z):  # not clamped: tx = x
                dx -= fx_z / z * d_jx
                dz -= 2 * jx * d_jx / z
            else:  # clamped: tx = z * constant
                dz -= jx * d_jx / z
            if ty == z * (y / z):
                dy -= fy_z / z * d_jy
                dz -= 2 * jy * d_jy / z
            else:
                dz -= jy * d_jy / z
            for k in range(3):
                d_means[i, k] += cam[k] * dx + cam[3 + k] * dy + cam[6 + k] * dz

            # the axes: m = camera rotation * rotation * scale
            for k in range(3):
                dm0, dm1, dm2 = fx_z * du[k], fy_z * dv[k], jx * du[k] + jy * dv[k]
                d_log_scales[i, k] += dm0 * m[k] + dm1 * m[3 + k] + dm2 * m[6 + k]
            r00, r01, r02, r10, r11, r12, r20, r21, r22 = _d_rotation(cam, scale, du, dv, fx_z, fy_z, jx, jy)
            w, i_, j_, k_ = q
            dw = 2 * (k_ * (r10 - r01) + j_ * (r02 - r20) + i_ * (r21 - r12))
            di = 2 * (j_ * (r01 + r10) + k_ * (r02 + r20) + w * (r21 - r12) - 2 * i_ * (r11 + r22))
            dj = 2 * (i_ * (r01 + r10) + k_ * (r12 + r21) + w * (r02 - r20) - 2 * j_ * (r00 + r22))
            dk = 2 * (i_ * (r02 + r20) + j_ * (r12 + r21) + w * (r10 - r01) - 2 * k_ * (r00 + r11))
            along = dw * w + di * i_ + dj * j_ + dk * k_
            if norm > 1e-12:
                d_quats[i, 0] += (dw - along * w) / norm
                d_quats[i, 1] += (di - along * i_) / norm
                d_quats[i, 2] += (dj - along * j_) / norm
                d_quats[i, 3] += (dk - along * k_) / norm


@kernel()
def _d_rotation(cam, scale, du, dv, fx_z, fy_z, jx, jy):
    """Compute the gradient of the nine entries of the rotation matrix, by rows, from those of the axes in the image."""
    m00, m01, m02 = fx_z * du[0], fx_z * du[1], fx_z * du[2]
    m10, m11, m12 = fy_z * dv[0], fy_z * dv[1], fy_z * dv[2]
    m20, m21, m22 = jx * du[0] + jy * dv[0], jx * du[1] + jy * dv[1], jx * du[2] + jy * dv[2]
    return (
        (cam[0] * m00 + cam[3] * m10 + cam[6] * m20) * scale[0],
        (cam[0] * m01 + cam[3] * m11 + cam[6] * m21) * scale[1],
        (cam[0] * m02 + cam[3] * m12 + cam[6] * m22) * scale[2],
        (cam[1] * m00 + cam[4] * m10 + cam[7] * m20) * scale[0],
        (cam[1] * m01 + cam[4] * m11 + cam[7] * m21) * scale[1],
        (cam[1] * m02 + cam[4] * m12 + cam[7] * m22) * scale[2],
        (cam[2] * m00 + cam[5] * m10 + cam[8] * m20) * scale[0],
        (cam[2] * m01 + cam[5] * m11 + cam[8] * m21) * scale[1],
        (cam[2] * m02 + cam[5] * m12 + cam[8] * m22) * scale[2],
    )
