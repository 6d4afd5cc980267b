"""Splats and cameras in the browser, with viser (an extra: ``pip install 'splatfix[viewer]'``)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from splatfix.cameras import Camera, focus_point, quaternion_from_rotation
from splatfix.captures.capture import Capture
from splatfix.gaussians import SH_C0, Gaussians, Splat, covariances
from splatfix.images import resize, to_bytes
from splatfix.splats.start import find_misfit

if TYPE_CHECKING:
    from viser import ViserServer

THUMBNAIL_SIDE_PX = 96
MAX_THUMBNAILS = 120
CAMERA_COLOR = (217, 88, 22)


def view(splat: Splat, capture: Capture | None = None, *, host: str = "127.0.0.1", port: int = 8080) -> None:
    """Show a splat, and the cameras of its capture, until interrupted.

    Raises:
        ValueError: viser is not installed, the splat is empty, or the address cannot be used.
    """
    server = serve(splat, capture, host=host, port=port)
    address = "localhost" if host in ("127.0.0.1", "0.0.0.0", "::") else host
    print(f"{len(splat.gaussians):,} Gaussians at http://{address}:{server.get_port()}  (stop with Ctrl-C)", flush=True)
    if server.get_port() != port:
        print(f"port {port} is taken, hence port {server.get_port()}", flush=True)
    misfit = None if capture is None else _find_misfit(splat, capture)
    if misfit is not None:
        print(f"the splat does not fit the photos: {misfit}", flush=True)
    if splat.mode == "antialiased":
        print("the browser draws without antialiasing: thin parts look bolder than in renders of splatfix", flush=True)
    if splat.gaussians.sh_degree > 0:
        print("the browser shows the base color of each Gaussian, without its view dependence", flush=True)
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        print("stopped")
    finally:
        server.stop()


def serve(splat: Splat, capture: Capture | None = None, *, host: str = "127.0.0.1", port: int = 8080) -> ViserServer:
    """Start the server and show the splat over its background; returns at once.

    Where ``port`` is taken, viser takes the next free one.
    """
    try:
        import viser
    except ImportError:
        raise ValueError(
            "the viewer needs viser, which is not installed; remedy: pip install 'splatfix[viewer]'"
        ) from None
    gaussians = splat.gaussians
    if len(gaussians) == 0:
        raise ValueError("the splat has no Gaussians; wanted at least one")
    try:
        server = viser.ViserServer(host=host, port=port, label="splatfix", verbose=False)
    except OSError as error:
        raise ValueError(f"cannot listen on {host}:{port} ({error.strerror or error}); wanted a free address") from None
    cameras = capture.cameras if capture is not None else ()
    _set_initial_camera(server, gaussians, cameras)
    if splat.background is not None:
        server.scene.set_background_image(to_bytes(np.full((1, 1, 3), splat.background, np.float32)))
    server.scene.add_gaussian_splats(
        "/splat",
        centers=gaussians.means.detach().cpu().numpy().astype(np.float32),
        covariances=covariances(gaussians.quats.detach(), gaussians.scales.detach()).cpu().numpy().astype(np.float32),
        rgbs=(0.5 + SH_C0 * gaussians.sh0.detach()[:, 0].cpu()).clamp(0, 1).numpy().astype(np.float32),
        opacities=gaussians.opacities.detach().cpu().numpy().astype(np.float32)[:, None],
    )
    if capture is not None:
        _add_cameras(server, capture)
    return server


def _find_misfit(splat: Splat, capture: Capture) -> str | None:
    if capture.background is not None:  # the photos are composited over it
        splat = replace(splat, background=capture.background)
    return find_misfit(splat, capture.views)


def _set_initial_camera(server: ViserServer, gaussians: Gaussians, cameras: Sequence[Camera]) -> None:
    """Set the world's up and the initial camera: behind the first camera, else outside of most of the Gaussians."""
    if cameras:
        first = cameras[0]
        up = -np.mean([camera.rotation[1] for camera in cameras], axis=0)
        up = up if np.linalg.norm(up) > 1e-3 else -first.rotation[1]
        target = focus_point(cameras)
        if (target - first.center) @ first.axis <= 0:  # axes that diverge, as from inside a room
            target = first.center + first.axis
        away = first.center - target
        position = target + 1.7 * away + 0.35 * np.linalg.norm(away) * up / np.linalg.norm(up)  # behind and above it
        fov_rad = 2 * np.arctan(0.5 * first.height_px / first.intrinsics[1, 1])
    else:
        means = gaussians.means.detach().cpu().double().numpy()
        target = np.median(means, axis=0)
        radius = float(np.quantile(np.linalg.norm(means - target, axis=1), 0.9)) or 1.0
        up = np.array([0.0, -1.0, 0.0])  # y points down in most captures
        position = target + 2.2 * radius * np.array([0.45, -0.45, -0.77])
        fov_rad = np.radians(50.0)
    server.scene.set_up_direction(tuple(up / np.linalg.norm(up)))
    server.initial_camera.up = tuple(up / np.linalg.norm(up))
    server.initial_camera.near = 1e-3 * float(np.linalg.norm(position - target))
    server.initial_camera.position = tuple(position)
    server.initial_camera.look_at = tuple(target)
    server.initial_camera.fov = float(fov_rad)


def _add_cameras(server: ViserServer, capture: Capture) -> None:
    centers = np.stack([camera.center for camera in capture.cameras])
    gaps = np.linalg.norm(centers[:, None] - centers[None], axis=-1) + np.diag(np.full(len(centers), np.inf))
    nearest = np.median(gaps.min(axis=1)) if len(centers) > 1 else 1.0
    far = np.median(np.linalg.norm(centers - focus_point(capture.cameras), axis=1))
    sizes = [size for size in (0.35 * nearest, 0.08 * far) if np.isfinite(size) and size > 0]
    scale = float(min(sizes, default=0.1))  # small enough to leave the splat in sight
    handles = []
    for number, camera in enumerate(capture.cameras):
        handles.append(
            server.scene.add_camera_frustum(
                f"/cameras/{number:04d}",
                fov=float(2 * np.arctan(0.5 * camera.height_px / camera.intrinsics[1, 1])),
                aspect=camera.width_px / camera.height_px,
                scale=scale,
                thickness=1.5,
                thickness_units="screen",
                color=CAMERA_COLOR,
                image=_thumbnail(capture, number),
                format="jpeg",
                wxyz=quaternion_from_rotation(camera.rotation.T),
                position=camera.center,
            )
        )

    visible = server.gui.add_checkbox("show cameras", initial_value=True)
    names = server.gui.add_dropdown("look from", options=("(free)", *capture.names))

    @visible.on_update
    def _(_event) -> None:
        for handle in handles:
            handle.visible = visible.value

    @names.on_update
    def _(event) -> None:
        if names.value == "(free)" or event.client is None:
            return
        camera = capture.view(names.value).camera
        with event.client.atomic():
            event.client.camera.position = camera.center
            event.client.camera.wxyz = quaternion_from_rotation(camera.rotation.T)
            event.client.camera.fov = float(2 * np.arctan(0.5 * camera.height_px / camera.intrinsics[1, 1]))


def _thumbnail(capture: Capture, number: int) -> np.ndarray | None:
    if number >= MAX_THUMBNAILS:
        return None
    rgb = capture.views[number].load().rgb
    small = capture.views[number].camera.with_longest_side(THUMBNAIL_SIDE_PX)
    return to_bytes(resize(rgb, small.width_px, small.height_px))
