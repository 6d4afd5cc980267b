"""The cameras of photos and repaired views in one browser: frustums with their pictures, to click on."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy import ndarray

from splatfix.cameras import Camera, focus_point, quaternion_from_rotation
from splatfix.images import resize, to_bytes
from splatfix.shapes import Float
from splatfix.viewer.panel import COLORS, ROLES, Group, Panel
from splatfix.viewer.scene import ShownView, count_groups

log = logging.getLogger(__name__)

THUMBNAIL_SIDE_PX = 96
MAX_THUMBNAILS = 200
PICTURE_SIDE_PX = 320  # of the picture in the panel
LEFT_SHARE = 0.1  # of the size of a frustum, beyond which a camera has left it


class Frustums:
    """The frustums of one browser. The pictures are loaded one by one, by `load_one_picture`."""

    def __init__(self, client: Any, panel: Panel) -> None:
        self._client, self._panel = client, panel
        self._scale = 0.1
        self._views: dict[str, ShownView] = {}
        self._handles: dict[str, Any] = {}
        self._waiting: deque[str] = deque()  # names of views whose thumbnails are not loaded yet
        self._num_thumbnails = 0
        self._wanted_picture: str | None = None
        self._looking_from: str | None = None
        self._focus: Float[ndarray, "3"] | None = None

    def show(self, views: Sequence[ShownView]) -> None:
        """Show the cameras of these views; those that are shown already stay."""
        if len(views) == len(self._views):
            return
        added = [view for view in views if view.name not in self._views]
        self._scale = _choose_scale([view.camera for view in views])
        for number, view in enumerate(added, start=len(self._views)):
            self._views[view.name] = view
            self._handles[view.name] = self._add(f"/cameras/{number:04d}", view)
            self._waiting.append(view.name)
        counts = count_groups(views)
        first = {view.group: view for view in reversed(views)}
        ordered = sorted(counts, key=lambda name: (ROLES.index(first[name].role), first[name].round))
        self._panel.list_groups({name: Group(name, first[name].role, counts[name]) for name in ordered}, views)
        self.toggle()

    def toggle(self) -> None:
        """Show the cameras of the chosen groups, in the chosen size."""
        for name, view in self._views.items():
            handle = self._handles[name]
            is_in_the_way = name == self._looking_from  # its picture would hide the splat
            handle.visible = self._panel.is_shown(view.group) and not is_in_the_way
            handle.scale = self._scale * float(self._panel.size.value)

    def look_from(self, name: str) -> None:
        """Move the camera of the browser to a view, and show its picture in the panel."""
        view = self._views[name]
        with self._client.atomic():
            _place_camera(self._client.camera, view.camera, self._find_depth(view.camera))
        self._wanted_picture = self._looking_from = name
        self.toggle()

    def follow(self, position: Float[ndarray, "3"], focus: Float[ndarray, "3"] | None) -> None:
        """Learn where the camera is, and the middle of the splat: a view that the camera has left is shown again."""
        self._focus = focus
        if self._looking_from is not None:
            center = self._views[self._looking_from].camera.center
            if np.linalg.norm(center - position) > LEFT_SHARE * self._scale:
                self._looking_from = None
                self.toggle()

    def load_one_picture(self) -> None:
        """Load the picture of the view that was chosen last, else the next thumbnail of a camera that is shown."""
        wanted, self._wanted_picture = self._wanted_picture, None
        if wanted is not None:
            picture = _load(self._views[wanted], PICTURE_SIDE_PX)
            if picture is not None:
                self._panel.picture.image = picture
                self._panel.picture.label = wanted
            self._panel.picture.visible = picture is not None
            return
        for _ in range(len(self._waiting)):
            name = self._waiting.popleft()
            if not self._handles[name].visible:
                self._waiting.append(name)
                continue
            if self._num_thumbnails < MAX_THUMBNAILS:
                picture = _load(self._views[name], THUMBNAIL_SIDE_PX)
                if picture is not None:
                    self._handles[name].image = picture
                    self._num_thumbnails += 1
            return

    def _add(self, node: str, view: ShownView) -> Any:
        camera = view.camera
        handle = self._client.scene.add_camera_frustum(
            node,
            fov=_fov_rad(camera),
            aspect=camera.width_px / camera.height_px,
            scale=self._scale,
            thickness=1.5,
            thickness_units="screen",
            color=COLORS[view.role],
            format="jpeg",
            wxyz=quaternion_from_rotation(camera.rotation.T),
            position=camera.center,
        )
        handle.on_click(lambda _: self._panel.choose_view(view.name))
        return handle

    def _find_depth(self, camera: Camera) -> float:
        """The depth of the middle of the splat, or of what the cameras look at, as this camera sees it."""
        focus = focus_point([view.camera for view in self._views.values()]) if self._focus is None else self._focus
        depth = float((focus - camera.center) @ camera.axis)
        return depth if depth > 0 else float(np.linalg.norm(focus - camera.center)) or 1.0


def _place_camera(viser_camera: Any, camera: Camera, depth: float) -> None:
    """Move the camera of a browser to a camera of the scene; drags then turn around a point at ``depth``."""
    viser_camera.position = camera.center
    viser_camera.look_at = camera.center + depth * camera.axis
    viser_camera.wxyz = quaternion_from_rotation(camera.rotation.T)
    viser_camera.fov = _fov_rad(camera)


def _fov_rad(camera: Camera) -> float:
    """The vertical angle of view."""
    return float(2 * np.arctan(0.5 * camera.height_px / camera.intrinsics[1, 1]))


def _choose_scale(cameras: Sequence[Camera]) -> float:
    """A size for frustums that leaves the splat in sight."""
    centers = np.stack([camera.center for camera in cameras])
    gaps = np.linalg.norm(centers[:, None] - centers[None], axis=-1) + np.diag(np.full(len(centers), np.inf))
    nearest = np.median(gaps.min(axis=1)) if len(centers) > 1 else 1.0
    far = np.median(np.linalg.norm(centers - focus_point(cameras), axis=1))
    sizes = [size for size in (0.35 * nearest, 0.06 * far) if np.isfinite(size) and size > 0]
    return float(min(sizes, default=0.1))


def _load(view: ShownView, side_px: int) -> ndarray | None:
    """Load the picture of a view, scaled down, uint8; None where there is none or it cannot be read."""
    try:
        rgb = view.load()
    except (OSError, ValueError) as error:
        log.warning("%s: no picture: %s", view.name, error)
        return None
    if rgb is None:
        return None
    height, width = rgb.shape[:2]
    shrink = min(1.0, side_px / max(width, height))
    return to_bytes(resize(np.asarray(rgb, np.float32), max(1, round(width * shrink)), max(1, round(height * shrink))))
