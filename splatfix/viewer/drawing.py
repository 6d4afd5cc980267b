"""Colors and pictures of splats for a browser: view-dependent colors, exact renders and differences, all on the CPU.

The browser draws one color per Gaussian. The color that spherical harmonics give depends on where the Gaussian is seen
from, so it is computed here for the camera of each browser, and sent again when that camera has moved enough.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy import ndarray

from splatfix.cameras import Camera, compose_pose, rotation_from_quaternion
from splatfix.evaluation.error_maps import error_map
from splatfix.gaussians import SH_C0, Gaussians, Splat, covariances
from splatfix.images import to_bytes
from splatfix.rendering import render
from splatfix.rendering.cpu.functions import Color
from splatfix.rendering.cpu.projection import pack_camera
from splatfix.shapes import Float, UInt8

MOVE_SHARE = 0.01  # of the distance to the splat: by less, colors do not visibly change
MIN_INTERVAL_SECONDS = 0.15  # between updates of colors
IDLE_SHARE = 4.0  # seconds of rest per second that an update took, so that the machine can do other work
BYTES_PER_GAUSSIAN = 32
MAX_BYTES_PER_SECOND = 10e6  # to each browser, for colors
STILL_SIDE_PX = 480  # longest side of renders, by default
MAX_STILL_SIDE_PX = 960

# numba's kernels may run in one thread at a time (its threading layers need not be safe)
_kernels = threading.Lock()


@dataclass(frozen=True, eq=False)
class DrawnSplat:
    """A splat as the browser draws it.

    Attributes:
        splat: the splat, on the CPU.
        centers: of the Gaussians, float32 ``[N, 3]``.
        covariances: float32 ``[N, 3, 3]``.
        opacities: float32 ``[N, 1]``.
        base_colors: RGB of the constant band, float32 ``[N, 3]``.
        focus: a point in the middle of the Gaussians, ``[3]``.
    """

    splat: Splat
    centers: Float[ndarray, "N 3"]
    covariances: Float[ndarray, "N 3 3"]
    opacities: Float[ndarray, "N 1"]
    base_colors: Float[ndarray, "N 3"]
    focus: Float[ndarray, "3"]

    def __len__(self) -> int:
        return len(self.centers)

    def arguments(self, colors: Float[ndarray, "N 3"]) -> dict[str, Any]:
        """Arguments of viser's functions that draw Gaussians."""
        return {
            "centers": self.centers,
            "covariances": self.covariances,
            "rgbs": colors,
            "opacities": self.opacities,
        }

    def has_moved(self, before: Float[ndarray, "3"], now: Float[ndarray, "3"]) -> bool:
        """Whether colors seen from ``now`` may differ visibly from those seen from ``before``."""
        distance = float(np.linalg.norm(now - self.focus))
        return float(np.linalg.norm(now - before)) > MOVE_SHARE * distance


def draw(splat: Splat) -> DrawnSplat:
    """Prepare a splat for the browser."""
    splat = splat.detach().to("cpu")
    g = splat.gaussians
    centers = g.means.numpy().astype(np.float32)
    return DrawnSplat(
        splat=splat,
        centers=centers,
        covariances=covariances(g.quats, g.scales).numpy().astype(np.float32),
        opacities=g.opacities.numpy().astype(np.float32)[:, None],
        base_colors=(0.5 + SH_C0 * g.sh0[:, 0]).clamp(0, 1).numpy().astype(np.float32),
        focus=np.median(centers, axis=0).astype(np.float64),
    )


def one_pixel(color: Any) -> UInt8[ndarray, "1 1 3"]:
    """Make the background image of a color, RGB in [0, 1]."""
    return to_bytes(np.full((1, 1, 3), np.asarray(color, np.float32)))


def compute_colors(gaussians: Gaussians, position: Float[ndarray, "3"]) -> Float[ndarray, "N 3"]:
    """Evaluate the spherical harmonics of all Gaussians as seen from a point; RGB, clipped to [0, 1]."""
    camera = Camera("viewer", 1, 1, np.eye(3), compose_pose(np.eye(3), np.asarray(position, float)))
    all_seen = torch.ones(1, len(gaussians), 2, dtype=torch.int32)
    with torch.no_grad(), _kernels:
        colors = Color.apply(
            *(gaussians.means.float(), gaussians.sh0.float(), gaussians.sh_rest.float()),
            *(all_seen, [pack_camera(camera)], gaussians.sh_degree),
        )
    return colors[0].clamp(0, 1).numpy()


def warm_up() -> None:
    """Compile or load the kernel of the colors, so that the first update costs no more than the others."""
    g = torch.zeros(1, 3)
    compute_colors(Gaussians(g, g, torch.ones(1, 4), torch.zeros(1), g[None], torch.zeros(1, 3, 3)), np.ones(3))


def seconds_to_wait(num_gaussians: int, cost_seconds: float) -> float:
    """Compute how long to wait after an update of colors: bounds the load of the processor and of the network."""
    sending = num_gaussians * BYTES_PER_GAUSSIAN / MAX_BYTES_PER_SECOND
    return max(MIN_INTERVAL_SECONDS, IDLE_SHARE * cost_seconds, sending)


def make_camera(viser_camera: Any, longest_side_px: int) -> Camera:
    """Make the camera that a browser looks through (a ``viser.CameraHandle``), with an image of bounded size."""
    rotation = rotation_from_quaternion(np.asarray(viser_camera.wxyz, float))  # world from camera
    side = min(longest_side_px, MAX_STILL_SIDE_PX)
    aspect = float(np.clip(viser_camera.aspect, 0.1, 10.0))
    width, height = (side, max(1, round(side / aspect))) if aspect >= 1 else (max(1, round(side * aspect)), side)
    focal = 0.5 * height / np.tan(0.5 * viser_camera.fov)
    intrinsics = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
    return Camera("viewer", width, height, intrinsics, compose_pose(rotation.T, np.array(viser_camera.position, float)))


def render_still(splat: Splat, camera: Camera) -> Float[ndarray, "H W 3"]:
    """Render a splat exactly, with its mode, background and all bands of color; RGB in [0, 1]."""
    with torch.no_grad(), _kernels:
        return render(splat, [camera], with_depth=False).rgb[0].clamp(0, 1).numpy()


def render_difference(a: Splat, b: Splat, camera: Camera, peak: float) -> Float[ndarray, "H W 3"]:
    """Render the mean absolute difference of two splats over the channels in colors; ``peak`` and more is palest."""
    return error_map(render_still(a, camera), render_still(b, camera), peak)


class Stopwatch:
    """Measures the seconds of a block."""

    seconds = 0.0

    def __enter__(self) -> Stopwatch:
        self._start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._start
