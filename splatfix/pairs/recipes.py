"""Recipes: how the sparse fits behind the pairs differ from one another, as named and weighted variants."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from splatfix.config import require

Initial = Literal["auto", "points", "triangulated", "stereo", "random"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A kind of sparse fit, and what its renders are paired with.

    Attributes:
        weight: how often it is made, relative to the other recipes.
        clean: ``photos``: the photos that the fit has not seen; ``renders``: a dense fit of the capture (or the
            reference splat that the capture is), drawn at new poses between its cameras.
        cycle: fit again, from renders of the first fit at new poses, and pair that with the photos, of which it has
            seen none (the first fit's own among them).
        size_px: longest side of the images, in pixels.
        num_train: fewest and most photos of a fit.
        num_fits: fewest and most fits of the same photos, which differ in their seeds. Where there are several, the
            first alone and the mean of all are paired with the photos.
        steps: length of the training schedule.
        completed: least and largest share of the schedule that is gone through.
        initial: where the Gaussians start (`InitializationConfig.sources`), random points aside; each fit takes one of
            them.
        num_random: fewest and most random points among the initial ones (log-uniform).
        undropped: share of the fits without dropout; the others have the dropout of a fit's defaults.
        growth: share of the fits that grow.
        max_gaussians: cap of those that do.
        sh_degree: highest spherical harmonics.
        max_views: clean views per fit, spread evenly over distance.
        min_coverage: a view is left out where the render covers less than this share of what training views cover.
        num_references: warped training photos stored with each pair.
    """

    weight: float = 1.0
    clean: Literal["photos", "renders"] = "photos"
    cycle: bool = False
    size_px: int = 256
    num_train: tuple[int, int] = (3, 9)
    num_fits: tuple[int, int] = (1, 3)
    steps: int = 2400
    completed: tuple[float, float] = (0.25, 1.0)
    initial: tuple[Initial, ...] = ("auto",)
    num_random: tuple[int, int] = (500, 4000)
    undropped: float = 0.25
    growth: float = 0.15
    max_gaussians: int = 15_000
    sh_degree: int = 1
    max_views: int = 14
    min_coverage: float = 0.4
    num_references: int = 2

    def __post_init__(self) -> None:
        require(self.weight >= 0, "weight", self.weight, "a number that is not negative")
        require(self.size_px >= 16, "size_px", self.size_px, "at least 16 pixels")
        require(self.steps >= 1, "steps", self.steps, "at least 1 step")
        require(bool(self.initial), "initial", list(self.initial), "at least one of auto, points, random, ...")
        require(0 <= self.sh_degree <= 3, "sh_degree", self.sh_degree, "0 to 3")
        require(self.max_gaussians >= 1, "max_gaussians", self.max_gaussians, "at least 1")
        require(0 <= self.num_references <= 10, "num_references", self.num_references, "0 to 10")
        require(self.max_views >= 1, "max_views", self.max_views, "at least 1 view")
        for name, least in (("num_train", 1), ("num_fits", 1), ("num_random", 0)):
            low, high = getattr(self, name)
            require(least <= low <= high, name, [low, high], f"two whole numbers, {least} <= first <= second")
        low, high = self.completed
        require(0 < low <= high <= 1, "completed", [low, high], "two shares, 0 < first <= second <= 1")
        for name in ("undropped", "growth", "min_coverage"):
            require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "a share from 0 to 1")
        require(not (self.cycle and self.clean == "renders"), "cycle", True, "false with clean: renders")


def recipe_of(recipes: Mapping[str, Recipe], scene: str, fit_index: int, seed: int) -> str:
    """The name of the recipe of a scene's fit.

    Fits of a scene step through the recipes evenly (by the golden ratio, from a start that the scene's name gives), so
    that the shares of few fits are near the weights.
    """
    start = int.from_bytes(hashlib.sha256(f"{scene}/{seed}".encode()).digest()[:8], "little") / 2**64
    place = (start + fit_index * 0.6180339887498949) % 1 * sum(recipe.weight for recipe in recipes.values())
    for name, recipe in recipes.items():
        place -= recipe.weight
        if place < 0:
            return name
    return next(name for name, recipe in reversed(list(recipes.items())) if recipe.weight > 0)
