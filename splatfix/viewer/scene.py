"""What the viewer shows: splats by name, and the photos and repaired views with their cameras.

They come from run folders, ``.ply`` files and a capture. The capture of a run is the one it was made from, where that
still exists; else the cameras are those of the run's own ``views.json``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy import ndarray

from splatfix.cameras import Camera, look_at
from splatfix.captures import Capture, View, is_procedural, is_remote, open_capture
from splatfix.config import build_config
from splatfix.evaluation.layout import image_path, repair_path
from splatfix.evaluation.results import ARM_MEANINGS, RESULTS
from splatfix.evaluation.view_cameras import ViewCamera, ViewCameras, read_view_cameras
from splatfix.gaussians import Splat, read_recorded_world, read_splat
from splatfix.images import read_image
from splatfix.runs import RECORD, read_run
from splatfix.similarity import IDENTITY, Similarity
from splatfix.splats.start import find_misfit
from splatfix.views import Split, ViewsConfig, read_split, resolve_size

Role = Literal["photo", "training", "test", "other", "repaired"]  # photo: of a capture without a run
Load = Callable[[], ndarray | None]
WANTED = "the folder of a fit, loop or demo, or a .ply"
ARMS = ("before", "control", "after")
MEANINGS = ARM_MEANINGS | {
    "sibling": "a fit with another seed, whose renders are averaged with those of the loop before their repair",
    "round": "what after is to become: trained on with the repaired views of this round",
}


@dataclass(frozen=True, eq=False)
class ShownView:
    """A photo or a repaired view at its camera.

    Attributes:
        camera: where it was taken or rendered, in the world of the splats.
        role: of a photo in the run, or ``repaired``.
        load: loads its picture, float RGB ``[H, W, 3]``; None where there is none. Raises OSError or ValueError.
        round: of a repaired view, from 1; else 0.
    """

    camera: Camera
    role: Role
    load: Load
    round: int = 0

    @property
    def group(self) -> str:
        """Name of the views that are shown and hidden together."""
        if self.role == "repaired":
            return f"repaired, round {self.round}"
        return "photos" if self.role == "photo" else f"{self.role} photos"

    @property
    def name(self) -> str:
        """Name of the view, unique within its scene."""
        return f"{self.group}: {self.camera.name}" if self.role == "repaired" else self.camera.name


@dataclass(frozen=True, eq=False)
class ViewerScene:
    """Splats in one world, and views at their cameras.

    Attributes:
        title: what it is, in a few words.
        splats: by the names between which the viewer switches, in their order.
        views: photos and repaired views.
        world: from the world to the coordinates of the files of the splats.
        background: RGB behind a splat that does not say; None is black.
        notes: sentences for the user, without an end.
    """

    title: str
    splats: dict[str, Splat]
    views: tuple[ShownView, ...] = ()
    world: Similarity = IDENTITY
    background: Any = None
    notes: tuple[str, ...] = ()


def open_scene(sources: Sequence[str | Path], *, cameras_only: bool = False) -> ViewerScene:
    """Open run folders, ``.ply`` files and at most one capture, in any order.

    Args:
        sources: paths; that of the capture may be a URL.
        cameras_only: leave out the splats of runs, which need not exist.

    Raises:
        ValueError: nothing to show, several captures, or a file that cannot be read.
    """
    words = [str(source) for source in sources]
    if not words:
        raise ValueError(f"nothing to look at; wanted {WANTED}")
    plys = [Path(word) for word in words if word.lower().endswith(".ply")]
    runs = [Path(word) for word in words if is_run(word)]
    captures = [word for word in words if Path(word) not in (*plys, *runs)]
    if len(captures) > 1:
        raise ValueError(f"{captures[1]}: neither a .ply nor a run folder, and {captures[0]} is the capture already")
    if not plys and not runs:
        is_missing = not is_remote(words[0]) and not Path(words[0]).exists()
        raise ValueError(f"{words[0]}: {'no such file or folder' if is_missing else 'no splat'}; wanted {WANTED}")
    files = {} if cameras_only else _list_splats(plys, runs)
    capture: Capture | None = open_capture(captures[0]) if captures else None
    notes: list[str] = []
    if capture is None and runs:
        capture, notes = _open_capture_of(runs[0])
    paths = list(files.values()) or [run / "before.ply" for run in runs]
    world = read_recorded_world(paths[0]) if capture is None else capture.file_from_world
    splats = {name: read_splat(path, file_from_world=world) for name, path in files.items()}
    for name, splat in splats.items():
        if len(splat.gaussians) == 0:
            raise ValueError(f"{files[name]}: the splat has no Gaussians; wanted at least one")
        if captures and capture is not None and (misfit := _find_misfit(splat, capture)) is not None:
            notes.append(f"{files[name]}: the splat does not fit the photos: {misfit}")
    return ViewerScene(
        title=" and ".join(path.resolve().name for path in (runs or plys)),
        splats=splats,
        views=(
            *list_photos(capture, runs[0] if runs else None, world),
            *(list_repairs(runs[0], world) if runs else ()),
        ),
        world=world,
        background=None if capture is None else capture.background,
        notes=tuple(notes),
    )


def find_live_run(sources: Sequence[str]) -> Path:
    """Find the run to watch among paths: the first one, which need not exist yet.

    Raises:
        ValueError: it is a file or a URL.
    """
    if not sources or is_remote(sources[0]) or Path(sources[0]).is_file():
        named = f"{sources[0]}: " if sources else ""
        raise ValueError(f"{named}cannot be watched; wanted the folder of a fit, loop or demo first")
    return Path(sources[0])


def is_run(path: str | Path) -> bool:
    """Whether a path is the folder of a run."""
    return not is_remote(path) and any((Path(path) / name).is_file() for name in (RECORD, RESULTS))


def list_photos(capture: Capture | None, run: Path | None, world: Similarity) -> list[ShownView]:
    """List the photos of a capture by their roles in a run; without a capture those that the run has recorded."""
    split = read_split(run / "split.json") if run is not None and (run / "split.json").is_file() else None
    if capture is not None:
        return [ShownView(view.camera, _role(view.name, split), partial(_load_photo, view)) for view in capture.views]
    if run is None:
        return []
    recorded = read_view_cameras(run)
    shown = [ShownView(to_camera(each, world), "training", _no_picture) for each in recorded.train]
    for each in recorded.test:
        picture = partial(_load_picture, image_path(run, each.name, "photo"))
        shown.append(ShownView(to_camera(each, world), "test", picture))
    return shown


def list_repairs(run: Path, world: Similarity) -> list[ShownView]:
    """List the repaired views of a finished loop, with the pictures of its folder ``rounds``."""
    recorded: ViewCameras = read_view_cameras(run)
    return [
        ShownView(
            to_camera(each, world),
            "repaired",
            partial(_load_picture, repair_path(run, each.round or 0, each.name, "repaired")),
            each.round or 0,
        )
        for each in recorded.repair
    ]


def to_camera(view: ViewCamera, world: Similarity) -> Camera:
    """Make the camera of a view that ``views.json`` describes, with its principal point in the middle."""
    center = world.apply_inverse(np.array(view.centre, float))
    pose = look_at(center, center + np.array(view.axis, float), np.array(view.up, float))
    middle = view.width_px / 2, view.height_px / 2
    intrinsics = np.array([[view.focal_px, 0, middle[0]], [0, view.focal_px, middle[1]], [0, 0, 1.0]])
    return Camera(view.name, view.width_px, view.height_px, intrinsics, pose)


def _list_splats(plys: Sequence[Path], runs: Sequence[Path]) -> dict[str, Path]:
    """Name the splats: by their arm in a run, after the folder if there are several; else by their file."""
    files: dict[str, Path] = {}
    for run in runs:
        arms = [arm for arm in ARMS if (run / f"{arm}.ply").is_file()]
        if not arms:
            raise ValueError(
                f"{run}: no before.ply, control.ply or after.ply in it yet; splatfix view --live {run} shows the "
                "states that a running fit or loop saves"
            )
        prefix = f"{run.resolve().name}: " if len(runs) > 1 else ""
        files |= _unused(files, {f"{prefix}{arm}": run / f"{arm}.ply" for arm in arms})
    stems = [path.stem for path in plys]
    return files | _unused(
        files, {path.stem if stems.count(path.stem) == 1 else str(path): path for path in dict.fromkeys(plys)}
    )


def _unused(files: dict[str, Path], more: dict[str, Path]) -> dict[str, Path]:
    """Give splats the names of their files where their names are in use."""
    return {str(path) if name in files else name: path for name, path in more.items()}


def _open_capture_of(run: Path) -> tuple[Capture | None, list[str]]:
    """Open the capture that a run was made from, and say so where that is not possible."""
    record = read_run(run)
    path = None if record is None else record["inputs"].get("capture", {}).get("path")
    if record is None or path is None:
        return None, []
    instead = "the cameras are those that the run has recorded"
    if is_remote(path) and not is_procedural(path):
        return None, [f"{run}: its capture {path} is remote, and is opened only where it is passed, too; {instead}"]
    if not is_remote(path) and not Path(path).exists():
        return None, [f"{run}: its capture {path} is gone; {instead}"]
    try:
        config = build_config(ViewsConfig, record["settings"].get("views", {}), source=str(run / RECORD))
        config = resolve_size(config)
        return open_capture(path, longest_side_px=config.size_px, options=config.photo_options), []
    except (OSError, ValueError) as error:
        return None, [f"{run}: its capture cannot be opened ({error}); {instead}"]


def _find_misfit(splat: Splat, capture: Capture) -> str | None:
    if capture.background is not None:  # the photos are composited over it
        splat = replace(splat, background=capture.background)
    return find_misfit(splat, capture.views)


def _role(name: str, split: Split | None) -> Role:
    if split is None:
        return "photo"
    if name in split.train_ids:
        return "training"
    return "test" if name in split.test_ids else "other"


def _load_photo(view: View) -> ndarray:
    return view.load().rgb


def _load_picture(path: Path) -> ndarray | None:
    return read_image(path)[..., :3] if path.is_file() else None


def _no_picture() -> None:
    return None


def count_groups(views: Iterable[ShownView]) -> dict[str, int]:
    """Count the views of each group, in the order of their appearance."""
    counts: dict[str, int] = {}
    for view in views:
        counts[view.group] = counts.get(view.group, 0) + 1
    return counts
