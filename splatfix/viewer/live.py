"""Watch a fit or a loop while it trains: the splats and repaired views in its checkpoints.

Checkpoints are replaced whole (`files.write_whole`), and are only read here: the run is not disturbed, and no half of a
file is ever seen.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from numpy import ndarray

from splatfix.gaussians import RenderMode
from splatfix.loop.repaired_views import RepairedView
from splatfix.runs import read_run
from splatfix.splats.checkpoints import naming_checkpoint, read_checkpoint
from splatfix.splats.phases import SavedSplat, read_saved_splat
from splatfix.viewer.scene import ShownView

log = logging.getLogger(__name__)

POLL_SECONDS = 2.0
STAGES = re.compile(r"(before|control|sibling_\d+|round_\d+)")  # names of the checkpoints of fits
VIEWS = re.compile(r"views_(\d+)")  # and of repaired views
ORDER = ("before", "control", "sibling", "round")


@dataclass
class RunWatcher:
    """The saved states of a run folder, as far as `poll` has read them.

    Attributes:
        folder: of the run.
        background: RGB behind its splats; None is black.
        saved: by the name of their stage, in the order of training.
        saved_at: when each was saved, in seconds since 1970.
        views: the repaired views.
        newest: name of the stage that was saved last; None if nothing was saved yet.
        is_finished: whether the run has ended.
    """

    folder: Path
    background: Any = None
    saved: dict[str, SavedSplat] = field(default_factory=dict)
    saved_at: dict[str, float] = field(default_factory=dict)
    views: list[ShownView] = field(default_factory=list)
    newest: str | None = None
    is_finished: bool = False
    _seen: dict[str, tuple[int, int, int]] = field(default_factory=dict)

    def poll(self) -> list[str]:
        """Read the checkpoints that have changed; returns the names of their stages."""
        record = _read_record(self.folder) or {}
        mode: RenderMode = record.get("settings", {}).get("fit", {}).get("mode", "classic")
        changed = []
        for path in self._list_changed():
            name = path.stem.replace("_", " ")
            try:
                if match := VIEWS.fullmatch(path.stem):
                    self._add_views(path, int(match[1]))
                else:
                    self.saved[name] = read_saved_splat(path, mode=mode, background=self.background)
                    self.saved_at[name] = self._seen[path.name][0] / 1e9
                    changed.append(name)
            except FileNotFoundError:  # --fresh has just removed it
                self._seen.pop(path.name, None)
            except (OSError, ValueError) as error:
                log.warning("%s", error)
        self.saved = dict(sorted(self.saved.items(), key=lambda item: _order(item[0])))
        self.newest = max(self.saved_at, key=lambda name: (self.saved_at[name], _order(name)), default=None)
        self.is_finished = "finished" in record
        return changed

    def describe(self, now: float) -> str:
        """Describe the run in one line. ``now`` is in seconds since 1970."""
        if self.newest is None:
            return f"{self.folder}: no state saved yet; a run saves one every checkpoint_seconds (30 s by default)"
        state = self.saved[self.newest]
        ago = _format_seconds(max(now - self.saved_at[self.newest], 0))
        end = "the run is finished" if self.is_finished else f"saved {ago} ago"
        return f"{self.newest}: step {state.step:,} after {_format_seconds(state.seconds)} of training; {end}"

    def _list_changed(self) -> list[Path]:
        """List the checkpoints that are new or were replaced since the last call."""
        changed = []
        folder = self.folder / "checkpoints"
        for path in sorted(folder.glob("*.pt")) if folder.is_dir() else ():
            if not (STAGES.fullmatch(path.stem) or VIEWS.fullmatch(path.stem)):
                continue
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            version = status.st_mtime_ns, status.st_size, status.st_ino
            if self._seen.get(path.name) != version:
                self._seen[path.name] = version
                changed.append(path)
        return changed

    def _add_views(self, path: Path, number: int) -> None:
        import torch

        state = read_checkpoint(path, None, torch.device("cpu"))
        with naming_checkpoint(path):
            views = [RepairedView.from_state(view) for view in state["views"]]
        others = [view for view in self.views if view.round != number]
        self.views = [
            *others,
            *(ShownView(view.camera, "repaired", partial(_to_picture, view), number) for view in views),
        ]


def wait_for_run(folder: Path, say: Callable[[str], None]) -> None:
    """Wait until a run has begun in a folder: until it has chosen its photos."""
    is_told = False
    while _read_record(folder) is None or not (folder / "split.json").is_file():
        if not is_told:
            say(f"{folder}: nothing there yet; waiting for a fit, loop or demo to begin in it (stop with Ctrl-C)")
            is_told = True
        time.sleep(POLL_SECONDS)


def _read_record(folder: Path) -> dict[str, Any] | None:
    try:
        return read_run(folder)
    except (OSError, ValueError):
        return None


def _to_picture(view: RepairedView) -> ndarray:
    return (view.rgb.float() / 255).numpy()


def _order(name: str) -> tuple[int, int]:
    kind, _, number = name.partition(" ")
    return ORDER.index(kind), int(number or 0)


def _format_seconds(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole} s" if whole < 100 else f"{whole // 60} min {whole % 60} s"
