"""Start a fit from a splat that exists, instead of from points: to repair a splat that another program trained.

The splat takes the place of a finished sparse fit: it is trained no further before the loop, and the learning rates
continue from the end of their schedule.
"""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from splatfix.cameras import Camera
from splatfix.captures.capture import View
from splatfix.gaussians import Splat, read_splat
from splatfix.metrics import psnr
from splatfix.rendering import render
from splatfix.shapes import Float
from splatfix.similarity import IDENTITY, Similarity
from splatfix.splats.train import Fit, FitConfig
from splatfix.views import pick_evenly

NUM_VIEWS = 4  # that a splat is compared with before it is measured or shown
Photos = Sequence[Float[Tensor, "_ _ 3"]]  # sizes may differ
Validities = Sequence[Float[Tensor, "_ _"] | None] | None


def start_from_splat(
    path: Path,
    cameras: Sequence[Camera],
    photos: Photos,
    config: FitConfig,
    *,
    scene_scale: float,
    background: Sequence[float] | None,
    validities: Validities = None,
    file_from_world: Similarity = IDENTITY,
) -> Fit:
    """Create the optimizers for a splat that was read from a file, at the end of the schedule of the sparse fit.

    Args:
        path: a 3DGS ``.ply`` in the coordinates of the capture's files.
        cameras: of the photos.
        photos: the training photos.
        config: of the fit.
        scene_scale: size of the scene in world units (`splats.train.scene_scale`).
        background: RGB behind the scene; None is black.
        validities: 0 where a photo is ignored, ``[H, W]``; None for no such photo.
        file_from_world: that of the capture.

    Raises:
        ValueError: the splat cannot be read, has no Gaussians, has another render mode than the fit, or does not look
            like the photos.
    """
    splat = read_splat(path, background=background, file_from_world=file_from_world).to(photos[0].device)
    if len(splat.gaussians) == 0:
        raise ValueError(f"{path}: no Gaussians; wanted at least one to start from")
    if splat.mode != config.mode:
        raise ValueError(
            f"{path}: was fitted in the mode {splat.mode} (splat.json), but fit.mode = {config.mode}; "
            f"wanted --fit.mode {splat.mode}"
        )
    check_world(splat, cameras, photos, path, validities)
    fit = Fit(splat.gaussians, config, scene_scale=scene_scale, num_photos=len(photos), background=background)
    fit.step = config.steps
    return fit


def check_world(
    splat: Splat, cameras: Sequence[Camera], photos: Photos, path: Path, validities: Validities = None
) -> None:
    """Check that a splat lies in the world of the cameras. ValueError if `describe_misfit` finds that it does not."""
    misfit = describe_misfit(splat, cameras, photos, validities)
    if misfit is not None:
        raise ValueError(f"{path}: {misfit}")


def describe_misfit(
    splat: Splat, cameras: Sequence[Camera], photos: Photos, validities: Validities = None
) -> str | None:
    """Describe why a splat does not lie in the world of the cameras; None if it does.

    It does not if, for at least half of the photos, the mean color of the photo is nearer to it than the render. Photos
    are on the device of the splat; ``validities`` are 0 where they are ignored, ``[H, W]``.
    """
    renders, plain = [], []
    for camera, photo, validity in zip(cameras, photos, validities or [None] * len(photos), strict=True):
        with torch.no_grad():
            rgb = render(splat, [camera]).rgb[0].clamp(0, 1)
        mean = photo.mean((0, 1))
        if validity is not None:
            mean = (photo * validity[..., None]).sum((0, 1)) / validity.sum()
        renders.append(psnr(rgb, photo, validity))
        plain.append(psnr(mean.expand_as(photo), photo, validity))
    if sum(render_db <= plain_db for render_db, plain_db in zip(renders, plain, strict=True)) * 2 >= len(renders):
        return (
            f"its renders reach {statistics.median(renders):.1f} dB PSNR on the photos, the mean color of each photo "
            f"{statistics.median(plain):.1f} dB; wanted a splat in the world of the capture (trained with the same "
            "poses, not moved or scaled since)"
        )
    return None


def find_misfit(splat: Splat, views: Sequence[View]) -> str | None:
    """Compare a splat with the photos of up to four of the views, spread evenly, as `describe_misfit` does."""
    some = pick_evenly(views, NUM_VIEWS)
    photos = [view.load() for view in some]
    return describe_misfit(
        splat,
        [view.camera for view in some],
        [torch.from_numpy(photo.rgb).to(splat.device) for photo in photos],
        [None if photo.validity is None else torch.from_numpy(photo.validity).to(splat.device) for photo in photos],
    )


def hash_file(path: Path) -> str:
    """Hash the content of a file that a fit starts from; cached until the file changes."""
    status = path.stat()
    return _hash_file(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=256)
def _hash_file(path: Path, mtime_ns: int, size: int) -> str:  # noqa: ARG001 (parts of the cache key)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
