"""The steps of a loop as functions: fit, render, repair, retrain, evaluate. ``import splatfix`` gives them.

With the same config they compute what ``splatfix loop`` computes, in memory: no run folder, checkpoints or page
(`loop.run_loop` writes these).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from splatfix.captures import Capture, fetch_photos, read_ahead
from splatfix.depth_models import estimate_depths
from splatfix.evaluation.measure import measure_views, summarize
from splatfix.evaluation.results import ARMS, Summary
from splatfix.flawed import FlawedView
from splatfix.gaussians import Splat
from splatfix.loop import LoopConfig
from splatfix.loop.repaired_views import make_training_views, prepare_repairs
from splatfix.loop.rounds import render_novel_views
from splatfix.process import choose_device, seed_everything
from splatfix.restoration import Repaired, Restorer, RestorerChoice, open_restorer
from splatfix.splats.early_stopping import choose_stop
from splatfix.splats.scene import SparseScene, load_scene, start_fit
from splatfix.splats.train import Fit, advance
from splatfix.views import Split, make_split


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class FittedCapture:
    """A capture, the photos that were chosen from it, and a splat fitted to them.

    Attributes:
        capture: what was fitted.
        split: photos to fit from, and photos to test on.
        config: all settings.
        scene: the photos to fit from, loaded.
        fit: parameters and optimizers, ready to be trained further.
    """

    capture: Capture
    split: Split
    config: LoopConfig
    scene: SparseScene
    fit: Fit

    @property
    def splat(self) -> Splat:
        """The fitted Gaussians, with the mode and the background that they are drawn with."""
        return self.fit.splat()

    def __repr__(self) -> str:
        photos, gaussians = len(self.split.train_ids), len(self.splat.gaussians)
        return f"<FittedCapture {self.capture.name}: {photos} photos, {self.fit.step} steps, {gaussians} Gaussians>"


def fit_capture(capture: Capture, config: LoopConfig | None = None) -> FittedCapture:
    """Fit a splat to a few photos of a capture (``before``).

    Images have the size that the capture was opened with; ``config.views.size_px`` does not change it.

    Raises:
        ValueError: a path instead of a capture; the photos cannot be chosen as the config says, or one cannot be read;
            the message names the field or the file.
    """
    if isinstance(capture, str | Path):
        raise ValueError(f"fit_capture: capture = {str(capture)!r}, a path; wanted open_capture({str(capture)!r})")
    config = config or LoopConfig()
    split = make_split(capture, config.views)
    fetch_photos(capture.view(name) for name in split.train_ids)
    capture = read_ahead(capture, split.test_ids)  # for `evaluate`
    seed_everything(config.seed)
    scene = load_scene(capture, split.train_ids, choose_device(config.device))
    scene = estimate_depths(scene, config.initial.depth_model)
    stop = choose_stop(scene, config.initial, config.fit, config.choose, seed=config.seed)
    fit = start_fit(scene, config.fit, config.initial, seed=config.seed)
    advance(fit, scene.views(), stop.steps - fit.step, seed=config.seed)
    return FittedCapture(capture=capture, split=split, config=config, scene=scene, fit=fit)


def render_flawed(
    fitted: FittedCapture, siblings: Sequence[FittedCapture] = (), *, round_index: int = 0
) -> list[FlawedView]:
    """Render the novel views of a round, with all that a restorer is given of them.

    The renders of ``siblings`` (fits of the same photos with other seeds) are averaged with the fit's own. Views of
    which the fit covers too little are left out, which may be all of them.

    Args:
        fitted: the fit; its config says how many views, and how far outwards the last round steps.
        siblings: each of the views then has a ``spread``, the standard deviation of the renders.
        round_index: index of the round, from 0.
    """
    splats = [fitted.splat, *(sibling.splat for sibling in siblings)]
    return render_novel_views(splats, fitted.scene, fitted.config.repair, round_index)


def repair(
    views: Sequence[FlawedView], restorer: str | Path | RestorerChoice | Restorer = "nafnet", *, seed: int = 0
) -> list[Repaired]:
    """Repair flawed views with a restorer: its name, the folder of a checkpoint, or an object.

    Returns one result per view, in order: the image, and how far each of its pixels can be trusted.

    Raises:
        ValueError: no such restorer; the message lists the known ones.
    """
    if isinstance(restorer, str | Path | RestorerChoice):
        restorer = open_restorer(restorer, device=views[0].rgb.device if views else "cpu")
    return restorer.repair(views, seed=seed)


def retrain(
    fitted: FittedCapture, views: Sequence[FlawedView] = (), repaired: Sequence[Repaired] = ()
) -> FittedCapture:
    """Train a fit for another round: on its photos and on repaired views (``after``), or on photos alone (``control``).

    The given fit stays as it is.

    Raises:
        ValueError: not one repaired view per flawed view.
    """
    if len(views) != len(repaired):
        raise ValueError(
            f"retrain: {len(repaired)} repaired for {len(views)} views; wanted one for each: repair(views), or neither"
        )
    config, scene, fit = fitted.config, fitted.scene, fitted.fit.copy()
    prepared = prepare_repairs(views, repaired, config.repair)
    advance(
        fit,
        scene.views(),
        config.repair.steps,
        seed=config.seed,
        repaired=make_training_views(prepared, config.repair.weight),
        repaired_probability=config.repair.probability,
    )
    return replace(fitted, fit=fit)


def evaluate(arms: Mapping[str, FittedCapture]) -> Summary:
    """Measure fits of the same capture on its test photos: means over all views and per band, and the gain.

    Args:
        arms: the fits as ``before``, ``control`` and ``after``, any of them; the gain needs all three.

    Raises:
        ValueError: no arm, one of another name, or arms that were fitted to different photos.
    """
    known = [arm for arm in ARMS if arm != "post"]  # which is made of images, not of a fit
    if not arms:
        raise ValueError(f"evaluate: no arms; wanted at least one of {', '.join(known)}")
    fitted = next(iter(arms.values()))
    for arm, other in arms.items():
        if arm not in known:
            raise ValueError(f"evaluate: arm {arm!r}; wanted one of {', '.join(known)}")
        if (other.capture.path, other.split) != (fitted.capture.path, fitted.split):
            raise ValueError(f"evaluate: {arm} was fitted to other photos than {next(iter(arms))}; wanted the same")
    splats = {arm: each.splat for arm, each in arms.items()}
    return summarize(measure_views(fitted.capture, fitted.split, splats, reasons={}))
