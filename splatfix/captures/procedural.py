"""Open a procedural scene as a capture: its name alone determines it, and its photos are cast when they are needed."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock

from splatfix.cameras import Camera
from splatfix.captures.capture import Capture, Photo, View
from splatfix.procedural.names import parse_seed, scene_name

LICENSE = "CC0-1.0, made by splatfix"
MAX_KEPT_BYTES = 2**27  # of photos in memory: some 300 at 192 px


@dataclass(frozen=True, eq=False)
class ProceduralPhoto:
    """Casts one photo of a procedural scene."""

    seed: int
    camera: Camera

    def __call__(self) -> Photo:
        """Return the photo, cast now or earlier."""
        return _KEPT.load(self)


class _KeptPhotos:
    """The most recent photos. Threads may share it; photos are cast one at a time."""

    def __init__(self) -> None:
        self._photos: OrderedDict[tuple[int, str, int, int], Photo] = OrderedDict()
        self._num_bytes = 0
        self._lock = Lock()

    def load(self, photo: ProceduralPhoto) -> Photo:
        from splatfix.procedural.scene import build_scene  # compiles kernels

        camera = photo.camera
        key = (photo.seed, camera.name, camera.width_px, camera.height_px)
        with self._lock:
            if key not in self._photos:
                self._photos[key] = Photo(build_scene(photo.seed).photograph(camera))
                self._num_bytes += self._photos[key].rgb.nbytes
            self._photos.move_to_end(key)
            while self._num_bytes > MAX_KEPT_BYTES and len(self._photos) > 1:
                self._num_bytes -= self._photos.popitem(last=False)[1].rgb.nbytes
            return self._photos[key]


_KEPT = _KeptPhotos()


def open_procedural(name: str, longest_side_px: int | None) -> Capture:
    """Open the scene that a name such as ``procedural:7`` determines. ValueError if it names none."""
    seed = parse_seed(name)
    from splatfix.procedural.scene import build_scene

    scene = build_scene(seed)
    cameras = [camera.with_longest_side(longest_side_px) for camera in scene.cameras]
    note = f"procedural scene {seed} ({scene.kind}): photos cast by splatfix, exact cameras; {LICENSE}"
    return Capture(
        name=scene_name(seed),
        path=name,
        format="procedural",
        views=tuple(View(camera, ProceduralPhoto(seed, camera)) for camera in cameras),
        notes=(note,),
        license=LICENSE,
    )
