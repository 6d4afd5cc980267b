"""From photos or a video without poses to the folder of a capture: ``images/``, ``sparse/0`` and ``pose.json``."""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import splatfix
from splatfix.captures.colmap_model import read_cameras, read_images, read_points3d
from splatfix.config import to_public_tree
from splatfix.files import sync
from splatfix.process import progress
from splatfix.runs import Run, open_run
from splatfix.sfm.advice import advise, explain_failure
from splatfix.sfm.config import PoseConfig
from splatfix.sfm.doubts import find_doubts
from splatfix.sfm.photos import SourcePhoto, place_photo
from splatfix.sfm.poser import PhotoInfo, PosedModel, PoseTask, find_poser
from splatfix.sfm.record import (
    POSE_RECORD,
    CameraRecord,
    PhotoRecord,
    PoseRecord,
    read_pose_record,
    write_pose_record,
)
from splatfix.sfm.source import Source, open_source
from splatfix.sfm.video import pick_frames

log = logging.getLogger(__name__)

MODEL = "sparse/0"
WORK = "sfm"  # folder with keypoints and matches, which a later run resumes from
POSE_FILES = (  # glob patterns of the files that a run writes
    *("images/*", f"{MODEL}/*", POSE_RECORD, "pose.html"),
    *(f"{WORK}/*", f"{WORK}/*/*", f"{WORK}/*/*/*", f"{WORK}/*/*/*/*"),
)
Choose = Callable[[Path], Sequence[str]]


def pose_photos(
    source: Path | str,
    out: Path | str,
    config: PoseConfig | None = None,
    *,
    choose: Choose | None = None,
    fresh: bool = False,
) -> PoseRecord:
    """Estimate the cameras of photos or of a video, and write the folder of a capture that `open_capture` reads.

    An interrupted run in the folder is resumed, a finished one is returned as it is; ``fresh`` starts over.

    Args:
        source: folder of photos, or a video.
        out: folder of the capture.
        config: the settings; None for the defaults.
        choose: chooses the photos that poses and points are estimated from, by name. It is called with the folder of a
            capture whose poses all photos gave; the other photos are then located in a model of the chosen ones.
        fresh: start over.

    Raises:
        ValueError: the source or a setting is not usable, the photos do not fit together, or the folder holds another
            run.
    """
    out, config = Path(out), config or PoseConfig()
    poser = find_poser(config.poser)
    found = open_source(source)
    run = open_run(
        out,
        config,
        command="pose",
        inputs={"photos": found.identify()},
        files=POSE_FILES,
        is_complete=(out / POSE_RECORD).is_file() and (out / MODEL).is_dir(),
        fresh=fresh,
    )
    if run.is_finished:
        record = read_pose_record(out)
        assert record is not None
        log.info("%s: the cameras are estimated already", out)
        return record
    photos, sharpness, notes = place_photos(run, found, config)
    task = PoseTask(
        images=out / "images",
        photos=photos,
        estimate_from=tuple(photo.name for photo in photos),
        folder=out / WORK,
        config=config,
    )
    with run.stage("cameras"):
        model = estimate(poser, task, found.path)
        if choose is not None:
            chosen = tuple(choose(_write_trial(model, task)))
            task = replace(task, estimate_from=tuple(sorted(chosen)))
            model = estimate(poser, task, found.path)
            refuse_missing(model, task, found.path)
    write_model(model, out, task)
    record = describe_model(model, task, found, sharpness, notes, run)
    write_pose_record(out, record)
    run.write_provenance(seed=config.seed, device=torch.device("cpu"), notes=list(record.notes))
    return record


def place_photos(
    run: Run, source: Source, config: PoseConfig
) -> tuple[tuple[PhotoInfo, ...], dict[str, float], tuple[str, ...]]:
    """Put all photos upright into ``images``; returns them sorted by name, their sharpness, and notes."""
    images, notes, sources = run.path / "images", list(source.notes), list(source.photos)
    images.mkdir(parents=True, exist_ok=True)
    with run.stage("photos"):
        if source.video is not None:
            frames, more = pick_frames(source.video, images, run.path / WORK, config.frames)
            notes += more
            sources = [SourcePhoto(path=path, digest="", name=path.name) for path in frames]
        placed, num_turned = {}, 0
        with progress(sources, description="placing photos") as bar:
            for photo in bar:
                placed[photo.name] = place_photo(photo, images, config)
                num_turned += placed[photo.name].was_turned
    if num_turned:
        notes.append(
            f"{num_turned} photos are stored turned (EXIF orientation): their pixels were turned upright in images/, "
            "and poses belong to these"
        )
    num_transparent = sum(photo.info.has_transparency for photo in placed.values())
    if num_transparent:
        notes.append(
            f"{num_transparent} of {len(placed)} photos have transparent pixels (alpha): nothing is matched there; "
            "give photos without an alpha channel to use the background as well"
        )
    for note in notes:
        log.info("%s: %s", source.path, note)
    names = sorted(placed)
    infos = tuple(placed[name].info for name in names)
    if source.video is not None:
        infos = tuple(replace(info, source=f"{source.video}, {Path(info.name).stem}") for info in infos)
    return infos, {name: placed[name].sharpness for name in names}, tuple(notes)


