"""One worker of a generation: opens captures, fits, pairs and commits. It lives in a process of its own, or in ours.

What is slow to start is paid once in each: the kernels, a CUDA context, the capture that several fits share. While one
task is worked on, the photos of the next one's capture are read.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from splatfix import storage
from splatfix.captures import Capture, View
from splatfix.captures.capture import Photo
from splatfix.gaussians import Splat, read_ply, write_ply
from splatfix.pairs.ground_truth import DenseConfig, Truth, fit_densely, reference_splat
from splatfix.pairs.index import SUFFIX, CommittedFit, commit_fit, read_fit
from splatfix.pairs.make import make_pairs
from splatfix.pairs.recipes import Recipe
from splatfix.pairs.sources import Source, clear_rooms, make_room
from splatfix.pairs.tasks import Task
from splatfix.process import choose_device

KEPT_CAPTURES = 2  # the one at work, and the next
MAX_KEPT_BYTES = 2**28  # of a capture's photos; the others are read when they are needed
FINGERPRINT_BYTES = 65536


@dataclass(frozen=True)
class WorkerSettings:
    """What a worker needs to know, besides its tasks."""

    out: str
    seed: int
    device: str
    recipes: Mapping[str, Recipe]
    dense: DenseConfig
    samples_per_shard: int = 64


@dataclass(frozen=True)
class Committed:
    """What a worker answers: the fit as it stands in the output, and whether this task made it."""

    fit: CommittedFit
    made: bool


class PairWorker:
    """Does dense fits and sparse fits with their pairs; each ends with a commit."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.settings = settings
        self.device = choose_device(settings.device)
        self._captures: OrderedDict[tuple[Source, int], _Opened] = OrderedDict()
        self._truth_of: tuple[str, Truth] | None = None
        clear_rooms()

    def run(self, task: Task, upcoming: Task | None) -> Committed:
        """Do a task, and prepare the upcoming one meanwhile.

        Raises:
            ValueError: the capture cannot be used; the message says why.
        """
        if storage.exists(storage.join(self.settings.out, task.stem + SUFFIX)):  # by another driver, or a lost answer
            return Committed(read_fit(self.settings.out, task.stem), False)
        opened = self._opened(task)
        if upcoming is not None:
            self._opened(upcoming)
        start = time.perf_counter()
        try:
            capture = opened.wait()
        except BaseException:
            self._captures = OrderedDict((k, v) for k, v in self._captures.items() if v is not opened)
            raise
        seconds = {"wait for photos": time.perf_counter() - start}
        shared = {
            "kind": task.kind,
            "scene": task.source.name,
            "capture": task.source.url,
            "group": task.source.group,
            "source": capture.format,
            "fingerprint": opened.fingerprint,
            "seed": self.settings.seed,
        }
        if task.kind == "dense":
            return self._dense(task, capture, shared, seconds)
        recipe = self.settings.recipes[task.recipe]
        shared |= {"recipe": task.recipe, "fit_index": task.fit_index}
        truth = self._truth(task, capture) if recipe.clean == "renders" else None
        least = self.settings.dense.min_psnr
        if truth is not None and truth.psnr is not None and truth.psnr < least:
            why = f"the dense fit reaches {truth.psnr:.1f} dB on unseen photos, less than dense.min_psnr = {least:g}"
            return self._commit(task, [], shared | {"skipped": why, "seconds": seconds})
        made = make_pairs(
            capture,
            task.fit_index,
            seed=self.settings.seed,
            recipe=recipe,
            recipe_name=task.recipe,
            device=self.device,
            group=task.source.group,
            truth=truth,
        )
        record = shared | made.counts() | {"filtered": made.filtered, "settings": made.settings}
        return self._commit(task, made.pairs, record | {"seconds": seconds | made.seconds})

    def _commit(self, task: Task, pairs: list, record: dict[str, Any], **files: bytes) -> Committed:
        record["seconds"] = {name: round(value, 3) for name, value in record["seconds"].items()}
        fit, made = commit_fit(
            self.settings.out,
            task.stem,
            pairs,
            record,
            files={f".{kind}": content for kind, content in files.items()},
            samples_per_shard=self.settings.samples_per_shard,
        )
        return Committed(fit, made)

    def _dense(self, task: Task, capture: Capture, shared: dict[str, Any], seconds: dict[str, float]) -> Committed:
        if capture.splat is not None:
            return self._commit(task, [], shared | {"splat": True, "seconds": seconds})
        start = time.perf_counter()
        truth = fit_densely(capture, self.settings.dense, seed=self.settings.seed, device=self.device)
        seconds = seconds | {"dense fit": time.perf_counter() - start}
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "dense.ply"
            write_ply(file, truth.splat.gaussians)
            content = file.read_bytes()
        record = shared | {"psnr_held_out": truth.psnr, "num_gaussians": len(truth.splat.gaussians)}
        return self._commit(task, [], record | {"seconds": seconds}, ply=content)

    def _truth(self, task: Task, capture: Capture) -> Truth:
        """What the scene looks like: its reference splat, or the dense fit that a task before this one made."""
        name = task.source.name
        if self._truth_of is None or self._truth_of[0] != name:
            self._truth_of = name, reference_splat(capture, self.device) or self._read_dense(task, capture)
        return self._truth_of[1]

    def _read_dense(self, task: Task, capture: Capture) -> Truth:
        assert task.after is not None
        if not storage.exists(storage.join(self.settings.out, task.after + SUFFIX)):
            raise ValueError(f"{task.source.url}: its dense fit, which {task.stem} draws, could not be made")
        record = read_fit(self.settings.out, task.after).record
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "dense.ply"
            file.write_bytes(storage.read_bytes(storage.join(self.settings.out, record["files"][0]["name"])))
            gaussians = read_ply(file).to(self.device)
        return Truth(Splat(gaussians, background=capture.background), record["psnr_held_out"])

    def _opened(self, task: Task) -> _Opened:
        """The capture of a task, open or being opened; of others, the oldest are let go."""
        dense = task.kind == "dense"
        size_px = self.settings.dense.size_px if dense else self.settings.recipes[task.recipe].size_px
        key = (task.source, size_px)
        if key not in self._captures:
            self._captures[key] = _Opened(task.source, size_px)
        self._captures.move_to_end(key)
        while len(self._captures) > KEPT_CAPTURES:
            self._captures.popitem(last=False)
        return self._captures[key]


