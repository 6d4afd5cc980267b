"""Fits without repaired views that go with the sparse fit: the control and the siblings.

The control continues the sparse fit for the steps of all rounds on photos alone, and is what `after` has to beat. The
siblings are fits of the same photos with other seeds, whose renders are averaged with the fit's own before a repair. A
run trains them in its own folder; `loop.cache` shares them between runs. Where fits do not repeat exactly, the control
is trained a second time: how far the two are apart is the run-to-run spread, below which a gain says nothing.
"""

from __future__ import annotations

from dataclasses import replace

from splatfix.gaussians import Splat, read_ply, write_ply, write_splat
from splatfix.loop.config import LoopConfig
from splatfix.process import quiet
from splatfix.runs import Run
from splatfix.splats.phases import TrainingPhase, checkpoint_path, train_phase
from splatfix.splats.scene import SparseScene, fit_identity, start_fit
from splatfix.splats.train import Fit

AGAIN = "control_again"  # name of the checkpoint and the splat of the second control


def baseline_steps(config: LoopConfig, sparse_steps: int) -> int:
    """Steps of the control and of every sibling: those of the sparse fit and of all rounds."""
    return sparse_steps + config.repair.num_steps


def sibling_seeds(config: LoopConfig) -> list[int]:
    """The seed of each sibling."""
    return [config.seed + 1000 * number for number in range(1, config.repair.siblings + 1)]


def fit_control(run: Run, scene: SparseScene, before: Fit, config: LoopConfig, *, num_rounds: int | None = None) -> Fit:
    """Continue a copy of the sparse fit on photos alone, and write ``control.ply``.

    It is trained for the steps of ``num_rounds`` rounds; None for all of the config.
    """
    with run.stage("control"):
        control = _continue(run, scene, before, config, num_rounds, name="control", title="control")
    write_splat(run.path / "control.ply", control.splat(), file_from_world=scene.file_from_world)
    return control


def fit_control_again(
    run: Run, scene: SparseScene, before: Fit, config: LoopConfig, *, num_rounds: int | None = None
) -> Splat:
    """Train the control a second time, from the same state with the same seed.

    The splat is what `fit_control` exports, read from a ``.ply`` as that is; the file stays beside the checkpoints.
    """
    with run.stage("repeat"):
        control = _continue(run, scene, before, config, num_rounds, name=AGAIN, title="control, second time")
    splat, path = control.splat(), checkpoint_path(run, AGAIN).with_suffix(".ply")
    write_ply(path, splat.gaussians, file_from_world=scene.file_from_world)
    return replace(splat, gaussians=read_ply(path, file_from_world=scene.file_from_world).to(splat.device))


def _continue(
    run: Run, scene: SparseScene, before: Fit, config: LoopConfig, num_rounds: int | None, *, name: str, title: str
) -> Fit:
    """Train a copy of the sparse fit on photos alone. Its checkpoint serves any repair and restorer."""
    rounds = config.repair.rounds if num_rounds is None else num_rounds
    control, last_step = before.copy(), before.step + rounds * config.repair.steps
    identity = fit_identity(
        scene, initial=config.initial, fit=config.fit, seed=config.seed, before=before.step, steps=last_step
    )
    phase = TrainingPhase(name=name, title=title, last_step=last_step, seed=config.seed, identity=identity)
    train_phase(run, control, scene, phase, checkpoint_seconds=config.checkpoint_seconds)
    return control


def fit_siblings(run: Run, scene: SparseScene, before: Fit, config: LoopConfig) -> list[Splat]:
    """Fit the same photos again with other seeds, for as many steps as the control."""
    siblings, seeds, last_step = [], sibling_seeds(config), baseline_steps(config, before.step)
    with run.stage("siblings"):
        for number, seed in enumerate(seeds, start=1):
            with quiet("splatfix.splats"):  # the sparse fit has said how it starts
                fit = start_fit(scene, config.fit, config.initial, seed=seed)
            phase = TrainingPhase(
                name=f"sibling_{number}",
                title=f"further fit {number} of {len(seeds)}",
                last_step=last_step,
                seed=seed,
                identity=fit_identity(scene, initial=config.initial, fit=config.fit, seed=seed, steps=last_step),
            )
            train_phase(run, fit, scene, phase, checkpoint_seconds=config.checkpoint_seconds)
            siblings.append(fit.splat())
    return siblings
