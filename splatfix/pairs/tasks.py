"""Which fits there are to make: a stream of tasks that follows from the captures and the settings alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from splatfix.pairs.recipes import Recipe, recipe_of
from splatfix.pairs.sources import Source


@dataclass(frozen=True)
class Task:
    """A dense fit of a capture, or a sparse fit and its pairs.

    Attributes:
        kind: which of these.
        source: the capture.
        fit_index: number of the fit within the capture.
        recipe: name of its recipe; empty for a dense fit.
        after: the task (by stem) that must be done before this one.
    """

    kind: Literal["dense", "pairs"]
    source: Source
    fit_index: int = 0
    recipe: str = ""
    after: str | None = None

    @property
    def stem(self) -> str:
        """Names the task, and begins the names of all files that it leaves."""
        return f"{self.source.name}-dense" if self.kind == "dense" else f"{self.source.name}-f{self.fit_index:03d}"


def plan_tasks(
    sources: Sequence[Source], recipes: Mapping[str, Recipe], fits_per_capture: int, seed: int
) -> Iterator[Task]:
    """All tasks, capture by capture; the dense fit of a capture before the fits whose clean views it draws."""
    for source in sources:
        names = [recipe_of(recipes, source.name, index, seed) for index in range(fits_per_capture)]
        dense = Task("dense", source) if any(recipes[name].clean == "renders" for name in names) else None
        if dense is not None:
            yield dense
        for index, name in enumerate(names):
            needs_dense = dense is not None and recipes[name].clean == "renders"
            yield Task("pairs", source, index, name, dense.stem if dense is not None and needs_dense else None)