@dataclass
class _Opened:
    """A capture that a thread opens, and whose photos it reads."""

    source: Source
    size_px: int
    fingerprint: str = ""
    _capture: Capture | None = None
    _error: BaseException | None = None
    _thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._open, daemon=True)
        self._thread.start()

    def wait(self) -> Capture:
        """The capture; raises what opening it raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self._capture is not None
        return self._capture

    def _open(self) -> None:
        room = None
        try:
            if not storage.is_local(self.source.url):
                room = make_room()
            capture = self.source.open(self.size_px, room)
            self.fingerprint = fingerprint(capture)
            if capture.splat is None:  # a splat's photos are drawn, by the thread that fits
                capture = replace(capture, views=_kept(capture.views))
            self._capture = capture
        except BaseException as error:  # told to whoever waits
            self._error = error
        finally:
            if room is not None and self._capture is not None and all(_is_kept(v) for v in self._capture.views):
                shutil.rmtree(room, ignore_errors=True)
            elif room is not None:
                weakref.finalize(self, shutil.rmtree, room, ignore_errors=True)


@dataclass(frozen=True)
class _Kept:
    """A photo that was read already."""

    photo: Photo

    def __call__(self) -> Photo:
        return self.photo


def _kept(views: Sequence[View]) -> tuple[View, ...]:
    """The views with as many of their photos read as there is room for."""
    kept, room = [], MAX_KEPT_BYTES
    for view in views:
        room -= view.camera.width_px * view.camera.height_px * 16
        kept.append(View(view.camera, _Kept(view.load())) if room >= 0 else view)
    return tuple(kept)


def _is_kept(view: View) -> bool:
    return isinstance(view.load, _Kept)


def fingerprint(capture: Capture) -> str:
    """The same for captures of the same photos, whatever they are called: the least hash of their files' beginnings."""
    files = {getattr(view.load, "path", None) or getattr(view.load, "ply", None) for view in capture.views}
    return min((_hash(file) for file in files if file is not None), default="")


def _hash(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.sha256(str(file.stat().st_size).encode() + stream.read(FINGERPRINT_BYTES)).hexdigest()[:16]
