"""The interface of programs that estimate cameras, and the table of the known ones.

A distribution adds one, such as a learned model, with an entry point in the group ``splatfix.posers``; the value is a
`Poser`, imported when a setting names it::

    [project.entry-points."splatfix.posers"]
    vggt = "vggt_poser:estimate_cameras"
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Protocol, runtime_checkable

from splatfix.plugins import PluginGroup
from splatfix.sfm.config import PoseConfig


@dataclass(frozen=True, kw_only=True)
class PhotoInfo:
    """A photo to pose, upright, as it is in the folder of images.

    Attributes:
        name: path relative to the folder of images.
        source: path of the file that it was made from, or the video and the time.
        width_px, height_px: image size.
        lens: key of the physical camera: photos with equal keys share their intrinsics.
        focal_px: focal length that EXIF or the user gives, in pixels; None if unknown.
        has_transparency: whether it has transparent pixels: what surrounds an object that was cut out. Their colors
            mean nothing.
    """

    name: str
    source: str
    width_px: int
    height_px: int
    lens: str
    focal_px: float | None = None
    has_transparency: bool = False


@dataclass(frozen=True, kw_only=True)
class PoseTask:
    """What a poser is given.

    Attributes:
        images: folder of the photos.
        photos: all photos, sorted by name.
        estimate_from: names of the photos that intrinsics, poses and points are estimated from. The poser locates the
            others in the finished model, which they do not change.
        folder: files that a later run resumes from, and the poser's temporary files, belong here.
        config: the settings.
    """

    images: Path
    photos: tuple[PhotoInfo, ...]
    estimate_from: tuple[str, ...]
    folder: Path
    config: PoseConfig


@dataclass(frozen=True, kw_only=True, eq=False)
class PosedModel:
    """Estimated cameras.

    Attributes:
        reconstruction: a ``pycolmap.Reconstruction`` with the registered photos, their cameras, and points with tracks;
            None if no model was found.
        estimated_from: names of the registered photos that its intrinsics, poses and points come from; the others were
            located in it.
        method: how it was made, for the record.
        num_keypoints: keypoints of each photo, by name; empty if unknown.
        num_matches: geometrically verified matches of pairs of photos, by the pair of names; empty if unknown.
    """

    reconstruction: Any
    estimated_from: tuple[str, ...]
    method: str
    num_keypoints: Mapping[str, int] = field(default_factory=dict)
    num_matches: Mapping[tuple[str, str], int] = field(default_factory=dict)


@runtime_checkable
class Poser(Protocol):
    """Estimates cameras. A photo that it cannot register is absent from the reconstruction."""

    def __call__(self, task: PoseTask) -> PosedModel:
        """Estimate the cameras of the photos of a task; the same for the same task."""
        ...


POSERS = {"colmap": "splatfix.sfm.colmap:estimate_with_colmap"}  # imported when a setting names it
PLUGINS = PluginGroup(
    group="splatfix.posers", noun="poser", accepts=callable, wanted="a function that takes a splatfix.sfm.PoseTask"
)


def find_poser(name: str) -> Poser:
    """Find a poser by its name: a built-in one, or that of an installed plugin.

    Raises:
        ValueError: no such poser (the message lists the known ones), or a plugin that cannot be used.
    """
    if (plugin := PLUGINS.find(name, POSERS)) is not None:
        return plugin
    if name not in POSERS:
        raise ValueError(f"poser {name!r}: unknown; wanted one of {', '.join([*POSERS, *PLUGINS.names()])}")
    return resolve_name(POSERS[name])


def matches_of(model: PosedModel, name: str, others: Sequence[str]) -> dict[str, int]:
    """The verified matches of a photo with each of the others, by name; without those that have none."""
    found = {}
    for other in others:
        num = model.num_matches.get((name, other), 0) or model.num_matches.get((other, name), 0)
        if num and other != name:
            found[other] = num
    return found
