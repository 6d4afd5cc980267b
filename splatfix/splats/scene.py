"""The data that a sparse fit may use, and its initial state.

Of a capture, a fit uses only the chosen photos, their cameras and the points that at least two of them saw.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from splatfix.cameras import Camera
from splatfix.captures.capture import Capture, Points
from splatfix.captures.splat_photos import draw_on
from splatfix.config import changed_fields
from splatfix.gaussians import SPLAT_FILE, Gaussians
from splatfix.shapes import Float
from splatfix.similarity import IDENTITY, Similarity
from splatfix.splats.backdrop import find_plain_color, make_shell, mask_plain_background
from splatfix.splats.checkpoints import CHECKPOINT_SCHEMA, naming_checkpoint, read_checkpoint
from splatfix.splats.densify import Strategy, choose_strategy
from splatfix.splats.initial_points import (
    InitializationConfig,
    Survey,
    find_initial_points,
    list_given_files,
    survey_photos,
)
from splatfix.splats.initialization import initialize_gaussians
from splatfix.splats.losses import TrainingView
from splatfix.splats.start import hash_file, start_from_splat
from splatfix.splats.train import PARAMETERS, Fit, FitConfig, scene_scale
from splatfix.views import scene_depth

RATES_GROWING = ("means_lr", "scales_lr", "quats_lr", "sh0_lr", "shN_lr")  # that `densify.rates_growing` multiplies

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class SparseScene:
    """The chosen photos of a capture, ready to fit.

    Attributes:
        cameras: training cameras, sorted by name.
        photos: their images, float32 ``[H, W, 3]`` each, on the device of the fit.
        masks: their object masks ``[H, W]``; None for a photo without.
        validities: share of each of their pixels that is not ignored, in [0, 1], ``[H, W]``; None for all of a photo.
        points: the admissible points, which at least two of the chosen photos saw.
        background: RGB behind the scene; None is black.
        depth: scene depth in world units (`views.scene_depth`).
        file_from_world: from the world of cameras and points to the coordinates of the capture's files.
        renders_of: hash of the splat whose renders the photos are; None for real photos.
        nearness: estimate of a model for each photo: inverse depth up to scale and shift, ``[H, W]``; may be empty.
        nearness_from: hash of that model; None without one.
    """

    cameras: tuple[Camera, ...]
    photos: tuple[Float[Tensor, "_ _ 3"], ...]  # sizes may differ
    masks: tuple[Float[Tensor, "_ _"] | None, ...]
    validities: tuple[Float[Tensor, "_ _"] | None, ...]
    points: Points | None
    background: tuple[float, float, float] | None
    depth: float
    file_from_world: Similarity = IDENTITY
    renders_of: str | None = None
    nearness: tuple[Float[Tensor, "_ _"], ...] = ()
    nearness_from: str | None = None

    def leave_out(self, index: int) -> SparseScene:
        """Remove one photo, and the points that are not admissible without it."""
        keep = [i for i in range(len(self.cameras)) if i != index]
        cameras = tuple(self.cameras[i] for i in keep)
        points = None if self.points is None else self.points.admissible([camera.name for camera in cameras])
        return SparseScene(
            cameras,
            tuple(self.photos[i] for i in keep),
            tuple(self.masks[i] for i in keep),
            tuple(self.validities[i] for i in keep),
            points,
            self.background,
            scene_depth(cameras, points),
            self.file_from_world,
            self.renders_of,
            tuple(self.nearness[i] for i in keep) if self.nearness else (),
            self.nearness_from,
        )

    def views(self) -> list[TrainingView]:
        """Return the photos as training views."""
        return [
            TrainingView(camera, photo, validity=validity, nearness=nearness)
            for camera, photo, validity, nearness in zip(
                *(self.cameras, self.photos, self.validities, self.nearness or [None] * len(self.photos)), strict=True
            )
        ]

    @property
    def ignored_share(self) -> float:
        """Share of the pixels that is ignored, in [0, 1]: the mean over the photos."""
        return float(np.mean([0.0 if each is None else 1 - float(each.mean()) for each in self.validities]))


def load_scene(capture: Capture, train_ids: Sequence[str], device: torch.device) -> SparseScene:
    """Load the chosen photos of a capture, with their cameras, masks and admissible points.

    Those of a reference splat are drawn on the device (`captures.draw_on`).
    """
    capture = draw_on(capture, device, train_ids)
    views = [capture.view(name) for name in sorted(train_ids)]
    photos = [view.load() for view in views]
    cameras = tuple(view.camera for view in views)
    points = None if capture.points is None else capture.points.admissible([camera.name for camera in cameras])
    return SparseScene(
        cameras,
        tuple(torch.from_numpy(photo.rgb).to(device) for photo in photos),
        tuple(None if photo.mask is None else torch.from_numpy(photo.mask).to(device) for photo in photos),
        tuple(None if photo.validity is None else torch.from_numpy(photo.validity).to(device) for photo in photos),
        points,
        capture.background,
        scene_depth(cameras, points),
        capture.file_from_world,
        None if capture.splat is None else _hash_splat(capture.splat),
    )


def _hash_splat(ply: Path) -> str:
    """Hash a splat with the record of how it is drawn, if it has one."""
    files = (ply, ply.parent / SPLAT_FILE)
    return " ".join(hash_file(file) for file in files if file.is_file())


def start_fit(scene: SparseScene, fit: FitConfig, initial: InitializationConfig, *, seed: int) -> Fit:
    """Place the initial Gaussians and create the optimizers, without training.

    A scene without a background gets a shell of Gaussians behind it. If the photos show an object on a plain
    background, masks are derived from it, which confine the initial points to the object.

    With ``initial.start`` the fit begins from that splat, and the sparse fit counts as finished (`splats.start`). Where
    ``fit.densify`` leaves open whether Gaussians are added, the overlap of the photos decides (`choose_strategy`).

    Raises:
        ValueError: invalid initialization settings, no initial point from any source, or a splat that cannot be used.
    """
    assert initial.depth_model is None or scene.nearness, "estimate_depths comes first"
    scale = scene_scale(scene.cameras, scene.depth)
    if initial.start is not None:
        return start_from_splat(
            *(initial.start, scene.cameras, scene.photos),
            resolve_strategy(fit, "none"),
            scene_scale=scale,
            background=scene.background,
            validities=scene.validities,
            file_from_world=scene.file_from_world,
        )
    photos, masks, validities, plain_color, survey = _prepare_photos(scene, initial)
    if plain_color is not None:
        log.info("the photos have a plain background: initial points are confined to the object")
    overlap = None if survey.dense is None else survey.dense.overlap
    strategy, note = choose_strategy(fit.densify, overlap)
    fit = resolve_strategy(fit, strategy)
    if note is not None:
        log.info("%s (fit.densify.strategy = auto)", note)
    if fit.flat_radius > 0 and fit.grows:
        log.info("fit.flat_radius = %g has no effect on this fit, since Gaussians are added to it", fit.flat_radius)
    points = find_initial_points(
        *(scene.cameras, photos, masks, scene.points, initial, np.random.default_rng(seed), survey),
        validities=validities,
        grows=fit.grows,
    )
    device = scene.photos[0].device
    gaussians = initialize_gaussians(points, initial, device)
    if scene.background is None and initial.num_backdrop > 0:
        backdrop = make_shell(
            scene.cameras,
            photos,
            points.positions,
            distance=initial.backdrop_distance,
            num=initial.num_backdrop,
            sh_degree=initial.sh_degree,
            color=plain_color,
            validities=validities,
            device=device,
        )
        gaussians = gaussians.concatenate(backdrop)
    started = Fit(gaussians, fit, scene_scale=scale, num_photos=len(scene.photos), background=scene.background)
    started.notes = () if note is None else (note,)
    if note is not None and fit.grows:  # with high learning rates, one of the shell might grow around all cameras
        started.max_log_scale = float(gaussians.log_scales.max())
    if survey.estimated is not None:
        started.notes += survey.estimated.notes
        started.depth_photos = tuple(alignment is not None for alignment in survey.estimated.alignments)
    return started


def resolve_strategy(fit: FitConfig, strategy: Strategy) -> FitConfig:
    """Replace the strategy ``auto`` of densification by the one that the photos call for; else return ``fit``.

    Where Gaussians are added, they learn faster (``fit.densify.rates_growing``).
    """
    if fit.densify.strategy != "auto":
        return fit
    factor = fit.densify.rates_growing if strategy == "default" else 1.0
    return replace(
        fit,
        densify=replace(fit.densify, strategy=strategy),
        **{name: factor * getattr(fit, name) for name in RATES_GROWING},
    )


def load_fit(
    path: Path,
    identity: str,
    config: FitConfig,
    *,
    scene_scale: float,
    background: Sequence[float] | None,
    device: torch.device,
) -> Fit:
    """Read a fit of `start_fit` from its checkpoint. ValueError if it is damaged or belongs to another fit."""
    state = read_checkpoint(path, identity, device)
    with naming_checkpoint(path):
        gaussians = Gaussians(*(state["params"][name] for name in PARAMETERS))
        config = resolve_strategy(config, state["strategy_name"])
        fit = Fit(gaussians, config, scene_scale=scene_scale, num_photos=len(state["exposure"]), background=background)
        fit.load_state(state)
    return fit


@lru_cache(maxsize=1)
def _prepare_photos(
    scene: SparseScene, initial: InitializationConfig
) -> tuple[list[ndarray], list[ndarray | None], list[ndarray | None], ndarray | None, Survey]:
    """Return photos, masks, validities, the color of a plain background, and the survey; cached for other fits."""
    photos = [photo.cpu().numpy() for photo in scene.photos]
    masks = [None if mask is None else mask.cpu().numpy() for mask in scene.masks]
    validities = [None if validity is None else validity.cpu().numpy() for validity in scene.validities]
    is_scene = scene.background is None and all(mask is None for mask in masks)
    plain_color = find_plain_color(photos, validities) if is_scene else None
    if plain_color is not None:
        masks = [
            mask_plain_background(photo, plain_color, validity)
            for photo, validity in zip(photos, validities, strict=True)
        ]
    survey = survey_photos(
        *(scene.cameras, photos, masks, scene.points, initial, validities),
        file_from_world=scene.file_from_world,
        device=scene.photos[0].device,
        nearness=[nearness.cpu().numpy() for nearness in scene.nearness] or None,
    )
    return photos, masks, validities, plain_color, survey


def fit_identity(scene: SparseScene, **settings: Any) -> str:
    """Hash the inputs of a fit: cameras, pixels, and settings by name. Checkpoints store the hash.

    Settings are values or config dataclasses. Their fields are hashed by name, without those at their default, so that
    runs in progress can be resumed after a class was renamed or a field added.
    """
    digest = hashlib.sha256()
    for camera, photo in zip(scene.cameras, scene.photos, strict=True):
        digest.update(camera.name.encode())
        digest.update(camera.camera_from_world.tobytes() + camera.intrinsics.tobytes())
        if scene.renders_of is None:
            digest.update(photo.cpu().numpy().tobytes())
        else:  # renders of two devices differ by float noise
            digest.update(f"{scene.renders_of} {camera.width_px} {camera.height_px}".encode())
    for index, validity in enumerate(scene.validities):
        if validity is not None:
            digest.update(index.to_bytes(4, "big") + validity.cpu().numpy().tobytes())
    if scene.nearness_from is not None:
        settings["nearness_from"] = scene.nearness_from
    if not scene.file_from_world.is_identity:
        settings["file_from_world"] = scene.file_from_world.to_json()
    tree = {"schema": CHECKPOINT_SCHEMA, **{name: changed_fields(value) for name, value in settings.items()}}
    initials = [value for value in settings.values() if isinstance(value, InitializationConfig)]
    given = [path for initial in initials for path in list_given_files(initial, scene.cameras)]
    tree |= {"given": [hash_file(path) for path in given]} if given else {}
    digest.update(json.dumps(tree, sort_keys=True).encode())
    return digest.hexdigest()[:16]
