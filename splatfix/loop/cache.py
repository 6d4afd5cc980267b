"""Fits without repaired views that several runs share: trained once, and found again by their content."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from splatfix.loop.baselines import baseline_steps, sibling_seeds
from splatfix.loop.config import LoopConfig
from splatfix.runs import Run
from splatfix.splats.phases import TrainingPhase, checkpoint_path, train_phase
from splatfix.splats.scene import SparseScene, fit_identity, load_fit, start_fit
from splatfix.splats.train import Fit, scene_scale

MAX_STOPS = 8  # of one fit; with Adam's moments each is three times the size of the splat


@dataclass(frozen=True, eq=False)
class SharedFits:
    """Fits without repaired views, in a folder that several processes may use at once.

    Photos, settings and seed determine such a fit, and what happens at a step does not depend on how many follow: so
    the sparse fit, the control and the siblings of all runs are stops along the same few fits, and each stretch is
    trained once. Two processes that need the same one at the same time both train it, and write the same file. Of very
    many stops some are deleted: they can be trained again from the one before.

    Attributes:
        folder: where the fits are kept.
        run: its folder takes the checkpoint of the fit that is being trained.
        scene: the photos.
        config: settings of the fits.
    """

    folder: Path
    run: Run
    scene: SparseScene
    config: LoopConfig

    def before(self, steps: int) -> Fit:
        """The sparse fit after so many steps."""
        return self._fit(self.config.seed, steps)

    def control(self, sparse_steps: int) -> Fit:
        """The control of the sparse fit with so many steps."""
        return self._fit(self.config.seed, baseline_steps(self.config, sparse_steps))

    def siblings(self, sparse_steps: int) -> list[Fit]:
        """The siblings of the sparse fit with so many steps."""
        last_step = baseline_steps(self.config, sparse_steps)
        return [self._fit(seed, last_step) for seed in sibling_seeds(self.config)]

    def _fit(self, seed: int, step: int) -> Fit:
        """Continue the fit of this seed from its last stop up to a step, if that is not a stop yet."""
        scene, config = self.scene, self.config
        identity = fit_identity(scene, initial=config.initial, fit=config.fit, seed=seed)
        folder = self.folder / identity
        start = time.monotonic()
        fit = self._read_stop(folder, identity, step)
        if fit is None:
            fit = start_fit(scene, config.fit, config.initial, seed=seed)
            fit.seconds = time.monotonic() - start
        if fit.step < step:
            phase = TrainingPhase(
                name=f"plain_{seed}_{step}",
                title=f"plain fit, seed {seed}",
                last_step=step,
                seed=seed,
                identity=identity,
            )
            train_phase(self.run, fit, scene, phase, checkpoint_seconds=config.checkpoint_seconds)
            fit.save(folder / f"{step}.pt", identity)
            checkpoint_path(self.run, phase.name).unlink(missing_ok=True)
            delete_excess_stops(folder)
        return fit

    def _read_stop(self, folder: Path, identity: str, step: int) -> Fit | None:
        """Read the last stop up to a step; None where there is none."""
        scene = self.scene
        for stop in reversed([stop for stop in list_stops(folder) if stop <= step]):
            path = folder / f"{stop}.pt"
            try:
                return load_fit(
                    path,
                    identity,
                    self.config.fit,
                    scene_scale=scene_scale(scene.cameras, scene.depth),
                    background=scene.background,
                    device=scene.photos[0].device,
                )
            except ValueError:
                if path.exists():  # else another process has just deleted it
                    raise
        return None


def list_stops(folder: Path) -> list[int]:
    """The steps at which a fit is kept, in order."""
    return sorted(int(path.stem) for path in folder.glob("*.pt") if path.stem.isdigit())


def delete_excess_stops(folder: Path) -> None:
    """Delete the stops that are the quickest to train again, but not the first one, which every run starts from."""
    stops = list_stops(folder)
    while len(stops) > MAX_STOPS:
        gaps = [(after - before, after) for before, after in pairwise(stops)]
        _, excess = min(gaps)
        stops.remove(excess)
        (folder / f"{excess}.pt").unlink(missing_ok=True)
