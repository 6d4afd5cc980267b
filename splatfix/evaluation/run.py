"""Measure one splat on a capture: the figures of a run folder, reproduced from its ``.ply`` alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from splatfix.captures import open_capture
from splatfix.evaluation.evaluate import evaluate_arms
from splatfix.evaluation.results import Results
from splatfix.files import write_json
from splatfix.gaussians import RenderMode, read_splat
from splatfix.process import choose_device
from splatfix.restoration import RestorerChoice, open_restorer
from splatfix.restoration.setting import RestorerSetting
from splatfix.runs import open_run
from splatfix.splats.scene import load_scene
from splatfix.views import read_split


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """An evaluation.

    Attributes:
        size_px: longest side of the images; by default what split.json says, else 320.
        restorer: also measure ``post`` with this restorer; None leaves it out.
        num_references: training photos given to the restorer with each view.
        mode: classic or antialiased; by default what the splat.json beside the splat says, else classic.
        seed: of the restorer.
        device: auto, cpu, cuda or cuda:N.
        video: write a video along a path between and beyond the training cameras.
    """

    size_px: int | None = None
    restorer: RestorerSetting | None = None
    num_references: int = 2
    mode: RenderMode | None = None
    seed: int = 0
    device: str = "auto"
    video: bool = True


def run_evaluate(capture_path: Path, splat_path: Path, split_path: Path, out: Path, config: EvaluateConfig) -> Results:
    """Measure a splat on the test views of a split; ``after`` is the arm that it fills.

    Raises:
        ValueError: the capture, the splat or the split is not usable, or has no test views; the message names it.
    """
    device = choose_device(config.device)
    splat = read_splat(splat_path, mode=config.mode).to(device)
    size_px = config.size_px or read_split(split_path).size_px or 320
    capture = open_capture(capture_path, longest_side_px=size_px)
    split = read_split(split_path, capture)
    if not split.test_ids:
        raise ValueError(f"{split_path}: test_ids is empty; wanted at least one image name to measure on")
    if capture.background is not None:  # the photos are composited over it, so the splat has to be as well
        splat = replace(splat, background=capture.background)
    run = open_run(out, replace(config, mode=splat.mode))
    write_json(run.path / "split.json", {**split.to_json(), "size_px": size_px})
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
        scene=load_scene(capture, split.train_ids, device),
    )
    run.write_provenance(command="evaluate", seed=config.seed, device=device, notes=list(capture.notes))
    return results
