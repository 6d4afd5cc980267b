"""The commands that are killed: small jobs, and what is equal however often they are killed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from splatfix.files import read_json
from splatfix.pairs import read_pairs
from splatfix.pairs.verify import verify
from splatfix.report.compare.results import read_compare
from splatfix.restoration.nafnet.checkpoint import load_checkpoint
from splatfix.sample import sample_path
from tests.cluster.settings import config_path, write_pairs
from tests.compare.small import write_config as write_compare
from tests.sweep.small import records, without_times
from tests.sweep.small import write_config as write_sweep

ATTEMPTS = ("--workers.attempts", "50")  # so that no task runs out of them
LOOP_SETTINGS = (
    *("--device", "cpu", "--restorer", "warp", "--views.size-px", "32", "--views.num-train", "3"),
    *("--views.max-test", "4", "--initial.num-random", "100", "--fit.steps", "300", "--repair.rounds", "2"),
    *("--repair.views", "3", "--repair.steps", "200", "--checkpoint-seconds", "0.5", "--no-video"),
)


@dataclass(frozen=True)
class Job:
    """A command whose result does not depend on how often it was killed.

    Attributes:
        words: its arguments but ``--out``.
        result: what is equal, from the folder of the run.
    """

    words: tuple[str, ...]
    result: Callable[[Path], Any]


def make_job(command: str, folder: Path) -> Job:
    """Make a job, with its inputs in a folder."""
    return _JOBS[command](folder)


def list_files(out: Path) -> set[str]:
    """List the files of a run by their paths in its folder."""
    return {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}


def _generate(_: Path) -> Job:
    recipe = ("--recipes.photos.size-px", "32", "--recipes.photos.steps", "300", "--recipes.photos.max-views", "2")
    more = ("--fits-per-capture", "10", "--device", "cpu", "--workers.num", "2")

    def result(out: Path) -> Any:
        assert verify(str(out)).problems == ()
        shards = {path.name: path.read_bytes() for path in out.glob("*.tar")}
        return shards, sorted(pair.key for pair in read_pairs(out))

    return Job(("generate", str(sample_path()), *recipe, *more, *ATTEMPTS), result)


def _train(folder: Path) -> Job:
    write_pairs(str(folder / "shards"))
    settings = ("--shards", str(folder / "shards"), "--config", str(config_path("train")), "--steps", "120")

    def result(out: Path) -> Any:
        weights = {name: value.tolist() for name, value in load_checkpoint(out)[0].state_dict().items()}
        history = read_json(out / "history.json")
        return weights, [(record["step"], record["loss"]) for record in history]

    return Job(("train", *settings, *ATTEMPTS), result)


def _sweep(folder: Path) -> Job:
    workers = {"num": 1, "gpus": 0, "attempts": 50}
    config = write_sweep(folder / "sweep.yaml", search={"trials": 4, "parallel": 1}, workers=workers)

    def result(out: Path) -> Any:
        return [without_times(record) for record in records(out)], read_json(out / "sweep.json")["best"]

    words = ("sweep", "--config", str(config), "--captures", str(sample_path()))
    return Job(words, result)


def _loop(_: Path) -> Job:
    def result(out: Path) -> Any:
        return {path.name: path.read_bytes() for path in out.glob("*.ply")}

    return Job(("loop", str(sample_path()), *LOOP_SETTINGS), result)


def _compare(folder: Path) -> Job:
    workers = {"num": 2, "gpus": 0, "attempts": 50}
    restorers = ["identity", "warp", "classical"]
    config = write_compare(folder / "compare.yaml", seeds=[0, 1], restorers=restorers, workers=workers)

    def result(out: Path) -> Any:
        results = read_compare(out)
        assert results.state == "finished"
        return {(each.label, entry.case): entry.gain() for each in results.restorers for entry in each.entries}

    return Job(("compare", "--config", str(config)), result)


_JOBS = {"generate": _generate, "train": _train, "sweep": _sweep, "loop": _loop, "compare": _compare}
