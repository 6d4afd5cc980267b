"""Render, repair, retrain: the closed loop over one capture.

The sparse fit (`before`) is continued twice from the same state: `control` on the photos alone, `after` on the photos
and on repaired novel views, round by round. Both use the same seed, steps and schedule.
"""

from __future__ import annotations

from pathlib import Path

from splatfix.cameras import Camera
from splatfix.evaluation.evaluate import evaluate_arms
from splatfix.evaluation.results import Results
from splatfix.files import write_json
from splatfix.fit import Stage, fit_scene, fit_siblings, history, prepare, train_stage
from splatfix.gaussians import read_splat, write_splat
from splatfix.loop.config import LoopConfig
from splatfix.loop.rounds import repair_rounds
from splatfix.process import choose_device
from splatfix.restoration import RestorerChoice, open_restorer
from splatfix.splats.scene import fit_identity


def run_loop(capture_path: Path, out: Path, config: LoopConfig, *, resume: bool = False) -> Results:
    """Run the loop and write the run folder. ``resume`` continues where it stopped.

    Raises:
        ValueError: the capture, the split or a setting is not usable; the message names it.
    """
    restorer = open_restorer(config.restorer, device=choose_device(config.device))
    run, capture, split, scene, device = prepare(capture_path, out, config, resume=resume)
    before = fit_scene(run, scene, config, resume=resume)

    last_step = before.step + config.repair.num_steps
    control = before.copy()
    with run.stage("control"):  # its checkpoint serves every restorer
        identity = fit_identity(
            scene, initial=config.initial, fit=config.fit, seed=config.seed, before=before.step, steps=last_step
        )
        stage = Stage("control", "control", last_step, config.seed, identity)
        train_stage(run, control, scene, stage, config, resume=resume)
    write_splat(run.path / "control.ply", control.splat())

    with run.stage("siblings"):
        siblings = fit_siblings(run, scene, config, num=config.repair.siblings, num_steps=last_step, resume=resume)
    shown: list[tuple[int, Camera]] = []
    after = before
    for made in repair_rounds(run, scene, before, siblings, restorer, config, resume=resume):
        after = made.fit
        shown += [(made.number, camera) for camera in made.cameras]
    write_splat(run.path / "after.ply", after.splat())
    later = history({"control": control, "after": after}, after_step=before.step)
    write_json(run.path / "history.json", history({"before": before}) + later)

    arms = {name: read_splat(run.path / f"{name}.ply").to(device) for name in ("before", "control", "after")}
    results = evaluate_arms(
        run,
        capture,
        split,
        arms,
        restorer=restorer,
        restorer_name=RestorerChoice.of(config.restorer).name,
        seed=config.seed,
        num_references=config.repair.num_references,
        video=config.video,
        scene=scene,
        repair_views=shown,
    )
    run.write_provenance(command="loop", seed=config.seed, device=device, notes=list(capture.notes))
    return results
