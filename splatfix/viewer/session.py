"""One browser: what it shows, and the work to keep that up to date."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy import ndarray

from splatfix.images import to_bytes
from splatfix.shapes import Float
from splatfix.viewer.drawing import (
    DrawnSplat,
    Stopwatch,
    compute_colors,
    make_camera,
    one_pixel,
    render_difference,
    render_still,
    seconds_to_wait,
)
from splatfix.viewer.frustums import Frustums
from splatfix.viewer.panel import DIFFERENCE, LIVE, Panel

REST_SECONDS = 0.3  # after which a camera is at rest
SPLAT_NODE = "/splat"


class Session:
    """What one browser shows. `step` is called often, by one thread, and does a bounded part of the pending work."""

    def __init__(
        self,
        client: Any,  # viser.ClientHandle
        title: str,
        splats: Mapping[str, DrawnSplat],
        *,
        first: str | None,
        background: Any,
        is_live: bool,
    ) -> None:
        self.client = client
        self.panel = Panel(client, title, list(splats), first=first, is_live=is_live)
        self.frustums = Frustums(client, self.panel)
        self.panel.connect(on_view=self.frustums.look_from, on_toggle=self.frustums.toggle)
        self._splats = splats
        self._background = background
        self._color = one_pixel((0.0, 0.0, 0.0))  # behind the splat
        self._node: Any = None
        self._shown: DrawnSplat | None = None
        self._colored_from: Float[ndarray, "3"] | None = None
        self._next_colors = 0.0
        self._pose: tuple[float, ...] = ()
        self._moved_at = 0.0
        self._still: tuple[Any, ...] | None = None

    def step(self, now: float) -> None:
        """Bring the browser up to date. ``now`` is in seconds, of any clock that does not go back."""
        name = self.panel.chosen
        drawn = None if name is None else self._splats.get(name)
        pose = _pose_of(self.client.camera)
        if pose != self._pose:
            self._pose, self._moved_at = pose, now
        position = np.array(pose[:3])
        self.frustums.follow(position, None if self._shown is None else self._shown.focus)
        if drawn is not None:
            if drawn is not self._shown:
                self._clear_still()
                self._draw(str(name), drawn, position, now)
            elif self._needs_colors(drawn, position, now):
                self._update_colors(drawn, position, now)
            self._update_still(drawn, now)
        self.frustums.load_one_picture()

    @property
    def wants_colors(self) -> bool:
        """Whether colors by direction are chosen, and the splat has any."""
        return self._shown is not None and self._shown.splat.gaussians.sh_degree > 0 and self.panel.by_direction.value

    def _draw(self, name: str, drawn: DrawnSplat, position: Float[ndarray, "3"], now: float) -> None:
        is_first, self._shown = self._shown is None, drawn
        if is_first:
            color = self._background if drawn.splat.background is None else drawn.splat.background
            if color is not None:
                self._color = one_pixel(color)
            self.client.scene.set_background_image(self._color)
        self._update_colors(drawn, position, now)
        self.panel.describe(name, drawn)

    def _needs_colors(self, drawn: DrawnSplat, position: Float[ndarray, "3"], now: float) -> bool:
        if self.wants_colors != (self._colored_from is not None):
            return True
        before = self._colored_from
        return before is not None and now >= self._next_colors and drawn.has_moved(before, position)

    def _update_colors(self, drawn: DrawnSplat, position: Float[ndarray, "3"], now: float) -> None:
        """Send the Gaussians with the colors that this camera sees, or with their base colors."""
        with Stopwatch() as watch:
            self._colored_from = position if self.wants_colors else None
            by_direction = self._colored_from is not None
            colors = compute_colors(drawn.splat.gaussians, position) if by_direction else drawn.base_colors
            if self._node is None:
                self._node = self.client.scene.add_gaussian_splats(SPLAT_NODE, **drawn.arguments(colors))
            else:
                self._node.set_gaussians(**drawn.arguments(colors))
        self._next_colors = now + seconds_to_wait(len(drawn), watch.seconds)
        self.panel.describe_colors(drawn, watch.seconds if by_direction else None)

    def _update_still(self, drawn: DrawnSplat, now: float) -> None:
        """Replace the browser's own drawing by a render while the camera rests, where one is wanted."""
        panel, other = self.panel, None
        if panel.show.value == LIVE:
            self._clear_still()
            return
        if panel.show.value == DIFFERENCE:
            other = self._splats.get(panel.compared or "")
            if other is None or other is drawn:
                self._clear_still()
                panel.describe_still("A difference needs two splats.")
                return
        peak, side_px = float(panel.peak.value), int(panel.side_px.value)
        wanted = (self._pose, drawn, other, peak if other is not None else None, side_px)
        if wanted == self._still:
            return
        if now - self._moved_at < REST_SECONDS:
            self._clear_still()
            panel.describe_still("It is rendered when the camera rests.")
            return
        camera = make_camera(self.client.camera, side_px)
        with Stopwatch() as watch:
            if other is None:
                picture, what = render_still(drawn.splat, camera), "Rendered exactly"
            else:
                picture = render_difference(drawn.splat, other.splat, camera, peak)
                what = f"|{panel.chosen} - {panel.compared}|"
        self.client.scene.set_background_image(to_bytes(picture), format="jpeg", jpeg_quality=90)
        self._node.visible = False
        self._still = wanted
        size = f"{camera.width_px} x {camera.height_px} px"
        panel.describe_still(f"{what}, {size}, in {1000 * watch.seconds:.0f} ms.")

    def _clear_still(self) -> None:
        if self._still is not None:
            self._still = None
            self.client.scene.set_background_image(self._color)
            self._node.visible = True


def _pose_of(camera: Any) -> tuple[float, ...]:
    return (*map(float, camera.position), *map(float, camera.wxyz), float(camera.fov), float(camera.aspect))
