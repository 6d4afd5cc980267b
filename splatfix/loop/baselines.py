"""Fits without repaired views that go with the sparse fit: the control and the siblings.

The control continues the sparse fit for the steps of all rounds on photos alone, and is what `after` has to beat. The
siblings are fits of the same photos with other seeds, whose renders are averaged with the fit's own before a repair. A
run trains them in its own folder; `loop.cache` shares them between runs.
"""

from __future__ import annotations

from splatfix.gaussians import Splat, write_splat
from splatfix.loop.config import LoopConfig
from splatfix.runs import Run
from splatfix.splats.phases import TrainingPhase, train_phase
from splatfix.splats.scene import SparseScene, fit_identity, start_fit
from splatfix.splats.train import Fit


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
    rounds = config.repair.rounds if num_rounds is None else num_rounds
    control, last_step = before.copy(), before.step + rounds * config.repair.steps
    with run.stage("control"):  # no setting of the repair or the restorer: the checkpoint serves all of them
        identity = fit_identity(
            scene, initial=config.initial, fit=config.fit, seed=config.seed, before=before.step, steps=last_step
        )
        phase = TrainingPhase(name="control", title="control", last_step=last_step, seed=config.seed, identity=identity)
        train_phase(run, control, scene, phase, checkpoint_seconds=config.checkpoint_seconds)
    write_splat(run.path / "control.ply", control.splat(), file_from_world=scene.file_from_world)
    return control


def fit_siblings(run: Run, scene: SparseScene, before: Fit, config: LoopConfig) -> list[Splat]:
    """Fit the same photos again with other seeds, for as many steps as the control."""
    siblings, seeds, last_step = [], sibling_seeds(config), baseline_steps(config, before.step)
    with run.stage("siblings"):
        for number, seed in enumerate(seeds, start=1):
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
