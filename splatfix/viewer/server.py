"""The server of the viewer: browsers that come and go, and one thread that works for all of them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from splatfix.cameras import Camera, focus_point
from splatfix.extras import require_modules
from splatfix.gaussians import Splat
from splatfix.viewer.drawing import DrawnSplat, draw, one_pixel, warm_up
from splatfix.viewer.live import POLL_SECONDS, RunWatcher
from splatfix.viewer.scene import ViewerScene
from splatfix.viewer.session import SPLAT_NODE, Session

if TYPE_CHECKING:
    from viser import ClientHandle, ViserServer

log = logging.getLogger(__name__)

TICK_SECONDS = 0.05
PREFERRED = "after"


class Viewer:
    """A running viewer.

    Attributes:
        server: viser's server.
        scene: what is shown; its views grow with a live run.
        splats: by name, as they are drawn; they change with a live run.
        sessions: one for each browser, by its number.
    """

    def __init__(
        self, scene: ViewerScene, *, host: str = "127.0.0.1", port: int = 8080, watcher: RunWatcher | None = None
    ) -> None:
        """Start the server; returns at once. Where ``port`` is taken, viser takes the next free one.

        Raises:
            ValueError: viser is not installed, a splat is empty, or the address cannot be used.
        """
        for name, splat in scene.splats.items():
            if len(splat.gaussians) == 0:
                raise ValueError(f"{name}: the splat has no Gaussians; wanted at least one")
        self.scene, self._watcher = scene, watcher
        self.views = list(scene.views)
        self.splats: dict[str, DrawnSplat] = {} if watcher is not None else _draw_all(scene.splats)
        self.sessions: dict[int, Session] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._next_poll = 0.0
        self.server = _start_server(host, port)
        self._is_placed = False
        self._place_camera()
        self.server.on_client_connect(self._connect)
        self.server.on_client_disconnect(self._disconnect)
        self._thread = threading.Thread(target=self._work, name="viewer", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop working and serving."""
        self._stopping.set()
        self._thread.join()
        self.server.stop()

    def _connect(self, client: ClientHandle) -> None:
        first = PREFERRED if PREFERRED in self.splats else next(reversed(self.splats), None)
        session = Session(
            client,
            self.scene.title,
            self.splats,
            first=first if self._watcher is None else None,
            background=self.scene.background,
            is_live=self._watcher is not None,
        )
        with self._lock:
            self.sessions[client.client_id] = session

    def _disconnect(self, client: ClientHandle) -> None:
        with self._lock:
            self.sessions.pop(client.client_id, None)

    def _work(self) -> None:
        """Work for the browsers in turn. An error is logged, and the next browser served."""
        warm_up()
        while not self._stopping.wait(TICK_SECONDS):
            with self._lock:
                sessions = dict(self.sessions)
            if self._watcher is not None:
                self._poll(self._watcher)
            for number, session in sessions.items():
                try:
                    session.frustums.show(self.views)
                    if self._watcher is not None:
                        self._update_live(session, self._watcher)
                    session.step(time.monotonic())
                except Exception as error:
                    if number in self.sessions:  # else the browser has just gone
                        log.exception("the viewer cannot update browser %d: %s", number, error)
                        with self._lock:
                            self.sessions.pop(number, None)

    def _poll(self, watcher: RunWatcher) -> None:
        now = time.monotonic()
        if now < self._next_poll:
            return
        for name in watcher.poll():
            self.splats[name] = draw(watcher.saved[name].splat)
        self.views = [*self.scene.views, *watcher.views]
        self._next_poll = time.monotonic() + POLL_SECONDS
        self._place_camera()

    def _update_live(self, session: Session, watcher: RunWatcher) -> None:
        session.panel.list_splats(list(watcher.saved), watcher.newest)
        session.panel.describe_run(watcher.describe(time.time()))

    def _place_camera(self) -> None:
        """Set where browsers start, once it is known."""
        if self._is_placed:
            return
        cameras = [view.camera for view in self.views if view.role != "repaired"]
        drawn = next(iter(self.splats.values()), None)
        if cameras or drawn is not None:
            _set_initial_camera(self.server, drawn, cameras)
            self._is_placed = True


def view(
    scene: ViewerScene,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    watcher: RunWatcher | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Show a scene, and what a watched run saves, until interrupted. Errors as of `Viewer`."""
    viewer = Viewer(scene, host=host, port=port, watcher=watcher)
    try:
        address = "localhost" if host in ("127.0.0.1", "0.0.0.0", "::") else host
        used = viewer.server.get_port()
        counts = ", ".join(f"{name} ({len(splat.gaussians):,} Gaussians)" for name, splat in scene.splats.items())
        what = f"{scene.title}: {'its saved states' if watcher is not None else counts}"
        say(f"{what} at http://{address}:{used}  (stop with Ctrl-C)")
        if used != port:
            say(f"port {port} is taken, hence port {used}")
        for note in scene.notes:
            say(note)
        told = ""
        while True:
            time.sleep(POLL_SECONDS)
            if watcher is not None:
                told = _tell(watcher, told, say)
    except KeyboardInterrupt:
        say("stopped")
    finally:
        viewer.stop()


def make_page(splat: Splat) -> str:
    """Make a page that shows a splat without a server: viser's client with the scene in it, in base colors.

    Raises:
        ValueError: viser is not installed, or no port is free.
    """
    server = _start_server("127.0.0.1", 8080)
    try:
        drawn = draw(splat)
        _set_initial_camera(server, drawn, ())
        if splat.background is not None:
            server.scene.set_background_image(one_pixel(splat.background))
        server.scene.add_gaussian_splats(SPLAT_NODE, **drawn.arguments(drawn.base_colors))
        return server.scene.as_html()
    finally:
        server.stop()


def _tell(watcher: RunWatcher, told: str, say: Callable[[str], None]) -> str:
    """Say what a watched run has saved, once for each state."""
    state = f"{watcher.newest} {watcher.saved_at.get(watcher.newest or '')} {watcher.is_finished}"
    if state != told:
        say(watcher.describe(time.time()))
    return state


def _draw_all(splats: dict[str, Splat]) -> dict[str, DrawnSplat]:
    return {name: draw(splat) for name, splat in splats.items()}


def _start_server(host: str, port: int) -> ViserServer:
    require_modules("viser", user="the viewer")
    import viser

    try:
        return viser.ViserServer(host=host, port=port, label="splatfix", verbose=False)
    except OSError as error:
        raise ValueError(f"cannot listen on {host}:{port} ({error.strerror or error}); wanted a free address") from None


def _set_initial_camera(server: ViserServer, drawn: DrawnSplat | None, cameras: Sequence[Camera]) -> None:
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
        assert drawn is not None
        target = drawn.focus
        radius = float(np.quantile(np.linalg.norm(drawn.centers - target, axis=1), 0.9)) or 1.0
        up = np.array([0.0, -1.0, 0.0])  # y points down in most captures
        position = target + 2.2 * radius * np.array([0.45, -0.45, -0.77])
        fov_rad = np.radians(50.0)
    server.scene.set_up_direction(tuple(up / np.linalg.norm(up)))
    server.initial_camera.up = tuple(up / np.linalg.norm(up))
    server.initial_camera.near = 1e-3 * float(np.linalg.norm(position - target))
    server.initial_camera.position = tuple(position)
    server.initial_camera.look_at = tuple(target)
    server.initial_camera.fov = float(fov_rad)
