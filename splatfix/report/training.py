"""``report.html`` of a training: what was trained, its losses and validations, previews, and how to use the weights."""

from __future__ import annotations

import shlex
import statistics
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from splatfix import storage
from splatfix.config import to_yaml
from splatfix.files import read_json, write_text
from splatfix.lease import find_driver
from splatfix.mirror import TOP, open_mirror
from splatfix.report import charts, pictures
from splatfix.report.html import page_path, render_page
from splatfix.report.training_summary import restorer_of
from splatfix.report.wording import (
    NONE,
    PSNR,
    Headline,
    format_count,
    format_duration,
    format_number,
    format_time,
    shorten_commit,
)
from splatfix.restoration.checkpoint import CONFIG
from splatfix.runs import read_run
from splatfix.tracking import is_sent, page_of, tracked_values
from splatfix.training.history import Segment, read_segments
from splatfix.training.run import HISTORY, PAGE, RESTORER, STATE, is_first_process
from splatfix.training.state import read_state
from splatfix.views import BANDS, pick_evenly

PREVIEW_SIDE_PX = 1400
MAX_PREVIEWS = 5  # besides that of the kept weights
MAX_SEGMENTS = 300  # rows of the table
MAX_SCENE_LINES = 8
SLOW_DATA = 0.3  # share of a step spent waiting for data that is worth a note
SETTINGS = (
    *("optimizer", "learning_rate", "warmup_steps", "loss", "precision", "ema_decay", "segment_steps", "max_seconds"),
    *("data.batch_size", "data.patch_px", "data.crops_per_pair", "accumulate", "start_from", "seed"),
)


