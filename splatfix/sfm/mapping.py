"""Mapping: from verified matches to cameras and points, by several attempts of which the best one is kept.

Incremental mapping with COLMAP's usual limits comes first. Where it leaves photos out, it is tried with lower limits,
and then global mapping: few photos with wide steps between them often need one of these. Global mapping is the last,
since it is uncertain of the distance between groups of photos that share few points.
"""

from __future__ import annotations

import logging
import shutil
import signal
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from splatfix.process import keeping_handler, progress, stop_requested, stopping_at_progress
from splatfix.sfm.config import PoseConfig
from splatfix.sfm.doubts import MIN_CONTRADICTIONS, find_contradictions, find_loose_photos
from splatfix.sfm.global_mapping import run_global_mapping
from splatfix.sfm.poser import PoseTask

with keeping_handler(signal.SIGTERM):  # pycolmap's own handler prints a stack trace at every stop
    import pycolmap

log = logging.getLogger(__name__)

MAPPING_THREADS = 1  # with more, sums are in any order, and the same matches give slightly different cameras
MIN_REGISTERED = 3
MIN_POINTS = 15  # that a photo must see; a pose from fewer is often wrong


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of incremental mapping.

    Attributes:
        name: for the record.
        first_matches: smallest number of matches of the first pair.
        first_angle_deg: smallest triangulation angle of the first pair.
        seen_points: smallest number of points that a photo must see to be registered.
        agreeing_share: smallest share of these points that must agree with its pose.
    """

    name: str
    first_matches: int
    first_angle_deg: float
    seen_points: int
    agreeing_share: float


USUAL = Limits(name="incremental", first_matches=100, first_angle_deg=16, seen_points=30, agreeing_share=0.25)
LOWER = Limits(
    name="incremental with lower limits", first_matches=40, first_angle_deg=6, seen_points=15, agreeing_share=0.2
)


def map_photos(database: Path, images: Path, names: Sequence[str], task: PoseTask) -> tuple[Any, str]:
    """Estimate cameras and points from the matches of a database.

    Args:
        database: the database.
        images: folder of the photos as the database names them.
        names: photos to estimate from, as the database names them.
        task: settings and folder.

    Returns:
        The reconstruction with most photos that are tied to each other (`doubts.find_loose_group`), among equals that
        of the earlier attempt, and how it was made; None if no attempt registered three photos.
    """
    best, method, most = None, "", 0
    attempts: dict[str, tuple[Limits | None, ...]] = {
        "auto": (USUAL, LOWER, None),
        "incremental": (USUAL, LOWER),
        "global": (None,),
    }
    for limits in attempts[task.config.mapping]:
        if limits is None:
            found = map_globally(database, images, names, task)
        else:
            found = map_incrementally(database, images, names, task, limits)
        num = 0 if found is None else found.num_reg_images() - len(find_loose_photos(found))
        if num > most:
            best, method, most = found, "global" if limits is None else limits.name, num
        if most == len(names):
            break
    return best, method


def map_incrementally(database: Path, images: Path, names: Sequence[str], task: PoseTask, limits: Limits) -> Any:
    """Run incremental mapping; the largest reconstruction, or None."""
    options = incremental_options(names, task.config, limits)
    with (
        progress(total=len(names), description=f"cameras, {limits.name}") as bar,
        _empty_folder(task.folder / "models") as models,
    ):
        return _largest(_map_with_bar(bar, database, images, models, options))


def _map_with_bar(bar: Any, database: Path, images: Path, models: Path, options: Any, **given: Path) -> dict[int, Any]:
    """Run incremental mapping with a progress bar of photos; a stop ends it at the next photo. Returns all models."""
    token = pycolmap.CancellationToken()

    def count(num: int) -> None:
        if stop_requested() is not None:  # an exception would have to pass through C++
            token.cancel()
        else:
            bar.update(min(num, max(bar.total - bar.n, 0)))

    found: dict[int, Any] = {}
    with stopping_at_progress("photo"):
        with suppress(InterruptedError):  # by the token
            found = pycolmap.incremental_mapping(
                database,
                images,
                models,
                options,
                initial_image_pair_callback=lambda: count(2),
                next_image_callback=lambda: count(1),
                cancellation_token=token,
                **given,
            )
        bar.update(0)  # raises if the mapping was interrupted
    return found


def incremental_options(names: Sequence[str], config: PoseConfig, limits: Limits) -> Any:
    """The options of incremental mapping."""
    options = pycolmap.IncrementalPipelineOptions(
        image_names=list(names),
        min_num_matches=min(15, limits.seen_points),
        min_model_size=MIN_REGISTERED,
        num_threads=MAPPING_THREADS,
        random_seed=config.seed,
    )
    mapper = options.mapper
    mapper.init_min_num_inliers = limits.first_matches
    mapper.init_min_tri_angle = limits.first_angle_deg
    mapper.abs_pose_min_num_inliers = limits.seen_points
    mapper.abs_pose_min_inlier_ratio = limits.agreeing_share
    mapper.num_threads = MAPPING_THREADS
    mapper.random_seed = config.seed
    options.mapper = mapper
    return options


def map_globally(database: Path, images: Path, names: Sequence[str], task: PoseTask) -> Any:
    """Run global mapping on a copy of the database, in which it calibrates focal lengths; the largest, or None.

    If it fails, a warning says why, and the result is None: other attempts may have found a model.
    """
    copy = task.folder / "global.db"
    with progress(total=1, description="cameras, global") as bar, _empty_folder(task.folder / "models") as models:
        _delete_database(copy)  # of a killed process, whose changes SQLite would add to the new one
        shutil.copyfile(database, copy)
        request = {
            **{"database": str(copy), "images": str(images), "models": str(models), "names": list(names)},
            **{"seed": task.config.seed, "num_threads": MAPPING_THREADS, "min_size": MIN_REGISTERED},
        }
        try:
            failure = run_global_mapping(request, task.folder / "global.log", on_wait=lambda: bar.update(0))
        finally:
            _delete_database(copy)
        if failure is not None:
            log.warning("global mapping failed (%s)", failure)
            return None
        folders = sorted(path.parent for path in models.glob("*/cameras.bin"))
        found = {index: pycolmap.Reconstruction(folder) for index, folder in enumerate(folders)}
        bar.update()
    return _largest(found)


def _delete_database(database: Path) -> None:
    """Delete a database and what SQLite leaves beside it."""
    for path in database.parent.glob(f"{database.name}*"):
        path.unlink(missing_ok=True)


@contextmanager
def _empty_folder(folder: Path) -> Iterator[Path]:
    """A folder that COLMAP writes its models to; they are returned as well, and the files are not used."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _largest(found: dict[int, Any]) -> Any:
    """The reconstruction with most photos, among equals with most points; None without one of three photos.

    Photos that see very few points are left out of it.
    """
    for each in found.values():
        for image in [image for image in each.images.values() if image.has_pose]:
            if image.num_points3D < MIN_POINTS:
                each.deregister_frame(image.frame_id)
    large = [each for each in found.values() if each.num_reg_images() >= MIN_REGISTERED]
    return max(large, key=lambda each: (each.num_reg_images(), each.num_points3D()), default=None)


