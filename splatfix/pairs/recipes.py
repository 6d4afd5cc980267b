"""Recipes: named and weighted ranges from which the settings of the sparse fits are drawn."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from splatfix.captures.options import MaskChoice, OrientationChoice, PhotoOptions
from splatfix.config import require

Initial = Literal["auto", "points", "triangulated", "stereo", "random"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Ranges of the settings of a sparse fit, and the kind of clean views that its renders are paired with.

    Attributes:
        weight: how often the recipe is used, relative to the other recipes.
        clean: ``photos``: photos that the fit was not trained on; ``renders``: renders of a dense fit of the capture
            (or of its reference splat) at new poses between its cameras.
        cycle: whether to train a second fit on renders of the first at new poses, and pair its renders with photos.
            The photos of the first fit are used too, since the second was trained on none.
        size_px: longest side of the images, in pixels.
        masks: what masks of the photos mark: an ``object``, which is set on white, or pixels to ``ignore``; ``auto``
            takes alpha for an object if all photos have it, and mask files for pixels to ignore.
        orientation: whether photos are turned by the orientation in their EXIF data: ``apply``, ``ignore``, or
            ``auto``, as the width and height of their cameras tell.
        num_train: least and largest number of training photos of a fit.
        num_fits: least and largest number of fits of the same photos, with different seeds. If there are several, both
            the renders of the first and the mean renders of all are paired with the clean views.
        steps: length of the training schedule.
        completed: least and largest share of the schedule after which training stops.
        initial: sources of the initial Gaussians besides random points (`InitializationConfig.sources`); each fit uses
            one of them.
        num_random: least and largest number of random initial points (log-uniform).
        undropped: share of the fits without dropout; the others use the default dropout of a fit.
        growth: share of the fits that add Gaussians whatever their photos share; the others do so as the loop's fits
            do, where photos agree on enough depths (`DensifyConfig.strategy` auto).
        max_gaussians: largest number of Gaussians of a fit that adds some.
        sh_degree: highest degree of the spherical harmonics.
        max_views: largest number of clean views per fit, evenly spread over distance.
        min_coverage: a view is filtered if its render covers less than this share of what training views cover.
        num_references: number of warped training photos stored with each pair.
    """

    weight: float = 1.0
    clean: Literal["photos", "renders"] = "photos"
    cycle: bool = False
    size_px: int = 256
    masks: MaskChoice = "auto"
    orientation: OrientationChoice = "auto"
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

    @property
    def photo_options(self) -> PhotoOptions:
        """How photos are read."""
        return PhotoOptions(masks=self.masks, orientation=self.orientation)


def choose_recipe(recipes: Mapping[str, Recipe], scene: str, fit_index: int, seed: int) -> str:
    """Choose the recipe of a fit, and return its name.

    The choices follow a golden-ratio sequence that starts at a hash of the scene's name and the seed, so that the
    shares of the recipes are close to their weights even for a few fits of one scene.
    """
    start = int.from_bytes(hashlib.sha256(f"{scene}/{seed}".encode()).digest()[:8], "little") / 2**64
    position = (start + fit_index * 0.6180339887498949) % 1 * sum(recipe.weight for recipe in recipes.values())
    for name, recipe in recipes.items():
        position -= recipe.weight
        if position < 0:
            return name
    return next(name for name, recipe in reversed(list(recipes.items())) if recipe.weight > 0)
