"""Fit a capture, from the folder of photos to ``before.ply``: sparse by default, dense on request."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from splatfix.captures import (
    Capture,
    draw_on,
    fetch_photos,
    is_remote,
    open_capture,
    read_ahead,
    resolve_capture,
)
from splatfix.config import require
from splatfix.depth_models import estimate_depths
from splatfix.evaluation.evaluate import NUM_VIDEO_FRAMES, evaluate_arms
from splatfix.evaluation.layout import EVALUATION_FILES, VIDEO
from splatfix.evaluation.leave_one_out import MIN_PHOTOS, estimate_quality
from splatfix.evaluation.results import Estimate, Results, read_results
from splatfix.files import write_json
from splatfix.gaussians import SPLAT_FILE, read_splat, write_splat
from splatfix.jit import is_compiled
from splatfix.lease import hold_lease
from splatfix.process import choose_device, progress, seed_everything
from splatfix.profiling import record_profile, settle_on
from splatfix.rendering.cpu.compositing import composite_backward
from splatfix.rendering.cuda import warn_of_needles
from splatfix.runs import REMEDIES, Input, Run, check_place, files_input, open_run, read_run
from splatfix.sfm import FirstPosesConfig, count_photos, describe_poses, needs_poses, pose_photos, read_pose_record
from splatfix.splats.early_stopping import EarlyStoppingConfig, choose_stop
from splatfix.splats.initial_points import InitializationConfig, list_given_files
from splatfix.splats.phases import TrainingPhase, train_phase
from splatfix.splats.scene import SparseScene, fit_identity, load_scene, start_fit
from splatfix.splats.train import Fit, FitConfig
from splatfix.stages import START, Stage, StagePlan, fit_stages, measuring_stages
from splatfix.views import Split, ViewsConfig, check_num_train, make_split, resolve_masks, resolve_size

log = logging.getLogger(__name__)

# settings without influence on results, which a resumed run may change
MAY_CHANGE = ("device", "video", "checkpoint_seconds", "repeat_control")
POSED = "capture"  # folder in that of a run for the capture of photos that had no poses
FIT_FILES = (  # glob patterns of the files that a fit writes
    *EVALUATION_FILES,
    *("before.ply", SPLAT_FILE, "stop.json", "history.json", "profile.json", "checkpoints/*.pt"),
)
MUCH_IGNORED = 0.7  # share of the pixels of the training photos
ConfigT = TypeVar("ConfigT", bound="FitRunConfig")
PreparedRun = tuple[Run, Capture, Split, SparseScene, torch.device]


@dataclass(frozen=True, kw_only=True)
class FitRunConfig:
    """Settings of a fit of one capture.

    Attributes:
        seed: seed of all random choices.
        device: auto, cpu, cuda or cuda:N.
        video: write a video along a path between and beyond the training cameras.
        checkpoint_seconds: seconds between checkpoints.
        estimate: where no photo is left to test on, so many are left out of further fits, one at a time, to estimate
            the quality; 0 for no estimate.
        pose: how cameras are estimated where the photos have none.
        views: which photos are used, at which size.
        initial: the initial Gaussians.
        fit: the training of the splat.
        choose: early stopping.
    """

    seed: int = 0
    device: str = "auto"
    video: bool = True
    checkpoint_seconds: float = 30.0
    estimate: int = 3
    pose: FirstPosesConfig = field(default_factory=FirstPosesConfig)
    views: ViewsConfig = field(default_factory=ViewsConfig)
    initial: InitializationConfig = field(default_factory=InitializationConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    choose: EarlyStoppingConfig = field(default_factory=EarlyStoppingConfig)

    def __post_init__(self) -> None:
        require(self.estimate >= 0, "estimate", self.estimate, "0 or more photos")


def with_absolute_paths(config: ConfigT) -> ConfigT:
    """Make the paths of files absolute: workers may have other working directories."""
    views, initial = config.views, config.initial
    given = {name: getattr(initial, name) for name in ("start", "ply", "depths")}
    if initial.depth_model is not None and Path(initial.depth_model).is_dir():
        initial = replace(initial, depth_model=str(Path(initial.depth_model).resolve()))
    return replace(
        config,
        views=views if views.split is None else replace(views, split=views.split.resolve()),
        initial=replace(initial, **{name: path.resolve() for name, path in given.items() if path is not None}),
    )


def run_fit(
    capture_path: str | Path, out: str | Path, config: FitRunConfig, *, fresh: bool = False, profile: bool = False
) -> Results:
    """Fit a capture, write ``before.ply`` and evaluate it on the test views.

    Photos or a video without poses are posed first (`pose_first`). An interrupted run in the folder is resumed, a
    finished one is returned as it is; ``fresh`` starts over. ``profile`` writes the time per section of a training step
    to ``profile.json`` and the log.

    Raises:
        ValueError: the capture, the split or a setting is not usable, the folder holds another run, or another process
            is at work in it.
    """
    with hold_run(out, "splatfix fit"):
        return _run_fit(capture_path, out, config, fresh=fresh, profile=profile)


@contextmanager
def hold_run(out: str | Path, command: str) -> Iterator[None]:
    """Keep other processes out of a run folder (`hold_lease`), unless it cannot be written to: then nobody works there.

    Raises:
        ValueError: another process is at work in it, or it is no folder.
    """
    place = check_place(out)
    is_sealed = place.is_dir() and not os.access(place, os.W_OK)
    with nullcontext() if is_sealed else hold_lease(str(place), command):
        yield


def _run_fit(capture_path: str | Path, out: str | Path, config: FitRunConfig, *, fresh: bool, profile: bool) -> Results:
    if config.initial.start is not None:
        raise ValueError(
            f"initial.start = {config.initial.start}: a fit that starts from a splat trains nothing; use splatfix "
            "loop, or splatfix evaluate to measure the splat"
        )
    capture_path, config = pose_first(capture_path, out, config, fresh=fresh)
    run, capture, split, scene, device = prepare_run(
        capture_path, out, config, command="fit", files=FIT_FILES, fresh=fresh
    )
    if run.is_finished:
        return read_results(run.path)
    run.plan = StagePlan(fit_run_stages(config, num_train=len(split.train_ids), num_test=len(split.test_ids)))
    fit = fit_scene(run, scene, config, profile=profile)
    write_json(run.path / "history.json", loss_records({"before": fit}))
    results = evaluate_arms(
        run,
        capture,
        split,
        {"before": read_splat(run.path / "before.ply", file_from_world=capture.file_from_world).to(device)},
        restorer=None,
        restorer_name=None,
        seed=config.seed,
        num_references=0,
        video=config.video,
        scene=scene,
        estimate=estimate_without_tests(run, split, scene, config, steps=fit.step),
    )
    run.write_provenance(seed=config.seed, device=device, notes=[*list_notes(capture, config), *fit.notes])
    return results


def pose_first(
    capture_path: str | Path, out: str | Path, config: ConfigT, *, fresh: bool = False
) -> tuple[str | Path, ConfigT]:
    """Pose photos or a video that have no poses, into the folder ``capture`` of the run.

    Returns the path of the capture, and the config with the chosen photos, if poses come from these alone. A capture
    that has poses is returned as it is.

    Raises:
        ValueError: no cameras were found, or the folder holds another run.
    """
    if not needs_poses(capture_path):
        return capture_path, config
    if config.initial.start is not None:
        raise ValueError(
            f"{capture_path}: photos without poses, but initial.start = {config.initial.start} has a world already; "
            "pass the capture that the splat was trained on"
        )
    earlier = None if fresh else read_run(out)
    target = Path(out) / POSED
    before = target if earlier is None else earlier["inputs"].get("capture", {}).get("path")
    if str(before) not in (str(target), resolve_capture(target)):
        raise ValueError(f"{out}: capture was {before}, now it is {capture_path}; {REMEDIES}")
    chosen_alone = config.pose.from_ == "chosen"

    def choose(folder: Path) -> tuple[str, ...]:
        options = config.views.photo_options
        capture = open_capture(folder, longest_side_px=config.views.size_px, options=options)
        return make_split(capture, config.views).train_ids

    num_photos = count_photos(capture_path)
    if num_photos is not None:
        check_num_train(config.views, num_photos, capture_path)  # before minutes of work
    log.info("%s has no poses: estimating cameras into %s", capture_path, target)
    record = pose_photos(
        capture_path, target, config.pose.to_pose_config(), choose=choose if chosen_alone else None, fresh=fresh
    )
    if chosen_alone and config.views.split is None:
        config = replace(config, views=replace(config.views, train_ids=record.estimated_from))
    return target, config


def describe_origin(capture: Capture, split: Split) -> Capture:
    """Note which photos the poses of a capture know of, and doubts, if splatfix pose made them; named as its source."""
    record = None if is_remote(capture.path) else read_pose_record(capture.path)
    if record is None:
        return capture
    name = Path(record.source).stem if capture.name == POSED else capture.name
    notes = [describe_poses(record, split.train_ids, split.test_ids), *record.doubts]
    if record.unregistered:
        notes.append(f"{len(record.unregistered)} of {len(record.photos)} photos have no camera (pose.html says why)")
    return replace(capture, name=name, notes=(*capture.notes, *notes))


def prepare_run(
    capture_path: str | Path,
    out: str | Path,
    config: FitRunConfig,
    *,
    command: str,
    files: Sequence[str],
    inputs: Mapping[str, Input] | None = None,
    notes: Sequence[str] = (),
    fresh: bool = False,
    is_complete: bool = True,
) -> PreparedRun:
    """Open the capture, choose the views, load the photos, and start or resume the run (`runs.open_run`).

    ``inputs`` are those of the run besides the capture, ``notes`` are shown beside those of the capture, and
    ``is_complete`` is False where a finished run lacks a part that the config wants now. Writes
    ``run.json``, ``config.yaml`` and ``split.json``, unless the run is finished.

    Raises:
        ValueError: the capture, the split or a setting is not usable, or the folder holds another run; nothing in it
            has changed then.
    """
    device = choose_device(config.device)
    config = replace(config, views=resolve_masks(resolve_size(config.views)))
    config = with_absolute_paths(config)
    capture = open_capture(capture_path, longest_side_px=config.views.size_px, options=config.views.photo_options)
    split = make_split(capture, config.views)
    capture = describe_origin(capture, split)
    fetch_photos(capture.view(name) for name in (*split.train_ids, *split.test_ids))
    capture = draw_on(read_ahead(capture, split.test_ids), device, (*split.train_ids, *split.test_ids))
    given = list_given_files(config.initial, [capture.view(name).camera for name in sorted(split.train_ids)])
    if given:
        inputs = {**(inputs or {}), "initial": files_input(given[0], given)}
    seed_everything(config.seed)
    scene = load_scene(capture, split.train_ids, device)
    if scene.ignored_share > MUCH_IGNORED:
        log.warning(
            "%s: masks leave out %.0f %% of the training photos: do they mark an object (views.masks = object), or are "
            "they inverted?",
            *(capture.name, 100 * scene.ignored_share),
        )
    digest = fit_identity(scene, test_ids=split.test_ids)
    scene = estimate_depths(scene, model := config.initial.depth_model)
    if model is not None and scene.nearness_from is not None:
        inputs = {**(inputs or {}), "depth_model": Input(path=model, digest=scene.nearness_from)}
    run = open_run(
        out,
        config,
        command=command,
        inputs={"capture": Input(path=resolve_capture(capture_path), digest=digest), **(inputs or {})},
        may_change=MAY_CHANGE,
        files=files,
        is_complete=is_complete and (not config.video or (Path(out) / VIDEO).is_file()),
        fresh=fresh,
    )
    if run.is_finished:
        log.info("%s: this run is finished", run.path)
    else:
        if capture.splat is not None:
            run.record["rendered_from"] = capture.splat.name
        for note in (*list_notes(capture, config), *notes):
            log.info("%s: %s", capture.name, note)
        if len(split.train_ids) == 1 and config.initial.start is None:
            log.warning(
                "%s: one photo says nothing about depth, so the splat will be poor; wanted 3 or more (views.num_train)",
                capture.name,
            )
        log.info(
            "%s: photos to fit from: %d, to test on: %d, of %d (views.num_train = all fits from all)",
            *(capture.name, len(split.train_ids), len(split.test_ids), len(capture.views)),
        )
        write_json(run.path / "split.json", split.to_json())
        if device.type == "cpu" and not is_compiled(composite_backward):
            log.info("the kernels for this processor are compiled now: once, for about a minute")
    return run, capture, split, scene, device


def fit_scene(run: Run, scene: SparseScene, config: FitRunConfig, *, profile: bool = False) -> Fit:
    """Choose the number of steps, fit the scene and write ``before.ply``. Resumes from its checkpoint."""
    steps = choose_steps(run, scene, config)
    if config.choose.enabled:
        log.info("fitting for %d steps", steps)
    with run.stage("fit"):
        start, were_compiled = time.monotonic(), is_compiled(composite_backward)
        fit = start_fit(scene, config.fit, config.initial, seed=config.seed)
        if were_compiled:  # else the start took longer than further ones will
            run.note(START, 1, time.monotonic() - start)
        identity = fit_identity(scene, initial=config.initial, fit=config.fit, seed=config.seed, steps=steps)
        phase = TrainingPhase(name="before", title="sparse fit", last_step=steps, seed=config.seed, identity=identity)
        with record_profile(settle_on(fit.device)) if profile else nullcontext() as profile_result:
            train_phase(run, fit, scene, phase, checkpoint_seconds=config.checkpoint_seconds)
        if profile_result is not None:
            write_json(run.path / "profile.json", profile_result.to_json())
            log.info("time of a step by section:")
            for line in profile_result.table().splitlines():
                log.info("%s", line)
    if fit.device.type == "cuda":
        warn_of_needles(fit.splat())
    write_splat(run.path / "before.ply", fit.splat(), file_from_world=scene.file_from_world)
    return fit


def list_fit_stages(config: FitRunConfig) -> list[Stage]:
    """The stages of the sparse fit of a run."""
    return fit_stages(steps=config.fit.steps, folds=config.choose.folds if config.choose.enabled else 0)


def fit_run_stages(config: FitRunConfig, *, num_train: int, num_test: int) -> list[Stage]:
    """The stages of `run_fit` from so many photos to fit from and to test on."""
    return list_fit_stages(config) + measuring_stages(
        num_test=num_test,
        num_estimates=min(config.estimate, num_train) if num_train >= MIN_PHOTOS else 0,
        steps=config.fit.steps,
        num_arms=1,
        num_frames=NUM_VIDEO_FRAMES if config.video else 0,
    )


def list_notes(capture: Capture, config: FitRunConfig) -> list[str]:
    """What readers of a run should know: what the reader of the capture did, and where the fit started."""
    notes, initial = list(capture.notes), config.initial
    if initial.start is not None:
        notes.append(
            f"starts from {initial.start}: it may have been trained on the test photos; all arms start from it, so the "
            "gain compares like with like, but their PSNR may be higher than on photos that it has not seen"
        )
    else:
        notes += [
            f"starts with {path}: if it was made with the test photos, the PSNR is higher than without them"
            for path in (initial.ply, initial.depths)
            if path is not None
        ]
    if initial.depth_model is not None:
        notes.append(f"uses depths that {initial.depth_model} estimated from each photo by itself")
    return notes


def estimate_without_tests(
    run: Run, split: Split, scene: SparseScene, config: FitRunConfig, *, steps: int
) -> Estimate | None:
    """Estimate the quality of the sparse fit, where no photo is left to test on; None where there are test photos."""
    if split.test_ids:
        return None
    return estimate_quality(
        run,
        scene,
        config.initial,
        config.fit,
        num=config.estimate,
        steps=steps,
        seed=config.seed,
        checkpoint_seconds=config.checkpoint_seconds,
    )


def choose_steps(run: Run, scene: SparseScene, config: FitRunConfig) -> int:
    """Choose the number of steps to fit the scene for (`splats.early_stopping`), and write ``stop.json``."""
    choose = config.choose
    with run.stage("choose"):
        probes = choose.folds if choose.enabled else 0
        with progress(total=probes, description="choosing when to stop", quiet=probes == 0) as bar:
            stop = choose_stop(
                scene, config.initial, config.fit, choose, seed=config.seed, on_probe=lambda: bar.update()
            )
    write_json(run.path / "stop.json", asdict(stop))
    return stop.steps


def loss_records(arms: Mapping[str, Fit], after_step: int = 0) -> list[dict[str, Any]]:
    """List the losses of the arms after a step, in the format of ``history.json``."""
    return [
        {"arm": arm, "step": step, "loss": loss, "repaired": step in fit.repaired_steps}
        for arm, fit in arms.items()
        for step, loss in fit.losses
        if step > after_step
    ]
