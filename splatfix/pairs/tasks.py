"""Plan the tasks of a generation; the captures and the settings alone determine them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from splatfix.captures import is_procedural
from splatfix.pairs.recipes import Recipe, choose_recipe
from splatfix.pairs.sources import Source


@dataclass(frozen=True)
class Task:
    """One dense fit of a capture, or one sparse fit and its pairs.

    Attributes:
        kind: ``dense`` for a dense fit, ``pairs`` for a sparse fit and its pairs.
        source: the capture.
        fit_index: number of the fit within the capture.
        recipe: name of its recipe; empty for a dense fit.
        after: stem of the task that must be done before this one; None if it can start at once.
    """

    kind: Literal["dense", "pairs"]
    source: Source
    fit_index: int = 0
    recipe: str = ""
    after: str | None = None

    @property
    def stem(self) -> str:
        """Name of the task, with which the names of all its files begin."""
        return f"{self.source.name}-dense" if self.kind == "dense" else f"{self.source.name}-f{self.fit_index:03d}"


def plan_tasks(
    sources: Sequence[Source], recipes: Mapping[str, Recipe], fits_per_capture: int, seed: int
) -> Iterator[Task]:
    """Yield all tasks, capture by capture; the dense fit of a capture comes before the fits that need it.

    The photos of procedural scenes are exact, so they take the recipes alone that need no dense fit.

    Raises:
        ValueError: a procedural scene, and no recipe that it can take.
    """
    exact = {name: recipe for name, recipe in recipes.items() if recipe.clean == "photos" and recipe.weight > 0}
    for source in sources:
        if is_procedural(source.url) and not exact:
            raise ValueError(f"{source.url}: no recipe has clean: photos, which procedural scenes need; add one")
        usable = exact if is_procedural(source.url) else recipes
        names = [choose_recipe(usable, source.name, index, seed) for index in range(fits_per_capture)]
        dense = Task("dense", source) if any(recipes[name].clean == "renders" for name in names) else None
        if dense is not None:
            yield dense
        for index, name in enumerate(names):
            needs_dense = dense is not None and recipes[name].clean == "renders"
            yield Task("pairs", source, index, name, dense.stem if dense is not None and needs_dense else None)