def estimate(poser: Any, task: PoseTask, source: Path) -> PosedModel:
    """Run a poser. ValueError if it finds no model."""
    model = poser(task)
    if model.reconstruction is None:
        raise ValueError(f"{source}: no cameras found: {explain_failure(model, task.estimate_from)}")
    return model


def refuse_missing(model: PosedModel, task: PoseTask, source: Path) -> None:
    """Refuse a model of chosen photos that does not come from all of them. ValueError."""
    missing = [name for name in task.estimate_from if name not in model.estimated_from]
    if missing:
        raise ValueError(
            f"{source}: {len(missing)} of {len(task.estimate_from)} chosen photos have no camera where only these are "
            f"used (the first: {missing[0]}); choose more photos, others (--views.train-ids), or --pose.from all: its "
            "poses know of the test photos"
        )


def write_model(model: PosedModel, out: Path, task: PoseTask) -> None:
    """Write the COLMAP model of a capture, whole or not at all."""
    partial = task.folder / "model"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    model.reconstruction.write_binary(partial)
    target = out / MODEL
    _check_whole(partial, target)
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial.rename(target)


def _check_whole(folder: Path, target: Path) -> None:
    """Synchronize the files of a model to disk. OSError if one is cut short, which COLMAP does not tell."""
    for read, name in ((read_cameras, "cameras"), (read_images, "images"), (read_points3d, "points3D")):
        try:
            read(folder / f"{name}.bin")
        except ValueError as error:
            if "truncated" in str(error):  # other faults are told where the capture is opened
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target)) from None
    for file in folder.iterdir():
        sync(file)


def _write_trial(model: PosedModel, task: PoseTask) -> Path:
    """Write the model of all photos as a capture beside the real one, to choose photos from."""
    trial = task.folder / "all"
    trial.mkdir(parents=True, exist_ok=True)
    write_model(model, trial, task)
    if not (trial / "images").is_symlink():
        (trial / "images").symlink_to(os.path.relpath(task.images, trial))
    return trial


def describe_model(
    model: PosedModel,
    task: PoseTask,
    source: Source,
    sharpness: dict[str, float],
    notes: Sequence[str],
    run: Run,
) -> PoseRecord:
    """Make the record of an estimate."""
    reconstruction = model.reconstruction
    reconstruction.update_point_3d_errors()
    images = {image.name: image for image in reconstruction.images.values() if image.has_pose}
    photos = tuple(
        PhotoRecord(
            name=photo.name,
            source=photo.source,
            is_registered=photo.name in images,
            num_keypoints=model.num_keypoints.get(photo.name),
            num_points=images[photo.name].num_points3D if photo.name in images else 0,
            error_px=_mean_error_px(reconstruction, images[photo.name]) if photo.name in images else None,
            sharpness=sharpness.get(photo.name),
            advice=None if photo.name in images else advise(photo.name, model, images.keys(), sharpness),
        )
        for photo in task.photos
    )
    cameras = tuple(_describe_camera(camera, images.values(), task) for camera in reconstruction.cameras.values())
    cameras = tuple(camera for camera in cameras if camera.num_photos)
    error = reconstruction.compute_mean_reprojection_error()
    return PoseRecord(
        source=str(source.path.resolve()),
        poser=task.config.poser,
        method=model.method,
        estimated_from=model.estimated_from,
        photos=photos,
        cameras=cameras,
        num_points=reconstruction.num_points3D(),
        error_px=float(error) if reconstruction.num_points3D() else None,
        version=splatfix.__version__,
        notes=tuple(notes),
        doubts=tuple(find_doubts(reconstruction, cameras, model.num_matches)),
        seconds={name: round(value, 3) for name, value in run.seconds.items()},
        settings={**to_public_tree(task.config), "threads": task.config.num_threads},
    )


def _mean_error_px(reconstruction: Any, image: Any) -> float | None:
    errors = []
    for point in image.get_observation_points2D():
        projected = image.project_point(reconstruction.points3D[point.point3D_id].xyz)
        if projected is not None:
            errors.append(float(((projected - point.xy) ** 2).sum() ** 0.5))
    return sum(errors) / len(errors) if errors else None


def _describe_camera(camera: Any, images: Any, task: PoseTask) -> CameraRecord:
    names = {image.name for image in images if image.camera_id == camera.camera_id}
    known = [photo.focal_px for photo in task.photos if photo.name in names]
    return CameraRecord(
        model=camera.model_name,
        width_px=camera.width,
        height_px=camera.height,
        params=tuple(float(value) for value in camera.params),
        focal_px=float(camera.mean_focal_length()),
        known_focal_px=known[0] if known else None,
        num_photos=len(names),
    )
