"""Do the tasks of a generation: open a capture, fit, pair and commit.

Each process has one worker, so that tasks share what is slow to set up: compiled kernels, the CUDA context, and a
capture that several fits use. While a task runs, a thread reads the photos of the upcoming task.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from splatfix import storage
from splatfix.captures import Capture
from splatfix.files import scratch_folder
from splatfix.gaussians import Splat, read_ply, write_ply
from splatfix.pairs.checkpoints import FitCheckpoints, checkpoint_url
from splatfix.pairs.ground_truth import DenseConfig, GroundTruth, fit_densely, read_reference_splat
from splatfix.pairs.index import SUFFIX, CommittedFit, commit_fit, read_file, read_fit
from splatfix.pairs.make import make_pairs
from splatfix.pairs.pair import Pair
from splatfix.pairs.prefetch import CapturePrefetcher, PrefetchedCapture
from splatfix.pairs.provenance import MADE_BY, describe_maker
from splatfix.pairs.recipes import Recipe
from splatfix.pairs.tasks import Task
from splatfix.process import choose_device
from splatfix.runs import source_digest
from splatfix.shared_folder import check_token


@dataclass(frozen=True)
class WorkerSettings:
    """The settings of a worker, equal for all of its tasks. ``token`` is in the output, for `check_token`."""

    out: str
    seed: int
    device: str
    recipes: Mapping[str, Recipe]
    dense: DenseConfig
    samples_per_shard: int = 64
    token: str | None = None


@dataclass(frozen=True)
class TaskResult:
    """The fit of a task in the output, and whether this task made it (otherwise it existed before)."""

    fit: CommittedFit
    is_new: bool


class PairWorker:
    """Makes dense fits, and sparse fits with their pairs. Each task ends with a commit.

    Raises:
        MachineError: this machine does not see the driver's output.
        ValueError: the device cannot be used.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        if settings.token is not None:
            check_token(settings.out, settings.token)
        self.settings = settings
        self.device = choose_device(settings.device)
        self._prefetcher = CapturePrefetcher()
        self._ground_truth: tuple[str, GroundTruth] | None = None  # of a scene

    def run(self, task: Task, upcoming: Task | None) -> TaskResult:
        """Do a task, and read the photos of the upcoming one meanwhile.

        Raises:
            ValueError: the capture cannot be used.
        """
        if storage.exists(storage.join(self.settings.out, task.stem + SUFFIX)):  # by another driver or a lost attempt
            return TaskResult(read_fit(self.settings.out, task.stem), False)
        prefetched = self._prefetch(task)
        if upcoming is not None:
            self._prefetch(upcoming)
        start = time.perf_counter()
        try:
            capture = prefetched.wait()
        except BaseException:
            self._prefetcher.close(prefetched)
            raise
        seconds = {"wait for photos": time.perf_counter() - start}
        record = {
            "kind": task.kind,
            "scene": task.source.name,
            "capture": task.source.url,
            "group": task.source.group,
            "source": capture.format,
            "fingerprint": prefetched.fingerprint,
            "seed": self.settings.seed,
            MADE_BY: describe_maker(self.device),
            **({"notes": list(capture.notes)} if capture.notes else {}),
            **({"license": capture.license} if capture.license is not None else {}),
        }
        checkpoints = self._open_checkpoints(task, prefetched.fingerprint)
        try:
            if task.kind == "dense":
                result = self._make_dense_fit(task, capture, record, seconds, checkpoints)
            else:
                result = self._make_pairs(task, capture, record, seconds, checkpoints)
        except ValueError:
            checkpoints.delete()
            raise
        checkpoints.delete()
        return result

    def _open_checkpoints(self, task: Task, fingerprint: str) -> FitCheckpoints:
        """Open the checkpoint of a task, which only the same code, photos, settings and kind of device resume."""
        settings = self.settings.dense if task.kind == "dense" else self.settings.recipes[task.recipe]
        identity = (
            *(source_digest(), torch.__version__, self.device.type, torch.get_num_threads()),
            *(fingerprint, settings, self.settings.seed),
        )
        return FitCheckpoints(checkpoint_url(self.settings.out, task.stem), repr(identity), self.device)

    def _make_pairs(
        self,
        task: Task,
        capture: Capture,
        record: dict[str, Any],
        seconds: dict[str, float],
        checkpoints: FitCheckpoints,
    ) -> TaskResult:
        recipe = self.settings.recipes[task.recipe]
        record = record | {"recipe": task.recipe, "fit_index": task.fit_index}
        ground_truth = self._load_ground_truth(task, capture) if recipe.clean == "renders" else None
        min_psnr = self.settings.dense.min_psnr
        if ground_truth is not None and ground_truth.psnr is not None and ground_truth.psnr < min_psnr:
            reason = (
                f"the dense fit reaches {ground_truth.psnr:.1f} dB on unseen photos, less than dense.min_psnr = "
                f"{min_psnr:g}"
            )
            return self._commit(task, [], record | {"skipped": reason, "seconds": seconds})
        fit_pairs = make_pairs(
            capture,
            task.fit_index,
            seed=self.settings.seed,
            recipe=recipe,
            recipe_name=task.recipe,
            device=self.device,
            group=task.source.group,
            ground_truth=ground_truth,
            checkpoints=checkpoints,
        )
        record |= {"resumed_at_step": checkpoints.resumed_step}
        record |= fit_pairs.counts() | {"filtered": fit_pairs.filtered, "settings": fit_pairs.settings}
        return self._commit(task, fit_pairs.pairs, record | {"seconds": seconds | fit_pairs.seconds})

    def _make_dense_fit(
        self,
        task: Task,
        capture: Capture,
        record: dict[str, Any],
        seconds: dict[str, float],
        checkpoints: FitCheckpoints,
    ) -> TaskResult:
        if capture.splat is not None:
            return self._commit(task, [], record | {"splat": True, "seconds": seconds})
        start = time.perf_counter()
        ground_truth = fit_densely(
            capture, self.settings.dense, seed=self.settings.seed, device=self.device, checkpoints=checkpoints
        )
        seconds = seconds | {"dense fit": time.perf_counter() - start}
        with scratch_folder("pairs") as folder:
            file = folder / "dense.ply"
            write_ply(file, ground_truth.splat.gaussians)
            content = file.read_bytes()
        record = record | {
            "resumed_at_step": checkpoints.resumed_step,
            "psnr_held_out": ground_truth.psnr,
            "num_gaussians": len(ground_truth.splat.gaussians),
        }
        return self._commit(task, [], record | {"seconds": seconds}, files={".ply": content})

    def _commit(
        self, task: Task, pairs: list[Pair], record: dict[str, Any], files: dict[str, bytes] | None = None
    ) -> TaskResult:
        record["seconds"] = {name: round(value, 3) for name, value in record["seconds"].items()}
        fit, is_new = commit_fit(
            self.settings.out,
            task.stem,
            pairs,
            record,
            files=files,
            samples_per_shard=self.settings.samples_per_shard,
        )
        return TaskResult(fit, is_new)

    def _load_ground_truth(self, task: Task, capture: Capture) -> GroundTruth:
        """Read the reference splat of the scene or the dense fit of an earlier task, and keep it for the next task."""
        scene = task.source.name
        if self._ground_truth is None or self._ground_truth[0] != scene:
            self._ground_truth = (
                scene,
                read_reference_splat(capture, self.device) or self._read_dense_fit(task, capture),
            )
        return self._ground_truth[1]

    def _read_dense_fit(self, task: Task, capture: Capture) -> GroundTruth:
        assert task.after is not None
        if not storage.exists(storage.join(self.settings.out, task.after + SUFFIX)):
            raise ValueError(f"{task.source.url}: {task.stem} needs its dense fit, which failed")
        record = read_fit(self.settings.out, task.after).record
        with scratch_folder("pairs") as folder:
            file = folder / "dense.ply"
            file.write_bytes(read_file(self.settings.out, record["files"][0]))
            gaussians = read_ply(file).to(self.device)
        return GroundTruth(Splat(gaussians, background=capture.background), record["psnr_held_out"])

    def _prefetch(self, task: Task) -> PrefetchedCapture:
        settings = self.settings.dense if task.kind == "dense" else self.settings.recipes[task.recipe]
        return self._prefetcher.open(task.source, settings.size_px, settings.photo_options)
