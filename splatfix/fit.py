"""A fit of a capture, from the folder of photos to ``before.ply``: sparse by default, dense on request."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from splatfix.captures import Capture, open_capture
from splatfix.evaluation.evaluate import evaluate_arms
from splatfix.evaluation.results import Results
from splatfix.files import write_json
from splatfix.gaussians import Splat, read_splat, write_splat
from splatfix.process import choose_device, progress, seed_everything
from splatfix.profiling import profiled, settle_on
from splatfix.runs import Run, open_run
from splatfix.splats.early_stopping import ChooseConfig, choose_stop
from splatfix.splats.initialise import InitialiseConfig
from splatfix.splats.scene import SparseScene, fit_identity, load_scene, start_fit
from splatfix.splats.train import Fit, FitConfig, TrainingView, advance
from splatfix.views import Split, ViewsConfig, make_split

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class FitRunConfig:
    """A fit of one capture.

    Attributes:
        seed: everything random follows it.
        device: auto, cpu, cuda or cuda:N.
        video: write a video along a path between and beyond the training cameras.
        checkpoint_seconds: seconds between checkpoints.
        views: which photos, at which size.
        initial: where the Gaussians start.
        fit: the schedule.
        choose: how a sparse fit is stopped.
    """

    seed: int = 0
    device: str = "auto"
    video: bool = True
    checkpoint_seconds: float = 30.0
    views: ViewsConfig = field(default_factory=ViewsConfig)
    initial: InitialiseConfig = field(default_factory=InitialiseConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    choose: ChooseConfig = field(default_factory=ChooseConfig)


def run_fit(
    capture_path: Path, out: Path, config: FitRunConfig, *, resume: bool = False, profile: bool = False
) -> Results:
    """Fit, export ``before.ply`` and measure it on the test views.

    ``profile`` writes where the time of the fit went to ``profile.json``, and to the log.

    Raises:
        ValueError: the capture, the split or a setting is not usable; the message names it.
    """
    run, capture, split, scene, device = prepare(capture_path, out, config, resume=resume)
    fit = fit_scene(run, scene, config, resume=resume, profile=profile)
    write_json(run.path / "history.json", history({"before": fit}))
    results = evaluate_arms(
        run,
        capture,
        split,
        {"before": read_splat(run.path / "before.ply").to(device)},
        restorer=None,
        restorer_name=None,
        seed=config.seed,
        num_references=0,
        video=config.video,
        scene=scene,
    )
    run.write_provenance(command="fit", seed=config.seed, device=device, notes=list(capture.notes))
    return results


def prepare(
    capture_path: Path, out: Path, config: FitRunConfig, *, resume: bool
) -> tuple[Run, Capture, Split, SparseScene, torch.device]:
    """Open the capture, choose the views and write ``config.yaml`` and ``split.json``.

    Checkpoints of an earlier run in the folder are dropped, unless it is to be resumed.
    """
    device = choose_device(config.device)
    capture = open_capture(capture_path, longest_side_px=config.views.size_px)
    for note in capture.notes:
        log.info("%s: %s", capture.name, note)
    split = make_split(capture, config.views)
    run = open_run(out, config)
    write_json(run.path / "split.json", split.to_json())
    if not resume:
        for stale in (run.path / "checkpoints").glob("*.pt"):
            stale.unlink()
    seed_everything(config.seed)
    log.info(
        "%s: %d photos to fit from, %d to test on, of %d",
        *(capture.name, len(split.train_ids), len(split.test_ids), len(capture.views)),
    )
    return run, capture, split, load_scene(capture, split.train_ids, device), device


def fit_scene(run: Run, scene: SparseScene, config: FitRunConfig, *, resume: bool, profile: bool = False) -> Fit:
    """Choose when to stop, fit the scene and write ``before.ply``, with checkpoints; ``resume`` continues from them."""
    steps = choose_steps(run, scene, config)
    log.info("fitting for %d steps", steps)
    with run.stage("fit"):
        fit = start_fit(scene, config.fit, config.initial, seed=config.seed)
        identity = fit_identity(scene, initial=config.initial, fit=config.fit, seed=config.seed, steps=steps)
        stage = Stage("before", "sparse fit", steps, config.seed, identity)
        with profiled(settle_on(fit.exposure.device)) if profile else nullcontext() as found:
            train_stage(run, fit, scene, stage, config, resume=resume)
        if found is not None:
            write_json(run.path / "profile.json", found.to_json())
            log.info("where the time of a step went:\n%s", found.table())
    write_splat(run.path / "before.ply", fit.splat())
    return fit


def choose_steps(run: Run, scene: SparseScene, config: FitRunConfig) -> int:
    """For how many steps the scene is fitted (`splats.choose`); writes ``stop.json``."""
    choose = config.choose
    with run.stage("choose"):
        probes = choose.folds if choose.enabled else 0
        with progress(total=probes, description="choosing when to stop", quiet=probes == 0) as bar:
            stop = choose_stop(
                scene, config.initial, config.fit, choose, seed=config.seed, on_probe=lambda: bar.update()
            )
    write_json(run.path / "stop.json", asdict(stop))
    return stop.steps


def fit_siblings(
    run: Run, scene: SparseScene, config: FitRunConfig, *, num: int, num_steps: int, resume: bool
) -> list[Splat]:
    """Further fits of the same photos, with other seeds from start to end."""
    siblings = []
    for number in range(1, num + 1):
        seed = sibling_seed(config.seed, number)
        fit = start_fit(scene, config.fit, config.initial, seed=seed)
        identity = fit_identity(scene, initial=config.initial, fit=config.fit, seed=seed, steps=num_steps)
        stage = Stage(f"sibling_{number}", f"sibling {number} of {num}", num_steps, seed, identity)
        train_stage(run, fit, scene, stage, config, resume=resume)
        siblings.append(fit.splat())
    return siblings


def sibling_seed(seed: int, number: int) -> int:
    """The seed of the fit's sibling of this number, from 1."""
    return seed + 1000 * number


