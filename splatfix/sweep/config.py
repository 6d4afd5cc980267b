"""The settings of a sweep."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from splatfix.config import require
from splatfix.loop import LoopConfig
from splatfix.sweep.space import Parameter
from splatfix.tracking import TrackingConfig
from splatfix.workers import WorkersConfig

Objective = Literal["gain", "gain_worst", "seconds"]


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """How settings are proposed.

    A trial is proposed from the results of those that are at least ``parallel`` before it, whichever ended first, so
    that a seed gives the same proposals however long the trials take and wherever a sweep is broken off.

    Attributes:
        method: random, grid, tpe (Optuna's tree-structured Parzen estimator) or nsga2 (for several objectives).
        trials: how many; null takes 32, or the whole grid.
        seed: of the proposals.
        parallel: trials that may be under way at once; null takes as many as there are workers when the sweep begins.
            It is part of what the proposals follow.
        startup: tpe: trials at random before it begins to model.
        population: nsga2: trials of a generation.
        with_default: the first trial is the default config, where it lies in the space.
    """

    method: Literal["random", "grid", "tpe", "nsga2"] = "tpe"
    trials: int | None = None
    seed: int = 0
    parallel: int | None = None
    startup: int = 8
    population: int = 12
    with_default: bool = True

    def __post_init__(self) -> None:
        require(self.trials is None or self.trials >= 1, "search.trials", self.trials, "at least 1, or null")
        require(self.parallel is None or self.parallel >= 1, "search.parallel", self.parallel, "at least 1, or null")
        require(self.startup >= 1, "search.startup", self.startup, "at least 1")
        require(self.population >= 2, "search.population", self.population, "at least 2")


@dataclass(frozen=True, kw_only=True)
class HalvingConfig:
    """Asynchronous successive halving (ASHA, Li et al. 2020) on the loop's rounds.

    Attributes:
        grace: rounds that every trial gets.
        factor: of the trials that reached a rung, about one in so many goes on; the rungs are ``grace * factor**k``.
    """

    grace: int = 1
    factor: float = 3.0

    def __post_init__(self) -> None:
        require(self.grace >= 1, "halving.grace", self.grace, "at least 1 round")
        require(self.factor > 1, "halving.factor", self.factor, "above 1")


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """A search over the loop's config.

    Attributes:
        captures: folders that every trial runs on.
        held_out: folders that no trial sees: the default and the best config are rerun on them, too.
        seeds: of the loop, in place of its own; every trial runs on each capture with each of these.
        loop: the default config, from which trials depart.
        space: field of the loop's config -> what it may be.
        objectives: what is searched for, the first one first: gain (mean over captures and seeds, more is better),
            gain_worst (of the worst of them), seconds (of a loop: fit, siblings, repair, retraining; less is better).
        metric: of the gain, which is ``after`` minus the better of ``before`` and ``control`` of the default config.
        search: how settings are proposed.
        halving: stops trials that fall behind; null lets all of them end.
        reruns: further seeds with which the default and the best config are rerun at the end, on every capture.
        keep_splats: whether trials keep their splats; those of the best one always stay.
        workers: who runs the trials.
        tracking: in MLflow: a run of the sweep, and one of each trial within it.
    """

    captures: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    loop: LoopConfig = field(default_factory=LoopConfig)
    space: dict[str, Parameter] = field(default_factory=dict)
    objectives: tuple[Objective, ...] = ("gain",)
    metric: Literal["psnr", "ssim"] = "psnr"
    search: SearchConfig = field(default_factory=SearchConfig)
    halving: HalvingConfig | None = None
    reruns: int = 3
    keep_splats: bool = True
    workers: WorkersConfig = field(default_factory=WorkersConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

    def __post_init__(self) -> None:
        require(len(set(self.seeds)) == len(self.seeds) >= 1, "seeds", list(self.seeds), "at least one, each once")
        require(self.reruns >= 0, "reruns", self.reruns, "0 or more")
        objectives = list(self.objectives)
        require(len(set(objectives)) == len(objectives) >= 1, "objectives", objectives, "at least one, each once")
        require(objectives[0] != "seconds", "objectives", objectives, "gain or gain_worst as the first one")
        several, method = len(objectives) > 1, self.search.method
        require(not several or self.halving is None, "halving", "set", "null with several objectives")
        require(not several or method != "tpe", "search.method", method, "nsga2, random or grid where several")
        require(several or method != "nsga2", "objectives", objectives, "at least two for nsga2, like [gain, seconds]")
