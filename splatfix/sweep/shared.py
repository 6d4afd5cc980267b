"""What the trials of a sweep share: plain fits of the same photos, computed once and found again by their content."""

from __future__ import annotations

import time
from pathlib import Path

from splatfix.fit import FitRunConfig, Stage, train_stage
from splatfix.runs import Run, read_json, write_json
from splatfix.splats.scene import SparseScene, fit_identity, start_fit
from splatfix.splats.train import Fit, load_fit, scene_scale


class SharedFits:
    """Fits without repaired views, in a folder that several processes may use at once.

    A plain fit is fixed by photos, settings and seed, and what happens at a step does not depend on how many follow:
    so the sparse fit, the control and the siblings of all trials are stops along the same few fits, and each stretch
    is trained once. Two processes that need the same one at the same time both train it, and write the same file.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = Path(folder)

    def at(self, run: Run, scene: SparseScene, config: FitRunConfig, *, seed: int, step: int) -> tuple[Fit, float]:
        """The fit after so many steps, and the seconds that they take from the first one on.

        ``run`` takes the checkpoints of what is being trained.
        """
        identity = fit_identity(scene, config.initial, config.fit, seed)
        folder = self._folder / identity
        held = sorted(int(path.stem) for path in folder.glob("*.pt") if path.stem.isdigit())
        nearest = max((stop for stop in held if stop <= step), default=None)
        begun, spent = time.monotonic(), 0.0
        if nearest is None:
            fit = start_fit(scene, config.fit, config.initial, seed=seed)
        else:
            scale = scene_scale(scene.cameras, scene.depth)
            fit = load_fit(folder / f"{nearest}.pt", identity, config.fit, scale, scene.photos[0].device)
            spent = float(read_json(folder / f"{nearest}.json")["seconds"])
        if nearest == step:
            return fit, spent
        stage = Stage(f"plain_{seed}_{step}", f"plain fit, seed {seed}", step, seed, identity)
        train_stage(run, fit, scene, stage, config, resume=True)
        spent += time.monotonic() - begun
        write_json(folder / f"{step}.json", {"seconds": round(spent, 3)})
        fit.save(folder / f"{step}.pt", identity)
        (run.path / "checkpoints" / f"{stage.name}.pt").unlink(missing_ok=True)
        return fit, spent