@dataclass(frozen=True)
class Stage:
    """A stretch of training with a checkpoint of its own.

    Attributes:
        name: of the checkpoint.
        title: of the progress bar.
        last_step: where it ends.
        seed: what its random choices follow.
        identity: what its checkpoint is a checkpoint of (`splats.scene.fit_identity`).
        repaired: repaired views, besides the photos.
        repaired_probability: share of the steps that show one.
    """

    name: str
    title: str
    last_step: int
    seed: int
    identity: str
    repaired: Sequence[TrainingView] = ()
    repaired_probability: float = 0.0


def train_stage(run: Run, fit: Fit, scene: SparseScene, stage: Stage, config: FitRunConfig, *, resume: bool) -> None:
    """Train to the stage's last step, with checkpoints; ``resume`` goes on from the last one, if there is one."""
    checkpoint = run.path / "checkpoints" / f"{stage.name}.pt"
    if resume and checkpoint.is_file():
        fit.load(checkpoint, stage.identity)
        log.info("%s: continuing at step %d from %s", stage.title, fit.step, checkpoint)
    begun = saved = time.monotonic()
    earlier = fit.seconds
    num_steps = max(stage.last_step - fit.step, 0)
    with progress(total=num_steps, description=stage.title) as bar:

        def on_step(current: Fit) -> None:
            nonlocal saved
            bar.update()
            if time.monotonic() - saved > config.checkpoint_seconds:
                current.seconds = earlier + time.monotonic() - begun
                current.save(checkpoint, stage.identity)
                saved = time.monotonic()

        advance(
            fit,
            scene.views(),
            num_steps,
            seed=stage.seed,
            repaired=stage.repaired,
            repaired_probability=stage.repaired_probability,
            on_step=on_step,
        )
    run.count_steps(num_steps, time.monotonic() - begun)
    fit.seconds = earlier + time.monotonic() - begun
    if num_steps > 0:
        fit.save(checkpoint, stage.identity)


def history(arms: Mapping[str, Fit], after_step: int = 0) -> list[dict[str, Any]]:
    """Losses of the arms after a step, as ``history.json`` holds them."""
    return [
        {"arm": arm, "step": step, "loss": loss}
        for arm, fit in arms.items()
        for step, loss in fit.losses
        if step > after_step
    ]
