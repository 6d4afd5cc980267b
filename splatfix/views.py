"""Choose the views that a sparse fit trains on and is tested on, and place the cameras of the views to repair.

All choices are made from poses and admissible points, never from pixels.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import numpy as np
import tyro

from splatfix.cameras import (
    Camera,
    compose_pose,
    estimate_depth,
    pairwise_separations,
    quaternion_from_rotation,
    rotation_from_quaternion,
    separation,
    slerp,
)
from splatfix.captures import Capture
from splatfix.captures.capture import Points
from splatfix.captures.options import MaskChoice, OrientationChoice, PhotoOptions
from splatfix.config import require
from splatfix.files import read_json

log = logging.getLogger(__name__)

Band = Literal["near", "mid", "far"]
BANDS: tuple[Band, ...] = ("near", "mid", "far")
MAX_TEST_VIEWS = 24
MIN_TEST_DISTANCE = 1e-6  # from the training cameras; below it is rounding
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ViewsConfig:
    """Which photos are used.

    Attributes:
        size_px: longest side of every image, in pixels; the size in the split file, if there is one, takes precedence.
        num_train: number of photos to fit from, chosen by farthest point over position and direction; all leaves no
            photo to test on.
        train_ids: names of the photos to fit from; overrides num_train.
        test_every: dense fits: hold out every n-th photo, sorted by name, for testing and train on all others.
        split: a ``split.json`` with train_ids and test_ids, which replaces num_train, train_ids, test_every and
            max_test; its size_px and masks, if it has them, replace size_px and masks.
        max_test: largest number of test views, spread evenly over distance.
        masks: what masks of the photos mark: an ``object``, which is set on white, or pixels to ``ignore``; ``auto``
            takes alpha for an object if all photos have it, and mask files for pixels to ignore.
        orientation: whether photos are turned by the orientation in their EXIF data: ``apply``, ``ignore``, or
            ``auto``, as the width and height of their cameras tell.
    """

    size_px: int = 320
    num_train: int | Literal["all"] = 6
    train_ids: tuple[str, ...] | None = None
    test_every: int | None = None
    split: Annotated[Path | None, tyro.conf.arg(name="split", prefix_name=False)] = None
    max_test: int = MAX_TEST_VIEWS
    masks: MaskChoice = "auto"
    orientation: OrientationChoice = "auto"

    def __post_init__(self) -> None:
        require(self.size_px >= 16, "views.size_px", self.size_px, "at least 16 pixels")
        require(self.max_test >= 1, "views.max_test", self.max_test, "at least 1 test view")

    @property
    def photo_options(self) -> PhotoOptions:
        """How photos are read."""
        return PhotoOptions(masks=self.masks, orientation=self.orientation)


@dataclass(frozen=True)
class Split:
    """Names of the training and test views, each in a fixed order, and how their photos are read.

    Attributes:
        train_ids, test_ids: names of the views.
        size_px: longest side of the images; None if the file does not say.
        masks: as in `ViewsConfig`; ``auto`` if the file does not say.
    """

    train_ids: tuple[str, ...]
    test_ids: tuple[str, ...]
    size_px: int | None = None
    masks: MaskChoice = "auto"

    def to_json(self) -> dict[str, Any]:
        """Convert to the content of ``split.json``."""
        masks = {} if self.masks == "auto" else {"masks": self.masks}
        return {"train_ids": list(self.train_ids), "test_ids": list(self.test_ids), "size_px": self.size_px, **masks}


def resolve_size(config: ViewsConfig) -> ViewsConfig:
    """Take the image size from the split file, if the settings name one and it has a size.

    Raises:
        ValueError: the settings name another size, or the split file is invalid.
    """
    size_px = None if config.split is None else read_split(config.split).size_px
    if size_px is None or size_px == config.size_px:
        return config
    if config.size_px != ViewsConfig.size_px:
        raise ValueError(
            f"{config.split}: size_px = {size_px}, but views.size_px = {config.size_px}; leave views.size_px out, or "
            "remove size_px from the file"
        )
    return replace(config, size_px=size_px)


def resolve_masks(config: ViewsConfig) -> ViewsConfig:
    """Take what masks mark from the split file, if the settings name one and it says so.

    Raises:
        ValueError: the settings say otherwise, or the split file is invalid.
    """
    masks = "auto" if config.split is None else read_split(config.split).masks
    if masks in ("auto", config.masks):
        return config
    if config.masks != "auto":
        raise ValueError(
            f"{config.split}: masks = {masks!r}, but views.masks = {config.masks!r}; leave views.masks out, or remove "
            "masks from the file"
        )
    return replace(config, masks=masks)


def make_split(capture: Capture, config: ViewsConfig) -> Split:
    """Choose training and test views. Views with the camera of a training view, as of a copied photo, test nothing.

    Raises:
        ValueError: too few photos, an unknown name, a name that is in both sets, or an invalid split file.
    """
    if config.split is not None:
        split = read_split(config.split, capture)
        return split if config.masks == "auto" else replace(split, masks=config.masks)
    if config.train_ids is not None:
        train = tuple(capture.view(name).name for name in config.train_ids)
        if len(set(train)) < len(train):
            raise ValueError(f"train_ids = {list(config.train_ids)}: duplicate name")
    elif config.test_every is not None:
        if not 2 <= config.test_every <= len(capture.views):
            raise ValueError(
                f"{capture.path}: test_every = {config.test_every}: wanted 2 to {len(capture.views)}, "
                "the number of photos"
            )
        train = tuple(name for i, name in enumerate(sorted(capture.names)) if i % config.test_every != 0)
    elif config.num_train == "all":
        train = capture.names
    else:
        check_num_train(config, len(capture.views), capture.path)
        train = select_farthest_views(capture.cameras, config.num_train)
    points = None if capture.points is None else capture.points.admissible(train)
    training = [capture.view(name).camera for name in train]
    others = [camera for camera in capture.cameras if camera.name not in set(train)]
    distances = view_distances(others, training, points)
    unseen = [camera for camera in others if distances[camera.name] > MIN_TEST_DISTANCE]
    if others and not unseen:
        raise ValueError(
            f"{capture.path}: all {len(others)} other photos have the camera of a training photo; wanted photos from "
            "different places, or views.num_train = all, which tests nothing"
        )
    if len(unseen) < len(others):
        log.warning("%d photos have the camera of a training photo: not tested on", len(others) - len(unseen))
    ordered = sorted(unseen, key=lambda camera: (distances[camera.name], camera.name))
    ordered = pick_evenly(ordered, config.max_test)
    return Split(train, tuple(sorted(camera.name for camera in ordered)), config.size_px, config.masks)


def check_num_train(config: ViewsConfig, num_photos: int, place: str | Path) -> None:
    """Check that so many photos are enough to choose ``num_train`` of them, if that is how they are chosen.

    Raises:
        ValueError: they are not, and none would be left to test on.
    """
    chosen_otherwise = config.split is not None or config.train_ids is not None or config.test_every is not None
    if chosen_otherwise or config.num_train == "all":
        return
    if config.num_train < 1:
        raise ValueError(f"num_train = {config.num_train}: wanted at least 1 photo (3 to 9 are usual), or all")
    if config.num_train >= num_photos:
        fewer = "1" if num_photos <= 2 else f"from 1 to {num_photos - 1}"
        raise ValueError(
            f"{place}: num_train = {config.num_train}, but there are {num_photos} photos and at least one must be held "
            f"out for testing; wanted --views.num-train {fewer}, or all, which leaves none to test on"
        )


def pick_evenly(items: Sequence[T], num: int) -> list[T]:
    """Pick at most ``num`` of the items, evenly spaced by position, with the first and the last among them."""
    if len(items) <= num:
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, num).round().astype(int)]


def read_split(path: str | Path, capture: Capture | None = None) -> Split:
    """Read ``{"train_ids": [...], "test_ids": [...]}``, the format in which ReconFusion and others publish splits.

    Names may lack folder or extension; with a ``capture`` they are resolved to the names of its views.

    Raises:
        ValueError: a field is missing or invalid, no view of the capture has that name, or a name is in both lists.
    """
    tree = read_json(path)
    sides = {}
    for key in ("train_ids", "test_ids"):
        names = tree.get(key) if isinstance(tree, dict) else None
        if not isinstance(names, list) or not all(isinstance(name, str | int) for name in names):
            raise ValueError(f"{path}: {key} = {names!r}: wanted a list of image names")
        sides[key] = tuple(str(name) if capture is None else capture.view(name).name for name in names)
    if not sides["train_ids"]:
        raise ValueError(f"{path}: train_ids is empty; wanted at least one image name")
    both = set(sides["train_ids"]) & set(sides["test_ids"])
    if both:
        raise ValueError(f"{path}: {sorted(both)[0]!r} is in train_ids and in test_ids; a test view must be unseen")
    size = tree.get("size_px")
    if size is not None and (not isinstance(size, int) or size < 1):
        raise ValueError(f"{path}: size_px = {size!r}: wanted a positive whole number of pixels")
    masks = tree.get("masks", "auto")
    if masks not in get_args(MaskChoice):
        raise ValueError(f"{path}: masks = {masks!r}: wanted one of {', '.join(get_args(MaskChoice))}")
    return Split(sides["train_ids"], sides["test_ids"], size, masks)


def scene_depth(cameras: Sequence[Camera], points: Points | None = None) -> float:
    """Estimate the depth of the scene (`cameras.estimate_depth`), in world units."""
    return estimate_depth(cameras, None if points is None else points.positions)


def view_distances(
    views: Sequence[Camera], training: Sequence[Camera], points: Points | None = None
) -> dict[str, float]:
    """Compute the distance of each view from the training cameras, by name: its `separation` from the nearest one."""
    depth = scene_depth(training, points)
    return {view.name: min(separation(view, camera, depth) for camera in training) for view in views}


def assign_bands(distances: Mapping[str, float]) -> dict[str, Band]:
    """Divide views into bands by terciles of their distance, ties by name; with fewer than three, a band is empty."""
    ordered = sorted(distances, key=lambda name: (distances[name], name))
    parts = np.array_split(np.arange(len(ordered)), len(BANDS))
    return {ordered[i]: band for band, part in zip(BANDS, parts, strict=True) for i in part}


def select_farthest_views(cameras: Sequence[Camera], num: int, start: int | None = None) -> tuple[str, ...]:
    """Select ``num`` views by farthest-point sampling over position and direction; returns their names, sorted.

    ``start`` is the index of the first view in the order of names; None starts from the most central view.
    """
    ordered = sorted(cameras, key=lambda camera: camera.name)
    depth = scene_depth(ordered)
    gaps = pairwise_separations(ordered, depth)
    chosen = [int(gaps.sum(1).argmin()) if start is None else start]
    while len(chosen) < min(num, len(ordered)):
        to_chosen = gaps[:, chosen].min(1)
        to_chosen[chosen] = -1
        chosen.append(int(to_chosen.argmax()))
    return tuple(sorted(ordered[i].name for i in chosen))


def interpolate_on_arc(a: Camera, b: Camera, t: float, depth: float, name: str) -> Camera:
    """Interpolate between two cameras: rotation by slerp, the target (at ``depth`` along the axis) linearly.

    Cameras that look at one object are interpolated on an arc around it, parallel ones on a straight line.
    ``t`` outside [0, 1] extrapolates. Size and intrinsics are those of the nearer camera.
    """
    quaternion = slerp(quaternion_from_rotation(a.rotation), quaternion_from_rotation(b.rotation), t)
    rotation = rotation_from_quaternion(quaternion)
    target = (1 - t) * (a.center + depth * a.axis) + t * (b.center + depth * b.axis)
    nearer = a if t <= 0.5 else b
    return replace(nearer, name=name, camera_from_world=compose_pose(rotation, target - depth * rotation[2]))


def displace_camera(camera: Camera, direction_rad: float, length: float, depth: float, name: str) -> Camera:
    """Move a camera by ``length`` across its axis and turn it to keep looking at the point at ``depth``.

    ``direction_rad`` is the direction in the image plane: 0 is to the right, pi/2 down.
    """
    right, down, forward = camera.rotation
    target = camera.center + depth * forward
    center = camera.center + length * (math.cos(direction_rad) * right + math.sin(direction_rad) * down)
    new_forward = (target - center) / np.linalg.norm(target - center)
    new_right = np.cross(down, new_forward)
    new_right /= np.linalg.norm(new_right)
    rotation = np.stack([new_right, np.cross(new_forward, new_right), new_forward])
    return replace(camera, name=name, camera_from_world=compose_pose(rotation, center))


def find_neighbor_pairs(cameras: Sequence[Camera], depth: float, per_camera: int = 2) -> list[tuple[int, int]]:
    """Find index pairs of each camera and its ``per_camera`` nearest ones, nearest pairs first, without duplicates."""
    gaps = pairwise_separations(cameras, depth)
    pairs: set[tuple[int, int]] = set()
    for i in range(len(cameras)):
        order = [int(j) for j in np.argsort(gaps[i], kind="stable") if j != i]
        pairs.update((min(i, j), max(i, j)) for j in order[:per_camera])
    return sorted(pairs, key=lambda pair: (gaps[pair], pair))


def place_repair_cameras(
    training: Sequence[Camera], *, num: int, round_index: int, num_rounds: int, outward: float, depth: float
) -> list[Camera]:
    """Place the cameras of the views to render and repair in one round, from the training cameras alone.

    Those of the first round are between neighbors; later rounds also move them across the viewing axis, by a fraction
    of the median neighbor distance that grows to ``outward`` in the last round. Directions follow the golden angle.

    Args:
        training: the training cameras.
        num: number of cameras to place.
        round_index, num_rounds: index of the round, from 0, and the number of rounds.
        outward: fraction of the median neighbor distance in the last round.
        depth: scene depth in world units.
    """
    training = sorted(training, key=lambda camera: camera.name)
    pairs = find_neighbor_pairs(training, depth)
    step = np.median([np.linalg.norm(training[i].center - training[j].center) for i, j in pairs]) if pairs else depth
    step = float(step) if step > 0 else 0.1 * depth
    fraction = outward * round_index / max(num_rounds - 1, 1) if pairs else outward * (round_index + 1) / num_rounds
    cameras = []
    for k in range(num):
        name = f"repair_{round_index}_{k:02d}"
        direction = (k + 0.5 * round_index) * math.pi * (3 - math.sqrt(5))
        if not pairs:
            cameras.append(displace_camera(training[k % len(training)], direction, fraction * step, depth, name))
            continue
        i, j = pairs[k % len(pairs)]
        visit, visits = k // len(pairs), math.ceil(num / len(pairs))
        shift = 0.5 * (round_index % 2)  # odd rounds interpolate at other t than even ones
        t = min(max((visit + 1 - 0.5 * shift) / (visits + 1), 0.05), 0.95)
        camera = interpolate_on_arc(training[i], training[j], t, depth, name)
        cameras.append(displace_camera(camera, direction, fraction * step, depth, name) if fraction > 0 else camera)
    return cameras
