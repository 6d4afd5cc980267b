"""The settings of a sweep."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from splatfix.captures import resolve_capture
from splatfix.config import require
from splatfix.fit import with_absolute_paths
from splatfix.loop import LoopConfig
from splatfix.restoration import absolute_choice
from splatfix.sweep.parameter import Parameter
from splatfix.tracking import TrackingConfig
from splatfix.workers import WorkersConfig

Objective = Literal["gain", "gain_worst", "seconds"]


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """How settings are proposed.

    A trial is proposed from the results of those that are at least ``parallel`` before it, in whatever order they
    ended. So a seed gives the same proposals however long the trials take, and also after an interruption.

    Attributes:
        method: random, grid, tpe (Optuna's tree-structured Parzen estimator) or nsga2 (for several objectives).
        trials: number of trials; null takes 32, or the whole grid.
        seed: of the proposals.
        parallel: trials that may run at once; null takes the number of workers when the sweep starts. The proposals
            depend on it.
        startup: tpe: random trials before it models the results.
        population: nsga2: trials of a generation.
        with_default: make the default config the first trial, if the space contains it.
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
        factor: about one in ``factor`` of the trials that reach a rung continues; rungs are at ``grace * factor**k``.
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
        held_out: folders that no trial runs on; the default and the best config are rerun on them, too.
        seeds: of the loop, instead of loop.seed; every trial runs on each capture with each of these.
        loop: the default config; trials change its searched fields.
        space: searched field of the loop's config -> its range or choice.
        objectives: what is searched for, the most important first: gain (mean over captures and seeds, maximized),
            gain_worst (the smallest of them), seconds (of a loop: fit, siblings, repair, retraining; minimized).
        metric: of the gain, which is ``after`` minus the better of ``before`` and ``control`` of the default config.
        search: how settings are proposed.
        halving: stops trials that fall behind; null runs all of them to the end.
        reruns: number of further seeds with which the default and the best config are rerun at the end.
        keep_splats: keep the splats of all trials; those of the best one are always kept.
        workers: how many trials run at once, and with which resources.
        tracking: in MLflow: a run of the sweep, and a nested one of each trial.
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


def resolve_paths(config: SweepConfig) -> SweepConfig:
    """Make the paths of a config absolute: workers may have other working directories."""

    def resolve_name(name: Any) -> Any:
        return absolute_choice(name) if isinstance(name, str) else name

    space = dict(config.space)
    for name, parameter in space.items():
        if name == "restorer" and parameter.choice is not None:
            parameter = replace(parameter, choice=tuple(resolve_name(choice) for choice in parameter.choice))
        if parameter.when is not None and "restorer" in parameter.when:
            names = parameter.when["restorer"]
            names = [resolve_name(each) for each in names] if isinstance(names, list) else resolve_name(names)
            parameter = replace(parameter, when={**parameter.when, "restorer": names})
        space[name] = parameter
    return replace(
        config,
        captures=tuple(resolve_capture(capture) for capture in config.captures),
        held_out=tuple(resolve_capture(capture) for capture in config.held_out),
        loop=replace(with_absolute_paths(config.loop), restorer=absolute_choice(config.loop.restorer)),
        space=space,
    )
