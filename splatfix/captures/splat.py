"""Reference splats: a 3DGS ``.ply`` whose renders are the photos, at the cameras of ``cameras.json`` or on an orbit.

Each photo is composited over white with its alpha as the mask: the background of a splat is unknown, so pixels that
show it can neither be fitted nor measured. If the splat fills an image, its mask is 1 and has no effect. A threshold
on alpha would treat views of one scene differently, and opening the capture would need renders.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from splatfix.cameras import Camera
from splatfix.captures.capture import Capture, View
from splatfix.captures.capture_files import LOCAL, CaptureFiles
from splatfix.captures.options import DEFAULT_OPTIONS, PhotoOptions
from splatfix.captures.photos import WHITE, assemble_capture
from splatfix.captures.splat_cameras import place_on_orbit, read_cameras
from splatfix.captures.splat_photos import SplatPhoto, read_latest
from splatfix.captures.world import choose_world, describe_world
from splatfix.gaussians import SPLAT_FILE
from splatfix.ply import read_header, refuse_other_splat
from splatfix.similarity import IDENTITY, Similarity

EXPECTED_FILES = "a 3DGS .ply, with or without cameras.json (reference splat)"
ARMS = ("after.ply", "before.ply", "control.ply")  # of a run of splatfix, the one to read first


def find(path: Path, files: CaptureFiles = LOCAL) -> tuple[Path, Path, Path | None] | None:
    """Find the folder of the capture, its splat and the file of its cameras; None if this is another format.

    A folder of a run of splatfix has the cameras of its photos. Its splat is ``after.ply``, or else ``before.ply``.

    Raises:
        ValueError: several splats in one folder, or only a splat in another format.
    """
    if path.is_file():
        if path.suffix.lower() == ".ply" and _is_splat(path, files):
            root = _find_root(path)
            return root, path, _find_cameras(root, path)
        refuse_other_splat(path)
        return None
    ply = _find_splat(path, files) if path.is_dir() else None
    return None if ply is None else (path, ply, _find_cameras(path, ply, "views.json"))


def _find_cameras(root: Path, ply: Path, *more: str) -> Path | None:
    candidates = (folder / name for name in ("cameras.json", *more) for folder in (root, ply.parent))
    return next((file for file in candidates if file.is_file()), None)


def _find_splat(folder: Path, files: CaptureFiles) -> Path | None:
    """Find the splat of a folder, which may be missing where there are cameras. ValueError as in `find`."""
    iterations = dict(_find_iterations(folder))
    if iterations:
        return iterations[max(iterations)]
    splats = [ply for ply in sorted(folder.glob("*.ply")) if _is_splat(ply, files)]
    if (folder / "run.json").is_file() and splats and all(ply.name in ARMS for ply in splats):
        return min(splats, key=lambda ply: ARMS.index(ply.name))
    if len(splats) > 1:
        names = ", ".join(ply.name for ply in splats)
        raise ValueError(f"{folder}: several splats ({names}); wanted one: pass the .ply itself")
    if splats:
        return splats[0]
    for file in sorted(folder.iterdir()):
        refuse_other_splat(file)
    return folder / "point_cloud.ply" if (folder / "cameras.json").is_file() else None


def _find_iterations(root: Path) -> Iterator[tuple[int, Path]]:
    """Find the splats in a training output of 3DGS, with their iterations."""
    for ply in root.glob("point_cloud/iteration_*/point_cloud.ply"):
        number = ply.parent.name.removeprefix("iteration_")
        if number.isdigit():
            yield int(number), ply


def _is_splat(path: Path, files: CaptureFiles) -> bool:
    """Whether the header of a PLY file declares spherical-harmonics colors."""
    files.fetch([path], headers=True)
    if not read_header(path):
        files.fetch([path])  # the header may be longer than the start of the file
    return " f_dc_0" in read_header(path)


def _find_root(ply: Path) -> Path:
    """Find the training output of a ``point_cloud/iteration_N/point_cloud.ply``; for other files, their folder."""
    if ply.parent.name.startswith("iteration_"):
        output = ply.resolve().parents[2]
        if (output / "cameras.json").is_file():
            return output
    return ply.parent


def read(
    root: Path,
    ply: Path,
    camera_file: Path | None,
    longest_side_px: int | None,
    files: CaptureFiles = LOCAL,
    _options: PhotoOptions = DEFAULT_OPTIONS,
) -> Capture:
    """Open the splat as a capture. ValueError if it or its cameras are broken."""
    files.fetch([ply, ply.parent / SPLAT_FILE, *([camera_file] if camera_file else [])])
    splat, splat_notes = read_latest(ply)
    if len(splat.gaussians) == 0:
        raise ValueError(f"{ply}: no Gaussians; wanted at least one")
    if camera_file is None:
        try:
            cameras = place_on_orbit(splat.gaussians)
        except ValueError as error:
            raise ValueError(f"{ply}: {error}") from None
        notes = [f"no cameras.json: {len(cameras)} cameras placed on an orbit, up is -y"]
    else:
        cameras, notes = read_cameras(camera_file)
    notes += [
        *splat_notes,
        f"the photos are renders of {ply.name}: a new splat is fitted to some of them, and {ply.name} is not repaired",
    ]
    file_from_world = choose_world(cameras) if cameras else IDENTITY
    if not file_from_world.is_identity:
        notes.append(describe_world(file_from_world))
    views = _make_views(ply, cameras, file_from_world, longest_side_px, files)
    capture = assemble_capture(root, camera_file or ply, "splat", views, None, notes)
    name = capture.name if camera_file or ply.stem in ("point_cloud", "splat") else ply.stem
    return replace(capture, name=name, background=WHITE, splat=ply, file_from_world=file_from_world)


def _make_views(
    ply: Path,
    cameras: Sequence[Camera],
    file_from_world: Similarity,
    longest_side_px: int | None,
    files: CaptureFiles,
) -> list[View]:
    views = []
    for camera in cameras:
        small = camera.change_world(file_from_world).with_longest_side(longest_side_px)
        original_size = (camera.width_px, camera.height_px)
        views.append(View(small, SplatPhoto(ply, small, original_size, files, file_from_world)))
    return views
