"""The command line: one function per command.

Every command that has settings takes ``--config FILE.yaml``; flags override the file. The same command on the same
``--out`` resumes, and ``--fresh`` starts over. `command_line.main` is the entry point, and lists the exit codes.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from tyro.conf import Positional

from splatfix import (  # noqa: F401  (their commands)
    cli_cluster,
    cli_fetch,
    cli_pose,
    cli_restorers,
    cli_results,
    cli_setup,
    cli_splats,
)
from splatfix.command_line import DONE, QUARANTINED, command, main, show

if TYPE_CHECKING:
    from splatfix.compare.config import CompareConfig
    from splatfix.evaluation.run import EvaluateConfig
    from splatfix.fit import FitRunConfig
    from splatfix.loop import LoopConfig
    from splatfix.pairs.config import GenerateConfig
    from splatfix.sweep.config import SweepConfig
    from splatfix.training.config import TrainConfig

CapturePath = Annotated[str, tyro.conf.arg(metavar="CAPTURE")]
SplatPath = Annotated[Path, tyro.conf.arg(metavar="SPLAT.ply")]
RunPath = Annotated[Path, tyro.conf.arg(metavar="RUN")]
Captures = Annotated[tuple[str, ...], tyro.conf.arg(metavar="CAPTURE ...")]
Url = Annotated[str, tyro.conf.arg(metavar="URL")]
OutUrl = Annotated[str, tyro.conf.arg(metavar="RUN")]
LOOP_SETTINGS = (
    *("restorer", "repair.rounds", "repair.views", "repair.steps", "repair.weight", "validate.photos"),
    *("views.num_train", "views.size_px", "views.split", "fit.steps", "seed", "device", "video"),
)


@command(
    config="splatfix.loop:LoopConfig",
    shown=LOOP_SETTINGS,
    examples=["splatfix demo", "splatfix demo --out runs/warped --restorer warp"],
    recorded_as="loop",
)
def demo(*, out: RunPath = Path("runs/demo"), dry_run: bool = False, fresh: bool, settings: "LoopConfig") -> None:
    """Run the whole loop on the sample capture that ships with splatfix.

    A wooden tankard is fitted from six photos, repaired, and measured on photos that the fit has not seen.

    Args:
        out: folder of the run.
        dry_run: only estimate time, memory and disk, from some seconds of measuring on this machine.
    """
    from splatfix.loop import run_loop
    from splatfix.sample import sample_path

    if dry_run:
        _estimate(sample_path(), settings)
        return
    run_loop(sample_path(), out, settings, fresh=fresh)
    _finish(out)


@command(
    config="splatfix.loop:LoopConfig",
    shown=LOOP_SETTINGS,
    examples=[
        "splatfix loop scenes/banana --out runs/banana",
        "splatfix loop scenes/banana --out runs/banana --dry-run",
        "splatfix loop scenes/banana --out runs/nine --views.num-train 9 --restorer runs/restorer",
        "splatfix loop scenes/banana --out runs/mine --start point_cloud.ply --views.num-train all",
        "splatfix loop photos/ --out runs/mine --pose.from chosen",
    ],
)
def loop(
    capture: Positional[CapturePath],
    *,
    out: RunPath,
    start: Annotated[Path | None, tyro.conf.arg(metavar="SPLAT.ply")] = None,
    dry_run: bool = False,
    fresh: bool,
    settings: "LoopConfig",
) -> None:
    """Fit a capture from a few photos, repair novel views, and retrain on them.

    The gain is measured on photos that the fit has not seen, against a fit of the same length without repair.

    Args:
        capture: folder or URL of posed photos (COLMAP, transforms.json, NeRF-synthetic, LLFF), a 3DGS .ply, or photos
            or a video without poses, which are posed first, as splatfix pose does.
        out: folder of the run.
        start: repair this splat, which was trained with the same poses, instead of a fit of splatfix.
        dry_run: only estimate time, memory and disk, from some seconds of measuring on this machine.
    """
    from splatfix.loop import run_loop

    if start is not None:
        settings = replace(settings, initial=replace(settings.initial, start=start))
    if dry_run:
        _estimate(capture, settings)
        return
    run_loop(capture, out, settings, fresh=fresh)
    _finish(out)


@command(
    config="splatfix.fit:FitRunConfig",
    shown=(
        *("views.num_train", "views.size_px", "views.split", "views.test_every", "fit.steps"),
        *("fit.densify.strategy", "fit.densify.max_gaussians", "choose.enabled", "seed", "device", "video"),
    ),
    examples=[
        "splatfix fit scenes/banana --out runs/sparse",
        "splatfix fit scenes/banana --out runs/dense --config configs/fit_dense.yaml",
    ],
)
def fit(
    capture: Positional[CapturePath],
    *,
    out: RunPath,
    profile: bool = False,
    dry_run: bool = False,
    fresh: bool,
    settings: "FitRunConfig",
) -> None:
    """Fit a splat to a few photos of a capture, and measure it on the others.

    Args:
        capture: folder or URL of posed photos (COLMAP, transforms.json, NeRF-synthetic, LLFF), a 3DGS .ply, or photos
            or a video without poses, which are posed first, as splatfix pose does.
        out: folder of the run.
        profile: log how much time each part of a step takes, and write profile.json.
        dry_run: only estimate time, memory and disk, from some seconds of measuring on this machine.
    """
    from splatfix.fit import run_fit

    if dry_run:
        _estimate(capture, settings)
        return
    run_fit(capture, out, settings, fresh=fresh, profile=profile)
    _finish(out)


@command(
    config="splatfix.evaluation.run:EvaluateConfig",
    shown=("size_px", "restorer", "num_references", "mode", "seed", "device", "video"),
    examples=[
        "splatfix evaluate scenes/banana runs/banana/after.ply --split runs/banana/split.json --out runs/again",
        "splatfix evaluate scenes/banana other.ply --split runs/banana/split.json --out runs/other --restorer nafnet",
    ],
)
def evaluate(
    capture: Positional[CapturePath],
    splat: Positional[SplatPath],
    *,
    split: Annotated[Path, tyro.conf.arg(metavar="SPLIT.json")],
    out: RunPath,
    fresh: bool,
    settings: "EvaluateConfig",
) -> None:
    """Measure a splat on the test photos of a capture.

    Args:
        capture: folder or URL of posed photos.
        splat: a 3DGS .ply, in the capture's world coordinates.
        split: file with train_ids and test_ids (and size_px), as every run folder has one.
        out: folder of the run.
    """
    from splatfix.evaluation.run import run_evaluate

    run_evaluate(capture, splat, split, out, settings, fresh=fresh)
    _finish(out)


@command(
    config="splatfix.pairs.config:GenerateConfig",
    shown=(
        *("fits_per_capture", "recipes.photos.size_px", "recipes.photos.steps", "recipes.photos.num_train"),
        *("workers.num", "workers.cpus", "workers.gpus", "workers.address", "max_failed", "seed", "device"),
    ),
    stored="splatfix.pairs.config:stored_settings",
    examples=[
        "splatfix generate scenes/* --out pairs --config configs/generate.yaml --dry-run",
        "splatfix generate scenes/* --out s3://bucket/pairs --workers.num 8",
        "splatfix generate procedural:0-499 --out pairs --config configs/generate_procedural.yaml",
    ],
)
def generate(
    captures: Positional[Captures] = (),
    *,
    out: Url,
    dry_run: bool = False,
    on_workers: int | None = None,
    speed: float = 1.0,
    fresh: bool,
    settings: "GenerateConfig",
) -> int:
    """Make training pairs: many sparse fits of each capture, rendered beside clean views.

    Runs on one machine or on a Ray cluster. Finished fits are kept after a crash or a full disk; the same command makes
    the missing ones.

    Args:
        captures: folders of posed photos, globs, .yaml lists, dataset roots or URLs, besides those in the config;
            procedural:FIRST-LAST for scenes that splatfix makes itself.
        out: folder or URL (s3://, gs://, az://) for the shards, their manifests and dataset.html.
        dry_run: only estimate the number of fits, pairs and shards, their size, and the time.
        on_workers: of a dry run: estimate the hours for this many workers, instead of those of this machine.
        speed: of a dry run: speed of each of these workers, relative to a worker of this machine.
    """
    from splatfix.pairs.generate import generate as make_pairs

    if dry_run:
        from splatfix.pairs.estimate import estimate

        show(estimate(captures, out, settings, on_workers=on_workers, speed=speed).text())
        return DONE
    from splatfix.report.terminal import next_command

    summary = make_pairs(captures, out, settings, fresh=fresh)
    show(summary.text())
    _dataset_page(out)
    if summary.pairs:
        show(next_command("train", "--shards", out, "--out", "runs/restorer"))
    return QUARANTINED if summary.failed else DONE


@command(examples=["splatfix verify pairs", "splatfix verify s3://bucket/pairs --repair"])
def verify(url: Positional[Url], *, repair: bool = False) -> int:
    """Recheck shards against their manifests: size, sha256, number of pairs, and that each decodes.

    Args:
        url: folder or URL of the shards.
        repair: drop broken and unlisted files, and make the pairs again with the settings stored there (not while pairs
            are being generated into the same place).
    """
    from splatfix.pairs.recheck import recheck
    from splatfix.report.terminal import next_command

    made = recheck(url, repairs=repair, report=show)
    if made is None:
        show(next_command("train", "--shards", url, "--out", "runs/restorer"))
        return DONE
    _dataset_page(url)
    return QUARANTINED if made.failed else DONE


@command(
    config="splatfix.training.config:TrainConfig",
    shown=(
        *("steps", "max_seconds", "start_from", "data.validation_groups", "data.batch_size", "data.patch_px"),
        *("learning_rate", "precision", "workers.num", "workers.storage", "seed", "device", "tracking.uri"),
    ),
    examples=[
        "splatfix train --shards pairs --out runs/restorer --config configs/train.yaml",
        "splatfix train --shards s3://bucket/pairs --out s3://bucket/restorer --workers.num 8",
    ],
)
def train(*, shards: Url, out: OutUrl, fresh: bool, settings: "TrainConfig") -> None:
    """Train a restorer on pairs (flawed render, clean view) from webdataset shards.

    Trains in this process; in several under ``torchrun --nproc-per-node 2 -m splatfix train ...``, or with
    ``--workers.num 2`` under Ray Train, which restarts all of them if one dies.

    Args:
        shards: folder or URL that splatfix generate wrote.
        out: folder of the run, on a cluster one that every node sees, or a URL of an object store; the best weights go
            into its folder restorer.
    """
    from splatfix.report.training_summary import command_after_training, describe_training
    from splatfix.training.launch import launch
    from splatfix.training.run import is_first_process

    launch(shards, out, settings, fresh=fresh)
    if not is_first_process():  # of torchrun
        return
    show(describe_training(out))
    _training_page(out)
    show(command_after_training(out, shards, settings.steps))


@command(
    config="splatfix.sweep.config:SweepConfig",
    shown=(
        *("captures", "held_out", "search.trials", "search.method", "search.parallel", "reruns", "loop.restorer"),
        *("loop.views.size_px", "loop.fit.steps", "workers.num", "workers.gpus", "tracking.uri"),
    ),
    examples=[
        "splatfix sweep --config configs/sweep.yaml --captures scenes/banana scenes/statue --out runs/sweep",
        "splatfix sweep --out runs/sweep --search.trials 64",
    ],
)
def sweep(*, out: OutUrl, fresh: bool, config_file: Path | None, settings: "SweepConfig") -> None:
    """Search the loop's settings over several captures, and compare the best with the default.

    Writes best.yaml (for splatfix loop --config), trials.csv and sweep.html; MLflow has a run of each trial.

    Args:
        out: folder of the sweep, on a cluster one that every node sees, or a URL of an object store.
    """
    from splatfix.report.terminal import describe_sweep
    from splatfix.sweep.driver import run_sweep

    show(describe_sweep(run_sweep(settings, out, fresh=fresh, source=str(config_file or "flags")), out))


@command(
    config="splatfix.compare.config:CompareConfig",
    shown=(
        *("restorers", "seeds", "path_frames", "loop.views.num_train", "loop.views.size_px", "loop.fit.steps"),
        *("loop.repair.views", "workers.num", "workers.gpus", "tracking.uri"),
    ),
    examples=[
        "splatfix compare scenes/banana --restorers identity,classical,warp,nafnet --out runs/compare",
        "splatfix compare scenes/* --config configs/compare.yaml --out runs/compare --seeds 0 1 2",
    ],
)
def compare(captures: Positional[Captures] = (), *, out: OutUrl, fresh: bool, settings: "CompareConfig") -> None:
    """Compare restorers on captures: single frames, color drift, consistency between views, and the gain in 3D.

    All restorers start from the same sparse fits. Writes compare.json and compare.html. A rerun resumes, and may add
    restorers, captures and seeds: nothing is repaired twice.

    Args:
        captures: folders or URLs of posed photos, or 3DGS .ply files, instead of those in the config.
        out: folder of the comparison, on a cluster one that every node sees, or a URL of an object store.
    """
    from dataclasses import replace

    from splatfix.compare.driver import run_compare
    from splatfix.report.terminal import describe_comparison

    chosen = replace(settings, captures=captures or settings.captures)
    show(describe_comparison(run_compare(chosen, out, fresh=fresh), out))


def _estimate(capture: str | Path, settings: "FitRunConfig") -> None:
    """Print what a loop or a fit would take."""
    from splatfix.loop.estimate import estimate_run

    show(estimate_run(capture, settings).text())


def _finish(out: Path) -> None:
    """Write the page of a measured run, unless it is up to date, and print the results."""
    from splatfix.fit import POSED
    from splatfix.report import describe_run, load_runs, update_report
    from splatfix.report.pose import update_pose_page
    from splatfix.sfm import POSE_RECORD

    [run] = load_runs([out])
    show(describe_run(run, update_report(run)))
    if (out / POSED / POSE_RECORD).is_file():
        show(f"cameras: {update_pose_page(out / POSED)}")


def _dataset_page(url: str) -> None:
    from splatfix.report.dataset import write_dataset_page

    show(f"page: {write_dataset_page(url)}")


def _training_page(out: str) -> None:
    from splatfix.report.training import write_training_page

    if (page := write_training_page(out)) is not None:
        show(f"report: {page}")


if __name__ == "__main__":
    sys.exit(main())