@dataclass(frozen=True, eq=False, kw_only=True)
class Training:
    """A training as its page sees it.

    Attributes:
        path: the run folder.
        place: what users call it: the folder as they wrote it, or its URL.
        record: ``run.json``.
        segments: ``history.json``.
        steps, planned: optimizer steps done, and in all.
        best: PSNR gain of the kept weights on held-out scenes, in dB; None where they are not validated.
        driver: the process at work, in words; None if there is none.
        weights: ``config.json`` of the restorer; None before its first weights are kept.
    """

    path: Path
    place: str
    record: dict[str, Any]
    segments: tuple[Segment, ...]
    steps: int
    planned: int
    best: float | None
    driver: str | None
    weights: dict[str, Any] | None

    @property
    def is_finished(self) -> bool:
        """Whether all steps are done."""
        return "finished" in self.record

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the kept weights come from; empty where none are kept."""
        return (self.weights or {}).get("provenance") or {}

    @property
    def best_segment(self) -> Segment | None:
        """The validated segment at whose end the kept weights were saved."""
        step = self.provenance.get("step")
        return next((each for each in self.segments if each.step == step and each.validation), None)


def write_training_page(place: str | Path, out: Path | None = None) -> str | None:
    """Write the page of a training, finished, running or interrupted; returns where it is.

    Of the processes that torchrun has started, only the first writes; the others get None.

    Args:
        place: the run folder, or its URL.
        out: an HTML file or a folder; by default ``report.html`` in the run folder.

    Raises:
        ValueError: the folder holds no training, or files that this splatfix does not read.
    """
    if not is_first_process():
        return None
    mirror = open_mirror(place)
    mirror.pull()
    path = page_path(out, Path(place) if mirror.url is None else mirror.path, PAGE)
    with mirror.name_errors():
        write_text(path, training_page(load_training(mirror.path, str(place))))
    if out is not None or mirror.url is None:
        return str(path)
    mirror.push(TOP)
    return storage.join(mirror.url, PAGE)


def load_training(folder: Path, place: str) -> Training:
    """Read what a training has written so far. ValueError if it is none, or a file is broken."""
    record = read_run(folder)
    if record is None or record["command"] != "train":
        raise ValueError(f"{folder}: holds no run of splatfix train; wanted the --out of one")
    segments = read_segments(folder / HISTORY)
    steps, planned = segments[-1].step if segments else 0, int(record["settings"]["steps"])
    validated = [each.validation.psnr_gain for each in segments if each.validation]
    best = max((gain for gain in validated if gain is not None), default=None)
    if "finished" in record:
        planned = steps = int(record.get("steps", steps))
    elif (folder / STATE).is_file():
        progress = read_state(folder / STATE)["progress"]
        steps, planned, best = progress["step"], progress["planned"], progress["best"]
    config = folder / RESTORER / CONFIG
    weights = read_json(config) if config.is_file() else None
    if weights is not None and not isinstance(weights, dict):
        raise ValueError(f"{config}: wanted a mapping at the top, saw {type(weights).__name__}; train again")
    if weights is not None and (kept := (weights.get("provenance") or {}).get("validation")):
        best = kept["psnr_gain"]
    return Training(
        path=folder,
        place=place,
        record=record,
        segments=segments,
        steps=steps,
        planned=planned,
        best=best,
        driver=None if "finished" in record else find_driver(place),
        weights=weights,
    )


def training_page(training: Training) -> str:
    """The page of a training."""
    best = training.best_segment
    gains = {each.step: each.validation.psnr_gain for each in training.segments if each.validation}
    known = {step: gain for step, gain in gains.items() if gain is not None}
    losses = {each.step: each.loss for each in training.segments if each.loss is not None}
    steps = tracked_values(training.path, "train.loss")
    settings = training.record["settings"]
    sizes = [file.stat().st_size for file in (training.path / RESTORER).glob("*.safetensors")]
    context = {
        "title": f"{_name(training)}: splatfix train",
        "name": _name(training),
        "facts": _facts(training, settings),
        "headline": training_headline(training),
        "notes": _notes(training),
        "commands": _commands(training),
        "weights_bytes": sum(sizes) if sizes else None,
        "loss": charts.training_loss(steps, losses),
        "has_steps": len(steps) > 1,
        "has_segments": len(losses) > 1,
        "validations": charts.validation_gains(known, _scene_lines(training), best.step if best else -1),
        "best": best,
        "groups": _by_group(training),
        "bands": [(band, best.validation.best.by_band.get(band)) for band in BANDS] if best and best.validation else [],
        "segments": pick_evenly(training.segments, MAX_SEGMENTS),
        "num_segments": len(training.segments),
        "previews": _previews(training),
        "provenance": _provenance(training),
        "settings": [(name, value) for name in SETTINGS if (value := _setting(settings, name)) is not None],
        "settings_text": to_yaml(settings),
        "PSNR": PSNR,
    }
    return render_page("training.html.j2", context)


def training_headline(training: Training) -> Headline:
    """What the training gained on scenes that it has not seen, or how far it is."""
    best, kept = training.best, training.best_segment
    gain = f"{format_number(best, 2, signed=True)} dB"
    if not training.is_finished:
        done = f"{training.steps} of {training.planned} steps"
        if training.driver is not None:
            sentence = f"Running: {done} were done when this page was written. {training.driver} is at work."
        else:
            sentence = f"Not finished: {done} are saved, and no process is at work. The same command resumes it."
        details = () if best is None else (f"The best weights so far gain {gain} PSNR on held-out scenes.",)
        return Headline(sentence, details, f"{training.steps} / {training.planned}", "steps", "plain")
    if best is None:
        return Headline(
            f"Trained for {format_count(training.steps, 'step')}. No group was held out, so its gain is not known.",
            ("Train on pairs of more groups of captures, or compare it on a capture that it has not seen.",),
            NONE,
            "PSNR gain on held-out scenes",
            "plain",
        )
    verdict = PSNR.improves(best)
    sentence = {
        True: f"The restorer improves scenes that it was not trained on: PSNR rises by {format_number(best, 2)} dB.",
        None: "The restorer changes next to nothing on scenes that it was not trained on.",
        False: "The restorer makes scenes that it was not trained on worse: train longer, or on more captures.",
    }[verdict]
    explained = []
    if kept is not None and kept.validation is not None:
        share = 100 * kept.validation.strength
        explained = [
            f"Kept are the weights of step {kept.step} of {training.steps}, at {share:.0f} % of the correction. Mean "
            f"over {format_count(len(kept.validation.best.by_scene), 'held-out scene')}, "
            f"{format_count(kept.validation.num_pairs, 'pair')}, against the unrepaired renders. SSIM "
            f"{format_number(kept.validation.ssim_gain, 3, signed=True)}."
        ]
        good, bad = kept.validation.best.psnr_gain_good, kept.validation.best.psnr_gain_bad
        if good is not None and bad is not None:
            changes = [f"{format_number(gain, 2, signed=True)} dB" for gain in (good, bad)]
            explained.append(f"Pixels that the render had right change by {changes[0]}, the others by {changes[1]}.")
    tone = {True: "good", None: "plain", False: "bad"}[verdict]
    return Headline(sentence, tuple(explained), gain, "PSNR gain on held-out scenes", tone)


def _name(training: Training) -> str:
    return training.place.rstrip("/").rsplit("/", 1)[-1] or training.place


def _facts(training: Training, settings: dict[str, Any]) -> list[str]:
    kept = training.provenance
    facts = [(training.weights or {}).get("kind"), f"{training.steps} steps"]
    if "num_pairs" in kept:
        facts.append(f"{kept['num_pairs']} pairs of {format_count(len(kept.get('train_scenes', [])), 'scene')}")
    if training.segments:
        facts.append(format_duration(training.segments[-1].seconds))
    return [*filter(None, facts), f"seed {settings.get('seed')}"]


def _notes(training: Training) -> list[str]:
    """What deserves attention, as sentences."""
    notes = []
    validated = [each for each in training.segments if each.validation]
    kept = training.best_segment
    if training.is_finished and kept is not None and len(validated) > 1:
        if kept is validated[-1]:
            notes.append("The last validation is the best one: a longer training may gain more (raise steps).")
        elif kept.step <= training.steps / 2:
            notes.append(
                f"The best validation was at step {kept.step} of {training.steps}; later weights gain less on held-out "
                "scenes. Pairs of more captures help against that."
            )
    waits = [each.data_wait for each in training.segments if each.data_wait is not None]
    if waits and (wait := statistics.fmean(waits)) > SLOW_DATA:
        notes.append(f"{100 * wait:.0f} % of the time of the steps went into waiting for data: raise data.num_workers.")
    if not training.is_finished and training.weights is None:
        notes.append("No weights are kept yet: that happens at the first validation, or at the end without one.")
    if lost := [each.step for each in training.segments if each.loss is None]:
        notes.append(f"The loss is not finite in the segment that ends at step {lost[0]}.")
    if not is_sent(training.path):
        notes.append(f"MLflow has not received all records: splatfix sync {shlex.quote(training.place)} sends them.")
    return notes


def _commands(training: Training) -> list[tuple[str, str]]:
    """Commands to copy, each with what it does."""
    commands = []
    if training.weights is not None:
        restorer = restorer_of(training.place)
        compared = shlex.quote(f"nafnet,{restorer}")
        commands += [
            ("Repair a capture with it", f"splatfix loop CAPTURE --restorer {shlex.quote(restorer)} --out RUN"),
            ("Compare it", f"splatfix compare CAPTURE --restorers {compared} --out COMPARISON"),
        ]
    if not training.is_finished and training.driver is None:
        shards = shlex.quote(training.record["inputs"]["shards"]["path"])
        resume = f"splatfix train --shards {shards} --out {shlex.quote(training.place)}"
        commands.append(("Resume the training", resume))
    return commands


def _scene_lines(training: Training) -> dict[str, dict[int, float]]:
    """PSNR gain by step of held-out scenes, each at the best strength of its validation; few enough to draw."""
    lines: dict[str, dict[int, float]] = {}
    for segment in training.segments:
        for scene, gains in segment.validation.best.by_scene.items() if segment.validation else ():
            if gains.psnr_gain is not None:
                lines.setdefault(scene, {})[segment.step] = gains.psnr_gain
    return {scene: lines[scene] for scene in pick_evenly(sorted(lines), MAX_SCENE_LINES)} if len(lines) > 1 else {}


def _by_group(training: Training) -> list[dict[str, Any]]:
    """Gains of the kept weights by held-out group: a row with the mean of its scenes, and a row of each scene."""
    kept = training.best_segment
    if kept is None or kept.validation is None:
        return []
    group_of = training.provenance.get("validation_scenes") or {}
    groups: dict[str, list[dict[str, Any]]] = {}
    for scene, gains in kept.validation.best.by_scene.items():
        row = {"scene": scene, "psnr": gains.psnr_gain, "ssim": gains.ssim_gain}
        groups.setdefault(str(group_of.get(scene, scene)), []).append(row)
    return [
        {"group": group, "scenes": rows, **{name: _mean([row[name] for row in rows]) for name in ("psnr", "ssim")}}
        for group, rows in sorted(groups.items())
    ]


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _previews(training: Training) -> list[dict[str, Any]]:
    """The picture of the kept weights first (else the last one), then some of the others by step."""
    files = {int(path.stem.split("_")[1]): path for path in (training.path / "previews").glob("step_[0-9]*.png")}
    if not files:
        return []
    kept = training.best_segment
    first = kept.step if kept is not None and kept.step in files else max(files)
    others = pick_evenly(sorted(set(files) - {first}), MAX_PREVIEWS)
    return [
        {"step": step, "is_kept": kept is not None and step == kept.step, "picture": picture}
        for step in [first, *others]
        if (picture := pictures.embed_picture(files[step], PREVIEW_SIDE_PX)) is not None
    ]


def _provenance(training: Training) -> list[tuple[str, str]]:
    record, kept = training.record, training.provenance
    rows = [
        ("shards", record["inputs"]["shards"]["path"]),
        ("trained on", ", ".join(kept.get("train_groups", []))),
        ("held out", ", ".join(kept.get("validation_groups", []))),
        ("device", record.get("device_name") or record.get("device")),
        ("finished", format_time(record.get("finished") or "")),
        ("splatfix", record.get("version")),
        ("commit", shorten_commit(record.get("commit") or "")),
        ("MLflow", page_of(training.path)),
        ("page written", format_time(datetime.now(UTC).isoformat(timespec="seconds"))),
    ]
    return [(name, str(value)) for name, value in rows if value]


def _setting(settings: dict[str, Any], name: str) -> Any:
    """A setting by its dotted name; None where it is null or unknown to the version that trained."""
    for part in name.split("."):
        settings = settings.get(part, {}) if isinstance(settings, dict) else {}
    return None if settings == {} else settings
