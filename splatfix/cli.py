"""The command line: one short function per command.

Every command that has settings takes ``--config FILE.yaml``; flags override the file. Exit codes: 0 done, 1 failed,
2 bad input, 130 interrupted, 143 terminated.
"""

import argparse
import errno
import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import tyro
from tyro.conf import Positional

import splatfix
from splatfix.config import load_config
from splatfix.process import set_up_logging, stop_on_signals, stop_requested
from splatfix.workers import RunAborted

EXIT_CODES = {"interrupted": 130, "terminated": 143}
T = TypeVar("T")
FLAT = tyro.conf.arg(name="")  # a config's fields become flags without a prefix


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the console script; returns the exit code."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if argv[0] in ("-V", "--version", "version"):
        print(f"splatfix {splatfix.__version__}")
        return 0
    command = COMMANDS.get(argv[0])
    if command is None:
        print(f"splatfix: no command {argv[0]!r}; known: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    set_up_logging()
    stop_on_signals()
    try:
        command(argv[1:])
    except BaseException as error:
        stopped = stop_requested()  # some libraries turn an interruption into an error of their own
        if stopped is not None:
            return _say(argv[0], f"{stopped}; what was finished is whole", EXIT_CODES[stopped])
        if isinstance(error, ValueError):
            return _say(argv[0], str(error), 2)
        if isinstance(error, FloatingPointError):
            return _say(argv[0], str(error), 1)
        if isinstance(error, KeyboardInterrupt):
            return _say(argv[0], "interrupted; what was finished is whole", 130)
        if isinstance(error, RunAborted):
            return _say(argv[0], str(error), 1)
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            return _say(argv[0], f"the disk is full ({error.filename or error}); what was finished is whole", 1)
        if isinstance(error, OSError):
            what = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
            return _say(argv[0], what, 1)
        raise
    return 0


def _say(command: str, message: str, code: int) -> int:
    print(f"splatfix {command}: {message}", file=sys.stderr)
    return code


def _overview() -> str:
    lines = [
        f"splatfix {splatfix.__version__}: render, repair, retrain for 3D Gaussian splats from few photos",
        "",
        "usage: splatfix COMMAND [--config FILE.yaml] [flags]",
        "",
        *(f"  {name:<10} {(command.__doc__ or '').splitlines()[0]}" for name, command in COMMANDS.items()),
        "",
        "Start with `splatfix doctor` and `splatfix demo`; `splatfix COMMAND --help` explains each command.",
    ]
    return "\n".join(lines)


def _settings(kind: type[T], argv: Sequence[str]) -> tuple[T, list[str]]:
    """A stage's config as ``--config`` says (else its defaults), and the arguments without ``--config``."""
    path, rest = _config_path(argv)
    return load_config(kind, path), rest


def _config_path(argv: Sequence[str]) -> tuple[Path | None, list[str]]:
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--config", type=Path, default=None)
    found, rest = finder.parse_known_args(list(argv))
    return found.config, rest


def _run(function: Callable[..., None], command: str, argv: Sequence[str], takes_config: bool = True) -> None:
    """Parse the arguments by the function's signature and call it."""
    hint = "\n\n--config FILE.yaml fills the settings below; flags override it." if takes_config else ""
    tyro.cli(
        function,
        args=list(argv),
        prog=f"splatfix {command}",
        description=inspect.cleandoc(function.__doc__ or "").split("Args:")[0].rstrip() + hint,
        config=(tyro.conf.AvoidSubcommands,),
    )


def doctor(argv: Sequence[str]) -> None:
    """Say what this machine can run, and why not the rest."""

    def run() -> None:
        """Say what this machine can run, and why not the rest."""
        from splatfix.doctor import print_report

        print_report()

    _run(run, "doctor", argv, takes_config=False)


def demo(argv: Sequence[str]) -> None:
    """Run the whole loop on the shipped sample capture."""
    from splatfix.loop import LoopConfig

    default, rest = _settings(LoopConfig, argv)

    def run(
        *, out: Path = Path("runs/demo"), resume: bool = False, settings: Annotated[LoopConfig, FLAT] = default
    ) -> None:
        """Run the whole loop on the sample capture that ships with splatfix: a wooden tankard from six photos.

        Args:
            out: folder to write the run into.
            resume: go on with an interrupted run in that folder.
            settings: the loop.
        """
        from splatfix.sample import sample_path

        _loop(sample_path(), out, settings, resume)

    _run(run, "demo", rest)


def fit(argv: Sequence[str]) -> None:
    """Fit a splat to a few photos of a capture (or to most of them)."""
    from splatfix.fit import FitRunConfig, run_fit

    default, rest = _settings(FitRunConfig, argv)

    def run(
        capture: Positional[Path],
        *,
        out: Path,
        resume: bool = False,
        profile: bool = False,
        settings: Annotated[FitRunConfig, FLAT] = default,
    ) -> None:
        """Fit a splat to a few photos of a capture, and measure it on the others.

        Args:
            capture: folder of posed photos (COLMAP, transforms.json, NeRF-synthetic, LLFF) or a 3DGS .ply.
            out: folder to write the run into.
            resume: go on from the checkpoint of an interrupted run in that folder.
            profile: say where the time of a step goes (profile.json).
            settings: the fit.
        """
        _finish(out, run_fit(capture, out, settings, resume=resume, profile=profile))

    _run(run, "fit", rest)


def loop(argv: Sequence[str]) -> None:
    """Render, repair, retrain: the whole loop on one capture."""
    from splatfix.loop import LoopConfig

    default, rest = _settings(LoopConfig, argv)

    def run(
        capture: Positional[Path],
        *,
        out: Path,
        resume: bool = False,
        settings: Annotated[LoopConfig, FLAT] = default,
    ) -> None:
        """Fit a capture from a few photos, repair novel views, retrain on them, and measure what that gained.

        Args:
            capture: folder of posed photos (COLMAP, transforms.json, NeRF-synthetic, LLFF) or a 3DGS .ply.
            out: folder to write the run into.
            resume: go on with an interrupted run in that folder.
            settings: the loop.
        """
        _loop(capture, out, settings, resume)

    _run(run, "loop", rest)


def generate(argv: Sequence[str]) -> None:
    """Make training pairs: many sparse fits, rendered beside clean views."""
    from splatfix.pairs.generate import GenerateConfig
    from splatfix.pairs.generate import generate as make

    default, rest = _settings(GenerateConfig, argv)

    def run(
        captures: Positional[tuple[str, ...]] = (),
        *,
        out: str,
        dry_run: bool = False,
        on_workers: int | None = None,
        speed: float = 1.0,
        settings: Annotated[GenerateConfig, FLAT] = default,
    ) -> None:
        """Make training pairs: many sparse fits of each capture, rendered beside clean views, on one machine or many.

        A rerun does what is missing; what is finished survives a crash, a kill and a full disk.

        Args:
            captures: folders of posed photos, globs, .yaml lists, dataset roots or URLs, besides those in the config.
            out: folder or URL (s3://, gs://, az://) for the shards, their manifests and dataset.html.
            dry_run: only say how many fits, pairs, shards, bytes and hours that would be.
            on_workers: dry run: hours on so many workers instead of this machine's.
            speed: dry run: how fast one of them is, relative to a worker of this machine.
            settings: the fits.
        """
        if dry_run:
            from splatfix.pairs.estimate import estimate

            print(estimate(captures, out, settings, on_workers=on_workers, speed=speed).text())
            return
        summary = make(captures, out, settings)
        print(summary.text())
        _dataset_page(out)

    _run(run, "generate", rest)


def verify(argv: Sequence[str]) -> None:
    """Recheck shards against their manifests."""

    def run(url: Positional[str], *, repair: bool = False) -> None:
        """Recheck every shard: size, sha256, number of samples, and that each sample decodes.

        Args:
            url: folder or URL of the shards.
            repair: drop what is broken or unlisted, and make it again with the settings that stand there (not while
                pairs are being generated into the same place).
        """
        from splatfix.pairs.generate import generate as make
        from splatfix.pairs.generate import read_settings
        from splatfix.pairs.verify import repair as drop
        from splatfix.pairs.verify import verify as check
        from splatfix.process import progress

        with progress(description="files") as bar:
            found = check(url, on_file=bar.update)
        for problem in found.problems:
            print(problem)
        print(f"{found.num_shards} whole shards with {found.num_samples} pairs, {len(found.problems)} problems")
        if not found.problems:
            return
        if not repair:
            raise ValueError(f"{url}: {len(found.problems)} problems; --repair drops what is broken and makes it again")
        again = drop(url, found)
        print(f"dropped {len(found.broken)} fits and {len(found.unlisted)} unlisted files")
        if again:
            print(make((), url, read_settings(url)).text())
        _dataset_page(url)

    _run(run, "verify", argv, takes_config=False)


def _dataset_page(url: str) -> None:
    from splatfix.report.dataset import write_dataset_page

    print(f"page: {write_dataset_page(url)}")


def train(argv: Sequence[str]) -> None:
    """Train the restorer on paired shards."""
    from splatfix.training.config import TrainConfig
    from splatfix.training.launch import launch

    default, rest = _settings(TrainConfig, argv)

    def run(*, shards: str, out: Path, settings: Annotated[TrainConfig, FLAT] = default) -> None:
        """Train a restorer on pairs (artifact render, clean view) from webdataset shards.

        In this process; in several by ``torchrun --nproc-per-node 2 -m splatfix train ...``, or by Ray Train with
        ``--launch.num 2``, which goes on after a process died. The same command goes on with a run that was stopped.

        Args:
            shards: folder or URL of the shards with their manifest.json.
            out: folder for checkpoints and weights.
            settings: the training.
        """
        launch(shards, out, settings)

    _run(run, "train", rest)


def track(argv: Sequence[str]) -> None:
    """Send to MLflow what it has not got yet."""
    from splatfix.tracking import send_rest

    def run(runs: Positional[tuple[Path, ...]], *, uri: str | None = None) -> None:
        """Send what runs noted while MLflow did not answer. Running it again sends nothing twice.

        Args:
            runs: run folders.
            uri: http://HOST:PORT or sqlite:///FILE; by default where each run was tracked.
        """
        for folder in runs:
            print(f"{folder}: {send_rest(folder, uri)} records sent")

    _run(run, "track", argv, takes_config=False)


def sweep(argv: Sequence[str]) -> None:
    """Search the loop's settings over several captures."""
    from splatfix.sweep.config import SweepConfig

    path, rest = _config_path(argv)
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--out", type=Path, default=None)
    found, others = finder.parse_known_args(rest)
    if path is None and "--resume" in others and found.out is not None and (found.out / "config.yaml").is_file():
        path = found.out / "config.yaml"  # as it was begun
    default = load_config(SweepConfig, path)

    def run(*, out: Path, resume: bool = False, settings: Annotated[SweepConfig, FLAT] = default) -> None:
        """Search the loop's settings over several captures, and say whether the best beats the default.

        Writes best.yaml (for splatfix loop --config), trials.csv and sweep.html; MLflow has a run of each trial.

        Args:
            out: folder of the sweep; on a cluster one that every node sees.
            resume: go on with the sweep in that folder (without --config: with the settings that it was begun with).
            settings: the sweep.
        """
        from splatfix.report.terminal import describe_sweep
        from splatfix.sweep.driver import run_sweep

        print(describe_sweep(run_sweep(settings, out, resume=resume, source=str(path or "flags")), out))

    _run(run, "sweep", rest)


def evaluate(argv: Sequence[str]) -> None:
    """Measure a splat on the test photos of a capture."""
    from splatfix.evaluation.run import EvaluateConfig, run_evaluate

    default, rest = _settings(EvaluateConfig, argv)

    def run(
        capture: Positional[Path],
        splat: Positional[Path],
        *,
        split: Path,
        out: Path,
        settings: Annotated[EvaluateConfig, FLAT] = default,
    ) -> None:
        """Measure a splat on the test photos of a capture.

        Args:
            capture: folder of posed photos.
            splat: the 3DGS .ply, in the capture's world coordinates.
            split: split.json with train_ids and test_ids (and size_px), as every run folder has one.
            out: folder to write the run into.
            settings: the evaluation.
        """
        _finish(out, run_evaluate(capture, splat, split, out, settings))

    _run(run, "evaluate", rest)


def report(argv: Sequence[str]) -> None:
    """Write the page of one run, or a comparison of several."""

    def run(runs: Positional[tuple[Path, ...]], *, out: Path | None = None) -> None:
        """Write one self-contained HTML page of one run or sweep, or a comparison of several runs.

        Args:
            runs: run folders, or the folder of a sweep (also while it runs).
            out: the HTML file to write, or a folder for it; by default report.html (of a sweep sweep.html) in the run
                folder, or comparison.html in the first of several.
        """
        from splatfix.report import write_report
        from splatfix.report.sweep.page import is_sweep, write_sweep_page

        if len(runs) == 1 and is_sweep(runs[0]):
            print(f"report: {write_sweep_page(runs[0], out)}")
        else:
            print(f"report: {write_report(runs, out)}")

    _run(run, "report", argv, takes_config=False)


def view(argv: Sequence[str]) -> None:
    """Look at a splat in the browser."""

    def run(
        splat: Positional[Path],
        capture: Positional[Path | None] = None,
        *,
        host: str = "127.0.0.1",
        port: int = 8080,
    ) -> None:
        """Look at a splat, and at the cameras of its capture, in the browser.

        Args:
            splat: a 3DGS .ply.
            capture: folder of the posed photos whose cameras are shown.
            host: address to listen on; 0.0.0.0 lets other machines in.
            port: port to listen on.
        """
        from splatfix.captures import open_capture
        from splatfix.gaussians import read_splat
        from splatfix.viewer import view as serve

        opened = None if capture is None else open_capture(capture)
        serve(read_splat(splat), opened, host=host, port=port)

    _run(run, "view", argv, takes_config=False)


def _loop(capture: Path, out: Path, settings, resume: bool) -> None:
    from splatfix.loop import run_loop

    _finish(out, run_loop(capture, out, settings, resume=resume))


def _finish(out: Path, results) -> None:
    """The table in the terminal and the page on disk, at the end of every measured run."""
    from splatfix.report import write_report
    from splatfix.report.terminal import results_table

    page = write_report([out])
    print(results_table(results))
    print(f"report: {page}")


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "doctor": doctor,
    "demo": demo,
    "fit": fit,
    "generate": generate,
    "verify": verify,
    "train": train,
    "track": track,
    "loop": loop,
    "sweep": sweep,
    "evaluate": evaluate,
    "report": report,
    "view": view,
}

if __name__ == "__main__":
    sys.exit(main())
