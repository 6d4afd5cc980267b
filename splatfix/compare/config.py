"""The settings of a comparison."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from splatfix.captures import resolve_capture
from splatfix.config import require
from splatfix.fit import with_absolute_paths
from splatfix.loop import LoopConfig
from splatfix.restoration import absolute_choice
from splatfix.restoration.setting import RestorerSettings
from splatfix.tracking import TrackingConfig
from splatfix.workers import WorkersConfig


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Several restorers on one or several captures.

    Attributes:
        captures: folders of posed photos, or 3DGS .ply files.
        restorers: names or checkpoint folders, with options where given: {name: flux-fill, options: {steps: 20}}.
        seeds: of the loop, instead of loop.seed; each restorer runs on each capture with each of these.
        loop: of every restorer; its own restorer and seed are not used.
        path_frames: frames along a path through the training cameras, for the drift from frame to frame; 0 leaves
            that out.
        workers: how many restorers run at once, and with which resources.
        tracking: in MLflow: a run of the comparison, and a nested one of each restorer.
    """

    captures: tuple[str, ...] = ()
    restorers: RestorerSettings = ("identity", "classical", "warp", "nafnet")
    seeds: tuple[int, ...] = (0,)
    loop: LoopConfig = field(default_factory=LoopConfig)
    path_frames: int = 16
    workers: WorkersConfig = field(default_factory=WorkersConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

    def __post_init__(self) -> None:
        require(len(self.restorers) >= 1, "restorers", list(self.restorers), "at least one")
        require(len(set(self.seeds)) == len(self.seeds) >= 1, "seeds", list(self.seeds), "at least one, each once")
        require(self.path_frames == 0 or self.path_frames >= 2, "path_frames", self.path_frames, "2 or more, or 0")


def resolve_paths(config: CompareConfig) -> CompareConfig:
    """Make the paths of a config absolute: workers may have other working directories."""
    restorers = tuple(absolute_choice(choice) for choice in config.restorers)
    captures = tuple(resolve_capture(capture) for capture in config.captures)
    return replace(config, captures=captures, restorers=restorers, loop=with_absolute_paths(config.loop))
