"""One entry of a comparison: a restorer on a case, in 2D and through the loop."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from splatfix.compare.config import CompareConfig
from splatfix.compare.frames import FrameView, measure_frames
from splatfix.config import changed_fields
from splatfix.evaluation.error_maps import error_map, mark_ignored
from splatfix.evaluation.results import read_results
from splatfix.files import hash_text, read_json, write_json
from splatfix.fit import MAY_CHANGE, prepare_run
from splatfix.flawed import FlawedView
from splatfix.images import write_image
from splatfix.loop import LoopConfig
from splatfix.loop.cache import SharedFits
from splatfix.loop.case_rounds import CASE_FILES, run_case
from splatfix.loop.cases import (
    SHARED,
    Case,
    baseline_part,
    configure_case,
    read_baseline,
    shared_folder,
    silence_loops,
)
from splatfix.mirror import Mirror
from splatfix.process import choose_device, peak_memory_mb
from splatfix.report import write_report
from splatfix.report.compare.layout import FRAMES, frame_path
from splatfix.report.compare.results import SCHEMA, Entry
from splatfix.restoration import Repaired, Restorer, RestorerChoice, is_name, open_restorer
from splatfix.restoration.choice import format_choice
from splatfix.restoration.hub_places import parse_place
from splatfix.restoration.identity import restorer_input
from splatfix.restoration.repair_cache import RepairCache
from splatfix.restoration.setting import RestorerSetting
from splatfix.runs import RUN_FILES, remove_run
from splatfix.shared_folder import check_token
from splatfix.splats.checkpoints import CHECKPOINT_SCHEMA

ENTRY, REPAIRS = "entry.json", "repairs"  # names on disk
ENTRY_FILES = (  # glob patterns of all that an entry writes
    *CASE_FILES,
    *RUN_FILES,
    *(ENTRY, "report.html", f"{FRAMES}/*.png", f"{REPAIRS}/*.safetensors"),
)


@dataclass(frozen=True)
class EntryTask:
    """A restorer on a case, and the folder of its run."""

    label: str
    restorer: RestorerSetting
    case: Case

    @property
    def name(self) -> str:
        """Unique in the comparison."""
        return f"{self.label}/{self.case.name}"


def label_restorers(restorers: tuple[RestorerSetting, ...]) -> dict[str, RestorerSetting]:
    """A label for each restorer, safe for a folder: its name, and a digest of what tells it from others of that name.

    A label does not depend on the other restorers, so a comparison can be extended by further ones.

    Raises:
        ValueError: the same restorer with the same options is given twice.
    """
    labels: dict[str, RestorerSetting] = {}
    for setting in restorers:
        choice = RestorerChoice.of(setting)
        place = None if is_name(choice.name) else parse_place(choice.name)
        name = Path(choice.name).name if place is None else place.name
        readable = re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip("._") or "restorer"
        is_plain = readable == choice.name and not choice.options
        label = readable[:40] if is_plain else f"{readable[:40]}-{hash_text(format_choice(choice))[:6]}"
        if label in labels:
            raise ValueError(f"restorers: {choice.name} with the same options is given twice")
        labels[label] = setting
    return labels


def entry_identity(task: EntryTask, loop: LoopConfig, path_frames: int) -> str:
    """Hash all settings and weights that decide an entry, besides the capture itself; ``loop`` has its restorer.

    Settings are hashed as `splats.scene.fit_identity` does, so that a new one with a default keeps finished entries,
    but a changed default does not.
    """
    settings = {name: value for name, value in changed_fields(loop).items() if name not in MAY_CHANGE}
    files = [given.digest for given in restorer_input(task.restorer).values()]
    tree = {"schema": SCHEMA, "fits": CHECKPOINT_SCHEMA, "loop": settings, "files": files, "path_frames": path_frames}
    return hash_text(json.dumps(tree, sort_keys=True))


def read_entry(folder: Path, identity: str) -> Entry | None:
    """A finished entry in its folder; None where there is none, or one of other settings."""
    path = folder / ENTRY
    tree = read_json(path) if path.is_file() else None
    if not isinstance(tree, dict) or tree.get("identity") != identity or tree.get("entry") is None:
        return None
    return Entry.from_json(tree["entry"], str(path))


class EntryWorker:
    """Runs entries. The restorer of the last entry stays open: a pipeline is loaded once for all its captures."""

    def __init__(self, config: CompareConfig, mirror: Mirror, token: str | None) -> None:
        self._config, self._mirror = config, mirror
        if token is not None:
            check_token(mirror.place, token)
        self._label: str | None = None
        self._restorer: Restorer | None = None

    def run(self, task: EntryTask, upcoming: EntryTask | None) -> Entry:  # noqa: ARG002 - of the protocol
        """Run one entry, or return the finished one in its folder."""
        part = f"{task.label}/{task.case.name}"
        with self._mirror.work_on(part, shared=SHARED, read=[baseline_part(task.case)]):
            return self._run(task, self._mirror.path / part)

    def _run(self, task: EntryTask, folder: Path) -> Entry:
        loop = replace(self._config.loop, restorer=task.restorer)
        identity = entry_identity(task, configure_case(loop, task.case), self._config.path_frames)
        if (known := read_entry(folder, identity)) is not None:
            return known
        _start_entry(folder, identity)
        with silence_loops():
            restorer = RepairCache(_LazyRestorer(lambda: self._open(task, loop)), folder / REPAIRS, identity=identity)
            entry = _run_entry(task, loop, self._config.path_frames, self._mirror, folder, restorer)
        write_json(folder / ENTRY, {"identity": identity, "entry": asdict(entry)})
        shutil.rmtree(folder / REPAIRS, ignore_errors=True)
        for checkpoint in folder.glob("checkpoints/*.pt"):
            checkpoint.unlink(missing_ok=True)
        return entry

    def _open(self, task: EntryTask, loop: LoopConfig) -> Restorer:
        if self._restorer is None or self._label != task.label:
            self._restorer = None  # first free the memory of the one before
            self._restorer = open_restorer(task.restorer, device=choose_device(loop.device))
            self._label = task.label
        return self._restorer


class _LazyRestorer:
    """Opens a restorer at its first view: a resumed entry whose views are all kept loads no weights."""

    def __init__(self, open_: Callable[[], Restorer]) -> None:
        self._open = open_

    @property
    def batch_views(self) -> int:
        return getattr(self._open(), "batch_views", 1)

    def repair(self, views: Sequence[FlawedView], *, seed: int) -> list[Repaired]:
        return self._open().repair(views, seed=seed)


def _start_entry(folder: Path, identity: str) -> None:
    """Note what an entry is of. What is there of other settings or weights goes: the rounds of a loop look alike."""
    path = folder / ENTRY
    tree = read_json(path) if path.is_file() else None
    if isinstance(tree, dict) and tree.get("identity") == identity:
        return
    remove_run(folder)
    shutil.rmtree(folder / REPAIRS, ignore_errors=True)
    write_json(path, {"identity": identity, "entry": None})


def _run_entry(
    task: EntryTask, loop: LoopConfig, path_frames: int, mirror: Mirror, folder: Path, restorer: RepairCache
) -> Entry:
    config, out = configure_case(loop, task.case), mirror.path
    prepared = prepare_run(task.case.capture, folder, config, command="compare", files=CASE_FILES)
    run, capture, split, scene, device = prepared
    baseline = read_baseline(out, task.case)
    fits = SharedFits(shared_folder(out), run, scene, config)
    splats = [fits.before(baseline.steps).splat(), *(fit.splat() for fit in fits.siblings(baseline.steps))]
    with run.stage("frames"):
        frames = measure_frames(
            splats,
            scene,
            capture,
            split,
            restorer,
            seed=config.seed,
            num_references=config.repair.num_references,
            path_frames=path_frames,
            on_view=lambda view: _write_frame(folder, view),
        )
    for _ in run_case(out, task.case, config, restorer, prepared):
        mirror.push(SHARED, f"{task.label}/{task.case.name}")
    write_report([folder], folder / "report.html")
    return Entry(
        case=task.case.name,
        folder=str(folder.relative_to(out)),
        results=read_results(folder),
        frames=frames.frames,
        drift=frames.drift,
        path_drift=frames.path_drift,
        consistency=frames.consistency,
        seconds_per_view=restorer.seconds_per_view,
        peak_memory_mb=_peak_memory_mb(device),
        reasons=frames.reasons,
    )


def _write_frame(folder: Path, view: FrameView) -> None:
    render, repaired = view.flawed.rgb.cpu().clamp(0, 1), view.repaired.rgb.cpu()
    pictures = {
        "photo": view.photo.numpy() if view.validity is None else mark_ignored(view.photo.numpy(), view.validity),
        "render": render.numpy(),
        "repaired": repaired.numpy(),
        "error_render": error_map(render, view.photo, validity=view.validity),
        "error_repaired": error_map(repaired, view.photo, validity=view.validity),
    }
    if view.repaired.mask is not None:
        pictures["mask"] = view.repaired.mask.cpu().float()[..., None].expand(-1, -1, 3).numpy()
    for kind, picture in pictures.items():
        write_image(frame_path(folder, view.name, kind), picture)


def _peak_memory_mb(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) // 2**20
    return peak_memory_mb()
