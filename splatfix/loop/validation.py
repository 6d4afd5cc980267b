"""Rounds of repair, validated on left-out training photos: does the loop help on this capture, and for how many rounds?

Leave-one-out cross-validation of the whole loop (Stone 1974): each of a few training photos is left out of a further
loop at reduced size, whose control and rounds are compared with the photo. Rounds that do harm there are not run on
the fit of all photos. Test photos are never used.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from statistics import fmean

from splatfix.evaluation.validation import LeftOutLoop, Validation, describe_validation
from splatfix.files import read_json, write_json
from splatfix.loop.baselines import fit_control, fit_siblings
from splatfix.loop.config import LoopConfig
from splatfix.loop.rounds import repair_rounds
from splatfix.process import quiet
from splatfix.records import parse_record
from splatfix.restoration import Restorer, RestorerChoice
from splatfix.runs import Run
from splatfix.splats.early_stopping import choose_folds, score_photo, shrink_scene
from splatfix.splats.phases import TrainingPhase, train_phase
from splatfix.splats.scene import SparseScene, fit_identity, start_fit

log = logging.getLogger(__name__)

VALIDATION = "validation"  # folder in that of a run
RECORD = "validation.json"
VALIDATION_FILES = (  # glob patterns
    RECORD,
    *(f"{VALIDATION}/*/{name}" for name in ("*.ply", "splat.json", "checkpoints/*.pt", "rounds/*/*")),
)
MIN_PHOTOS = 4  # from which a fit without one of them resembles that of all


def validate_rounds(
    run: Run, scene: SparseScene, restorer: Restorer, config: LoopConfig, *, steps: int
) -> Validation | None:
    """Run the loop without each of a few training photos, and choose how many rounds to keep.

    Left out are those with the nearest neighbors, so that the others still see the same surfaces. Photos and cameras
    are scaled by ``config.validate.scale``; all other settings are those of the run. Finished loops are kept in
    ``validation.json``, so that an interrupted validation is resumed.

    Args:
        run: takes the record and the checkpoints.
        scene: all training photos.
        restorer: of the run.
        config: of the run.
        steps: of the sparse fit.

    Returns:
        The figures and the number of rounds to keep; None without validation: ``config.validate.photos`` is 0, there
        are fewer than four photos, or the fit starts from a splat that may know all of them.
    """
    reason = why_not_validated(config, num_train=len(scene.cameras))
    if reason is not None:
        if config.validate.photos:
            log.warning("no validation of the rounds: %s", reason)
        return None
    identity = fit_identity(
        scene,
        initial=config.initial,
        fit=config.fit,
        seed=config.seed,
        before=steps,
        restorer=RestorerChoice.of(config.restorer),
        repair=config.repair,
        validate=config.validate,
    )
    indices = choose_folds(scene, config.validate.photos)
    loops = _read_loops(run, identity)
    small = shrink_scene(scene, config.validate.scale)
    with run.stage("validate"):
        for number, index in enumerate(indices, start=1):
            name = scene.cameras[index].name
            if any(loop.photo == name for loop in loops):
                continue
            log.info("loop without %s (%d of %d)", name, number, len(indices))
            loops.append(_run_left_out(run, small, index, restorer, config, steps))
            write_json(run.path / RECORD, {"identity": identity, "loops": [asdict(loop) for loop in loops]})
        shutil.rmtree(run.path / VALIDATION, ignore_errors=True)
    validation = Validation(
        loops=tuple(loops),
        scale=config.validate.scale,
        margin_db=config.validate.margin_db,
        kept_rounds=choose_rounds(loops, margin_db=config.validate.margin_db),
    )
    log.info("%s", describe_validation(validation))
    return validation


def why_not_validated(config: LoopConfig, *, num_train: int) -> str | None:
    """Why the rounds are not validated; None if they are."""
    if not config.validate.photos:
        return "validate.photos = 0"
    if config.initial.start is not None:
        return "the fit starts from a splat, which may know all photos"
    if num_train < MIN_PHOTOS:
        return f"{num_train} training photos; wanted {MIN_PHOTOS} or more"
    return None


def choose_rounds(loops: Sequence[LeftOutLoop], *, margin_db: float) -> int:
    """Choose the number of rounds with the best mean PSNR on the left-out photos.

    Fewer rounds than all of them, or none, must be better by more than ``margin_db``. None stands for the better of
    ``before`` and ``control``.
    """
    num = len(loops[0].rounds)
    arms = [[loop.before for loop in loops], [loop.control for loop in loops]]
    rounds = [fmean(loop.rounds[number] for loop in loops) for number in range(num)]
    means = [max(map(fmean, arms)), *rounds]
    best = max(range(num + 1), key=means.__getitem__)
    return best if means[best] > means[-1] + margin_db else num


def _run_left_out(
    run: Run, small: SparseScene, index: int, restorer: Restorer, config: LoopConfig, steps: int
) -> LeftOutLoop:
    """Run the loop without one photo and measure it there."""
    others = small.leave_out(index)
    inner = Run(run.path / VALIDATION / str(index + 1))
    with quiet("splatfix.splats"):
        before = start_fit(others, config.fit, config.initial, seed=config.seed)
    phase = TrainingPhase(
        name="before",
        title="sparse fit",
        last_step=steps,
        seed=config.seed,
        identity=fit_identity(others, initial=config.initial, fit=config.fit, seed=config.seed, steps=steps),
    )
    train_phase(inner, before, others, phase, checkpoint_seconds=config.checkpoint_seconds)
    with quiet("splatfix.loop.rounds"):
        control = fit_control(inner, others, before, config)
        siblings = fit_siblings(inner, others, before, config)
        rounds = repair_rounds(inner, others, before, siblings, restorer, config)
        scores = [score_photo(round_.fit.splat(), small, index) for round_ in rounds]
    return LeftOutLoop(
        photo=small.cameras[index].name,
        before=score_photo(before.splat(), small, index),
        control=score_photo(control.splat(), small, index),
        rounds=tuple(scores),
    )


def _read_loops(run: Run, identity: str) -> list[LeftOutLoop]:
    """The loops that an earlier process has finished with the same settings."""
    path = run.path / RECORD
    if not path.is_file():
        return []
    tree = read_json(path)
    if not isinstance(tree, dict) or tree.get("identity") != identity:
        return []
    remedy = f"delete {path}"
    return [parse_record(LeftOutLoop, loop, source=str(path), remedy=remedy) for loop in tree.get("loops", [])]
