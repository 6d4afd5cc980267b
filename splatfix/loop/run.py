"""Render, repair, retrain: the closed loop over one capture.

The sparse fit (`before`) is continued twice from the same state: `control` on the photos alone, `after` on the photos
and on repaired novel views, round by round. Both use the same seed, steps and schedule.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

from splatfix.captures import name_capture
from splatfix.evaluation.evaluate import evaluate_arms
from splatfix.evaluation.layout import REPAIR_FILES
from splatfix.evaluation.repairs import REPAIRS, RepairRecord, write_repairs
from splatfix.evaluation.results import RESULTS, Results, read_results
from splatfix.files import write_json
from splatfix.fit import (
    FIT_FILES,
    estimate_without_tests,
    fit_scene,
    hold_run,
    list_notes,
    loss_records,
    pose_first,
    prepare_run,
)
from splatfix.gaussians import read_splat, write_splat
from splatfix.loop.baselines import AGAIN, fit_control, fit_control_again, fit_siblings
from splatfix.loop.config import LoopConfig
from splatfix.loop.plan import loop_stages
from splatfix.loop.rounds import repair_rounds
from splatfix.loop.validation import VALIDATION_FILES, validate_rounds
from splatfix.process import choose_device
from splatfix.restoration import RestorerChoice, open_restorer, pin_choice
from splatfix.restoration.identity import describe_training_overlap, restorer_input
from splatfix.stages import StagePlan

LOOP_FILES = (
    *(*FIT_FILES, *REPAIR_FILES, *VALIDATION_FILES, REPAIRS),
    *("control.ply", "after.ply", f"checkpoints/{AGAIN}.ply"),
)


def run_loop(
    capture_path: str | Path, out: str | Path, config: LoopConfig | None = None, *, fresh: bool = False
) -> Results:
    """Run the loop and write the run folder.

    Photos or a video without poses are posed first (`fit.pose_first`). An interrupted run in the folder is resumed,
    a finished one is returned as it is; ``fresh`` starts over.

    Raises:
        ValueError: the capture, the split or a setting is not usable, the folder holds another run, or another process
            is at work in it.
    """
    with hold_run(out, "splatfix loop"):
        return _run_loop(capture_path, out, config or LoopConfig(), fresh=fresh)


def _run_loop(capture_path: str | Path, out: str | Path, config: LoopConfig, *, fresh: bool) -> Results:
    config = replace(config, restorer=pin_choice(config.restorer))
    device = choose_device(config.device)
    restorer = open_restorer(config.restorer, device=device)
    repeats_control = config.repeats_control(device)
    overlap = describe_training_overlap(config.restorer, name_capture(capture_path))
    capture_path, config = pose_first(capture_path, out, config, fresh=fresh)
    run, capture, split, scene, device = prepare_run(
        capture_path,
        out,
        config,
        command="loop",
        files=LOOP_FILES,
        inputs=restorer_input(config.restorer),
        notes=overlap,
        fresh=fresh,
        is_complete=config.repeat_control != "always" or _has_spread(Path(out)),
    )
    if run.is_finished:
        return read_results(run.path)

    nums = {"num_train": len(split.train_ids), "num_test": len(split.test_ids)}
    repeats_control = repeats_control and bool(split.test_ids)  # else it would be measured on nothing
    run.plan = StagePlan(loop_stages(config, **nums, repeats_control=repeats_control))
    before = fit_scene(run, scene, config)
    validation = validate_rounds(run, scene, restorer, config, steps=before.step)
    num_rounds = config.repair.rounds if validation is None else validation.kept_rounds
    run.plan.stages = loop_stages(config, **nums, num_rounds=num_rounds, repeats_control=repeats_control)
    control = fit_control(run, scene, before, config, num_rounds=num_rounds or None)
    control_again = None
    if repeats_control:
        control_again = fit_control_again(run, scene, before, config, num_rounds=num_rounds or None)
    siblings = fit_siblings(run, scene, before, config) if num_rounds else []
    after, repair_views = before, []
    if validation is not None and num_rounds == 0 and validation.unrepaired == "control":
        after = control
    repairs: list[RepairRecord] = []
    for round_ in islice(repair_rounds(run, scene, before, siblings, restorer, config), num_rounds):
        after = round_.fit
        repair_views += [(round_.number, camera) for camera in round_.cameras]
        repairs += round_.repairs
    if config.repair.compares_with_photos:
        write_repairs(run.path, repairs)
    write_splat(run.path / "after.ply", after.splat(), file_from_world=scene.file_from_world)
    later = loss_records({"control": control, "after": after}, after_step=before.step)
    write_json(run.path / "history.json", loss_records({"before": before}) + later)

    results = evaluate_arms(
        run,
        capture,
        split,
        {
            arm: read_splat(run.path / f"{arm}.ply", file_from_world=capture.file_from_world).to(device)
            for arm in ("before", "control", "after")
        },
        restorer=restorer,
        restorer_name=RestorerChoice.of(config.restorer).name,
        seed=config.seed,
        num_references=config.repair.num_references,
        video=config.video,
        scene=scene,
        repair_views=repair_views,
        control_again=control_again,
        estimate=estimate_without_tests(run, split, scene, config, steps=before.step),
        validation=validation,
    )
    run.write_provenance(seed=config.seed, device=device, notes=[*list_notes(capture, config), *before.notes, *overlap])
    return results


def _has_spread(folder: Path) -> bool:
    """Whether the results in a folder, if any, have the run-to-run spread, or no test view that it could be of."""
    if not (folder / RESULTS).is_file():
        return True
    results = read_results(folder)
    return results.spread is not None or not results.views
