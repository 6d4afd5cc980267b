"""The recipes that a sparse fit is chosen from."""

from __future__ import annotations

from dataclasses import replace

from splatfix.splats.choose import Recipe
from splatfix.splats.initialise import InitialiseConfig
from splatfix.splats.scene import SparseScene
from splatfix.splats.train import FitConfig


def recipes_for(scene: SparseScene, initial: InitialiseConfig, fit: FitConfig) -> dict[str, Recipe]:
    """Recipes by name, the plain one first: as configured, and with fewer random points."""
    few = replace(initial, num_random=max(initial.num_random // 3, 1))
    return {"as configured": Recipe(initial=initial, fit=fit), "few": Recipe(initial=few, fit=fit)}
