"""The recipes that a sparse fit is chosen from."""

from __future__ import annotations

from dataclasses import replace

from splatfix.splats.choose import Recipe
from splatfix.splats.initialise import InitialiseConfig, Source
from splatfix.splats.scene import SparseScene
from splatfix.splats.train import FitConfig


def recipes_for(scene: SparseScene, initial: InitialiseConfig, fit: FitConfig) -> dict[str, Recipe]:
    """Recipes by name. Where the sources are left to ``auto``, dense stereo points compete with sparse ones."""
    recipes = {"as configured": Recipe(initial=initial, fit=fit)}
    if initial.sources != ("auto",) or len(scene.cameras) < 2:
        return recipes
    known = scene.points is not None and len(scene.points) >= initial.min_points
    sparse: tuple[Source, ...] = ("points", "random") if known else ("points", "triangulated", "random")
    few = replace(initial, sources=sparse, num_random=initial.num_random_wide)
    many = replace(initial, sources=sparse, num_random=5 * initial.num_random_wide)
    return {
        "stereo": Recipe(initial=initial, fit=fit),
        "few points": Recipe(initial=few, fit=fit),
        "many points": Recipe(initial=many, fit=fit),
    }
