"""A fit of a capture, from the folder of photos to ``before.ply``: sparse by default, dense on request."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from splatfix.captures import Capture, open_capture
from splatfix.evaluation.arms import evaluate_arms
from splatfix.gaussians import Gaussians, read_ply, write_ply
from splatfix.runs import Run, choose_device, open_run, progress, seed_everything, write_json
from splatfix.splats.choose import ChooseConfig, choose_stop
from splatfix.splats.initialise import InitialiseConfig
from splatfix.splats.scene import SparseScene, fit_identity, load_scene, start_fit
from splatfix.splats.train import Fit, FitConfig, advance
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


def run_fit(capture_path: Path, out: Path, config: FitRunConfig, *, resume: bool = False) -> dict[str, Any]:
    """Fit, export ``before.ply``, measure it on the test views; returns what ``results.json`` holds.

    Raises:
        ValueError: the capture, the split or a setting is not usable; the message names it.
    """
    run, capture, split, scene, device = prepare(capture_path, out, config, config.views, config.device, config.seed)
    history: list[dict[str, Any]] = []
    fit_scene(
        run,
        scene,
        config.initial,
        config.fit,
        config.choose,
        seed=config.seed,
        resume=resume,
        checkpoint_seconds=config.checkpoint_seconds,
        history=history,
    )
    write_json(run.path / "history.json", history)
    results = evaluate_arms(
        run,
        capture,
        split,
        {"before": read_ply(run.path / "before.ply").to(device)},
        restorer=None,
        restorer_name=None,
        seed=config.seed,
        num_references=0,
        video=config.video,
        mode=config.fit.mode,
        scene=scene,
    )
    run.write_provenance(command="fit", seed=config.seed, device=device, notes=list(capture.notes))
    return results


def prepare(
    capture_path: Path, out: Path, config: Any, views: ViewsConfig, device: str, seed: int
) -> tuple[Run, Capture, Split, SparseScene, torch.device]:
    """Open the capture, choose the views and write ``config.yaml`` and ``split.json``."""
    chosen_device = choose_device(device)
    capture = open_capture(capture_path, longest_side_px=views.size_px)
    for note in capture.notes:
        log.info("%s: %s", capture.name, note)
    split = make_split(capture, views)
    run = open_run(out, config)
    write_json(run.path / "split.json", split.to_json())
    seed_everything(seed)
    log.info(
        "%s: %d photos to fit from, %d to test on, of %d",
        *(capture.name, len(split.train_ids), len(split.test_ids), len(capture.views)),
    )
    return run, capture, split, load_scene(capture, split.train_ids, chosen_device), chosen_device


def fit_scene(
    run: Run,
    scene: SparseScene,
    initial: InitialiseConfig,
    config: FitConfig,
    choose: ChooseConfig,
    *,
    seed: int,
    resume: bool,
    checkpoint_seconds: float,
    history: list[dict[str, Any]],
) -> Fit:
    """Choose when to stop, fit the scene and write ``before.ply``, with checkpoints; ``resume`` continues from them."""
    with run.stage("choose"):
        probes = choose.folds if choose.enabled else 0
        with progress(total=probes, description="choosing when to stop", quiet=probes == 0) as bar:
            stop = choose_stop(scene, initial, config, choose, seed=seed, on_probe=bar.update)
    write_json(run.path / "stop.json", asdict(stop))
    log.info("fitting for %d steps", stop.steps)
    with run.stage("fit"):
        fit = _fit(run, scene, initial, config, stop.steps, seed, resume, checkpoint_seconds, history)
    write_ply(run.path / "before.ply", fit.gaussians())
    return fit


def fit_siblings(
    scene: SparseScene, initial: InitialiseConfig, config: FitConfig, *, num_steps: int, seed: int, num: int
) -> list[Gaussians]:
    """Further fits of the same photos, with other seeds from start to end."""
    siblings = []
    for number in range(1, num + 1):
        with progress(total=num_steps, description=f"sibling {number} of {num}") as bar:
            other = seed + 1000 * number
            fit = start_fit(scene, config, initial, seed=other)
            advance(
                fit,
                scene.views(),
                num_steps,
                seed=other,
                background=scene.background,
                on_step=lambda _fit, _loss, bar=bar: bar.update(),  # type: ignore[misc]
            )
        siblings.append(fit.gaussians().detach())
    return siblings


def _fit(
    run: Run,
    scene: SparseScene,
    initial: InitialiseConfig,
    config: FitConfig,
    last_step: int,
    seed: int,
    resume: bool,
    checkpoint_seconds: float,
    history: list[dict[str, Any]],
) -> Fit:
    fit = start_fit(scene, config, initial, seed=seed)
    checkpoint = run.path / "checkpoints" / "before.pt"
    identity = fit_identity(scene, initial, config, seed)
    if resume and checkpoint.is_file():
        fit.load(checkpoint, identity)
        log.info("continuing at step %d from %s", fit.step, checkpoint)
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    saved = time.monotonic()
    with progress(total=last_step, initial=fit.step, description="sparse fit") as bar:

        def on_step(current: Fit, loss: float) -> None:
            nonlocal saved
            bar.update()
            if current.step % 25 == 0:
                history.append({"arm": "before", "step": current.step, "loss": loss})
            if time.monotonic() - saved > checkpoint_seconds:
                current.save(checkpoint, identity)
                saved = time.monotonic()

        num_steps = max(last_step - fit.step, 0)
        advance(fit, scene.views(), num_steps, seed=seed, background=scene.background, on_step=on_step)
    fit.save(checkpoint, identity)
    return fit
