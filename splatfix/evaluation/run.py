"""Measure one splat on a capture: the figures of a run folder, reproduced from its ``.ply`` alone."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

from splatfix.captures import Capture, PhotoOptions, draw_on, fetch_photos, open_capture, read_ahead, resolve_capture
from splatfix.captures.options import MaskChoice, OrientationChoice
from splatfix.evaluation.evaluate import evaluate_arms
from splatfix.evaluation.layout import EVALUATION_FILES, VIDEO
from splatfix.evaluation.results import Results, read_results
from splatfix.files import write_json
from splatfix.gaussians import RenderMode, Splat, make_splat, read_ply_with_notes
from splatfix.ply import check_ply
from splatfix.process import choose_device
from splatfix.restoration import RestorerChoice, open_restorer, pin_choice
from splatfix.restoration.identity import restorer_input
from splatfix.restoration.setting import RestorerSetting
from splatfix.runs import Input, files_input, open_run
from splatfix.splats.scene import fit_identity, load_scene
from splatfix.splats.start import find_misfit
from splatfix.views import Split, read_split

log = logging.getLogger(__name__)

MAY_CHANGE = ("device", "video")  # settings that decide no result: a resumed run may change them


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """An evaluation.

    Attributes:
        size_px: longest side of the images; by default what split.json says, else 320.
        restorer: also measure ``post``: each render repaired by this restorer; None leaves it out.
        num_references: training photos given to the restorer with each view.
        mode: how the splat is drawn; by default what the splat.json beside the splat says, else classic.
        masks: what masks of the photos mark: an ``object``, which is set on white, or pixels to ``ignore``; by default
            what split.json says, else ``auto``: alpha for an object if all photos have it, mask files for pixels to
            ignore.
        orientation: whether photos are turned by the orientation in their EXIF data: ``apply``, ``ignore``, or
            ``auto``, as the width and height of their cameras tell.
        seed: seed of the restorer's random choices.
        device: auto, cpu, cuda or cuda:N.
        video: write a video along a path between and beyond the training cameras.
    """

    size_px: int | None = None
    restorer: RestorerSetting | None = None
    num_references: int = 2
    mode: RenderMode | None = None
    masks: MaskChoice = "auto"
    orientation: OrientationChoice = "auto"
    seed: int = 0
    device: str = "auto"
    video: bool = True

    @property
    def photo_options(self) -> PhotoOptions:
        """How photos are read."""
        return PhotoOptions(masks=self.masks, orientation=self.orientation)


def run_evaluate(
    capture_path: str | Path,
    splat_path: str | Path,
    split_path: str | Path,
    out: str | Path,
    config: EvaluateConfig,
    *,
    fresh: bool = False,
) -> Results:
    """Measure a splat on the test views of a split; ``after`` is the arm that it fills.

    A finished evaluation in the folder is returned as it is; ``fresh`` starts over.

    Raises:
        ValueError: the capture, the splat or the split is not usable, or has no test views, or the folder holds
            another run; the message names it.
    """
    device = choose_device(config.device)
    if config.restorer is not None:
        config = replace(config, restorer=pin_choice(config.restorer))
    check_ply(Path(splat_path))  # at once: opening a capture takes time
    given = read_split(split_path)
    size_px = config.size_px or given.size_px or 320
    config = replace(config, masks=given.masks if config.masks == "auto" else config.masks)
    capture = open_capture(capture_path, longest_side_px=size_px, options=config.photo_options)
    split = replace(read_split(split_path, capture), size_px=size_px, masks=config.masks)
    gaussians, splat_notes = read_ply_with_notes(splat_path, file_from_world=capture.file_from_world)
    splat = make_splat(splat_path, gaussians, mode=config.mode).to(device)
    if not split.test_ids:
        raise ValueError(f"{split_path}: test_ids is empty; wanted at least one image name to measure on")
    if capture.background is not None:  # the photos are composited over it, so the splat has to be as well
        splat = replace(splat, background=capture.background)
    fetch_photos(capture.view(name) for name in (*split.train_ids, *split.test_ids))
    capture = draw_on(read_ahead(capture, split.test_ids), device, (*split.train_ids, *split.test_ids))
    scene = load_scene(capture, split.train_ids, device)
    digest = fit_identity(scene, test_ids=split.test_ids)
    run = open_run(
        out,
        replace(config, mode=splat.mode),
        command="evaluate",
        inputs={
            "capture": Input(path=resolve_capture(capture_path), digest=digest),
            "splat": files_input(splat_path, [Path(splat_path)]),
            **restorer_input(config.restorer),
        },
        may_change=MAY_CHANGE,
        files=EVALUATION_FILES,
        is_complete=not config.video or (Path(out) / VIDEO).is_file(),
        fresh=fresh,
    )
    if run.is_finished:
        log.info("%s: this run is finished", run.path)
        return read_results(run.path)
    if capture.splat is not None:
        run.record["rendered_from"] = capture.splat.name
    notes = [*capture.notes, *splat_notes]
    for note in notes:
        log.info("%s: %s", capture.name, note)
    write_json(run.path / "split.json", split.to_json())
    notes += _warn_of_misfit(capture, split, splat, Path(splat_path))
    results = evaluate_arms(
        run,
        capture,
        split,
        {"after": splat},
        restorer=None if config.restorer is None else open_restorer(config.restorer, device=device),
        restorer_name=None if config.restorer is None else RestorerChoice.of(config.restorer).name,
        seed=config.seed,
        num_references=config.num_references,
        video=config.video,
        scene=scene,
    )
    run.write_provenance(seed=config.seed, device=device, notes=notes)
    return results


def _warn_of_misfit(capture: Capture, split: Split, splat: Splat, path: Path) -> list[str]:
    """Warn of a splat that is not in the world of the capture; returns the warning as a list of one note, or of none.

    A poor splat may be unlike the test photos, but is like those that it was trained on.
    """
    training, tests = ([capture.view(name) for name in names] for names in (split.train_ids, split.test_ids))
    misfit = find_misfit(splat, tests)
    if misfit is None or find_misfit(splat, training) is None:
        return []
    log.warning("%s: %s", path, misfit)
    return [f"{path.name}: {misfit}"]