def drop_misplaced(model: Any, num_matches: Mapping[tuple[str, str], int]) -> None:
    """Take photos out of a model that contradicts most of their pairs (`doubts.find_contradictions`), worst first.

    Such a photo was registered by a part of the scene that looks like another one. ``num_matches`` are the verified
    matches of pairs of photos, by the pair of names in the model.
    """
    while True:
        strong, contradicting = find_contradictions(model, num_matches)
        pairs, wrong = (Counter(name for pair in found for name in pair) for found in (strong, contradicting))
        doubtful = [name for name, num in wrong.items() if num >= MIN_CONTRADICTIONS and num > pairs[name] / 2]
        if not doubtful:
            return
        worst = max(sorted(doubtful), key=lambda name: wrong[name] / pairs[name])
        model.deregister_frame(model.find_image_with_name(worst).frame_id)


def locate_photos(model: Any, database: Path, images: Path, names: Sequence[str], task: PoseTask) -> Any:
    """Add the photos that a model lacks and that can be located in it; its cameras, poses and points stay the same.

    Args:
        model: the reconstruction.
        database, images, task: as for `map_photos`.
        names: all photos, as the database names them.
    """
    options = incremental_options(names, task.config, LOWER)
    options.fix_existing_frames = True
    options.constant_cameras = set(model.cameras)
    options.multiple_models = False
    num_missing = len(names) - model.num_reg_images()
    with (
        progress(total=num_missing, description="further photos") as bar,
        _empty_folder(task.folder / "models") as models,
    ):
        (models / "given").mkdir()
        model.write(models / "given")
        found = _map_with_bar(bar, database, images, models, options, input_path=models / "given")
    registered = {image.name for image in model.images.values() if image.has_pose}
    for result in list(found.values())[:1]:
        for image in result.images.values():
            if image.has_pose and image.name not in registered and image.num_points3D >= MIN_POINTS:
                _add_image(model, image, result.cameras[image.camera_id])
    return model


def _add_image(model: Any, image: Any, camera: Any) -> None:
    """Add an image with its pose to a model, without keypoints."""
    if camera.camera_id not in model.cameras:
        model.add_camera_with_trivial_rig(camera)
    pose = image.cam_from_world()
    added = pycolmap.Image(name=image.name, camera_id=camera.camera_id, image_id=image.image_id)
    if image.image_id in model.images:
        raise AssertionError(image.name)
    model.add_image_with_trivial_frame(added, pose)
