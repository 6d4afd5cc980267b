"""What the trials of a sweep share: plain fits of the same photos, computed once and found again by their content."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path

from splatfix.fit import FitRunConfig, Stage, train_stage
from splatfix.runs import Run
from splatfix.splats.scene import SparseScene, fit_identity, start_fit
from splatfix.splats.train import Fit, load_fit, scene_scale

MAX_STOPS = 8  # of one fit; with Adam's moments each is three times the size of the splat


class SharedFits:
    """Fits without repaired views, in a folder that several processes may use at once.

    A plain fit is fixed by photos, settings and seed, and what happens at a step does not depend on how many follow:
    so the sparse fit, the control and the siblings of all trials are stops along the same few fits, and each stretch
    is trained once. Two processes that need the same one at the same time both train it, and write the same file.
    Of very many stops some are dropped: they can be trained again from the one before.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = Path(folder)

    def at(self, run: Run, scene: SparseScene, config: FitRunConfig, *, seed: int, step: int) -> Fit:
        """The fit after so many steps; ``run`` takes the checkpoints of what is being trained."""
        identity = fit_identity(scene, initial=config.initial, fit=config.fit, seed=seed)
        folder = self._folder / identity
        begun = time.monotonic()
        fit = self._nearest(folder, identity, scene, config, step)
        if fit is None:
            fit = start_fit(scene, config.fit, config.initial, seed=seed)
            fit.seconds = time.monotonic() - begun
        if fit.step < step:
            stage = Stage(f"plain_{seed}_{step}", f"plain fit, seed {seed}", step, seed, identity)
            train_stage(run, fit, scene, stage, config, resume=True)
            fit.save(folder / f"{step}.pt", identity)
            (run.path / "checkpoints" / f"{stage.name}.pt").unlink(missing_ok=True)
            _thin(folder)
        return fit

    def _nearest(self, folder: Path, identity: str, scene: SparseScene, config: FitRunConfig, step: int) -> Fit | None:
        """The last stop up to a step; None where there is none."""
        for stop in reversed([stop for stop in _stops(folder) if stop <= step]):
            path = folder / f"{stop}.pt"
            try:
                return load_fit(
                    path,
                    identity,
                    config.fit,
                    scene_scale=scene_scale(scene.cameras, scene.depth),
                    background=scene.background,
                    device=scene.photos[0].device,
                )
            except ValueError:
                if path.exists():
                    raise
        return None


def _stops(folder: Path) -> list[int]:
    return sorted(int(path.stem) for path in folder.glob("*.pt") if path.stem.isdigit())


def _thin(folder: Path) -> None:
    """Drop the stops that are the quickest to train again, but not the first one, which every trial starts from."""
    stops = _stops(folder)
    while len(stops) > MAX_STOPS:
        gaps = [(after - before, after) for before, after in pairwise(stops)]
        _, dropped = min(gaps)
        stops.remove(dropped)
        (folder / f"{dropped}.pt").unlink(missing_ok=True)
