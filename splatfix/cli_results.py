"""The commands that read finished runs: their pages, the viewer, and what MLflow has not received yet."""

from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from splatfix.command_line import command, show

Sources = Annotated[tuple[str, ...], tyro.conf.arg(metavar="RUN|SPLAT.ply ... [CAPTURE]")]
Runs = Annotated[tuple[Path, ...], tyro.conf.arg(metavar="RUN ...")]


@command(examples=["splatfix sync runs/restorer", "splatfix sync runs/sweep runs/sweep/trials/*"])
def sync(runs: Positional[Runs], *, uri: str | None = None) -> None:
    """Send the records of runs to MLflow that it has not received yet.

    Args:
        runs: run folders.
        uri: MLflow server (http://HOST:PORT) or database (sqlite:///FILE); by default that of MLFLOW_TRACKING_URI, or
            the database in the run folder. An address that only the run folder names has to be confirmed by this flag.
    """
    from splatfix.tracking import page_of, refuse_foreign_address, send_unsent

    for folder in runs:
        if uri is None:
            refuse_foreign_address(folder)
        show(f"{folder}: {send_unsent(folder, uri, quiet=False)} records sent")
        if (page := page_of(folder)) is not None:
            show(f"MLflow: {page}")


@command(examples=["splatfix report runs/banana", "splatfix report runs/a runs/b --out comparison.html"])
def report(runs: Positional[Runs], *, out: Annotated[Path | None, tyro.conf.arg(metavar="FILE.html")] = None) -> None:
    """Write the page of one run, training, sweep or comparison, or put several runs beside each other.

    Args:
        runs: run folders, or the folder of a sweep or a training (also while it runs).
        out: the HTML file to write, or a folder for it; by default report.html (of a sweep sweep.html) in the run
            folder, or comparison.html in the first of several.
    """
    from splatfix.report import load_runs, write_report
    from splatfix.report.compare.page import is_comparison, write_compare_page
    from splatfix.report.sweep.page import is_sweep, write_sweep_page
    from splatfix.report.terminal import describe_runs, describe_verdict
    from splatfix.report.training import write_training_page
    from splatfix.runs import read_run

    if len(runs) == 1 and is_sweep(runs[0]):
        show(f"report: {write_sweep_page(runs[0], out)}")
    elif len(runs) == 1 and is_comparison(runs[0]):
        show(f"report: {write_compare_page(runs[0], out)}")
    elif len(runs) == 1 and (read_run(runs[0]) or {}).get("command") == "train":
        show(f"report: {write_training_page(runs[0], out)}")
    elif len(runs) == 1:
        page = write_report(runs, out)
        [run] = load_runs(runs)
        show("\n".join(describe_verdict(run, page)))
    else:
        page = write_report(runs, out)
        show(describe_runs(load_runs(runs), page))


@command(
    examples=[
        "splatfix view runs/banana",
        "splatfix view runs/banana --live",
        "splatfix view runs/banana/after.ply other.ply scenes/banana",
    ]
)
def view(
    sources: Positional[Sources],
    *,
    live: bool = False,
    host: str = "127.0.0.1",
    port: int = 8080,
) -> None:
    """Look at the splats of a run, and at its photos and repaired views at their cameras, in the browser.

    Switches between before, control and after, computes their colors by direction, and shows where two of them differ.

    Args:
        sources: the folder of a fit, loop or demo, or 3DGS .ply files; also a capture, whose cameras are shown (of a
            run that is the one it was made from).
        live: follow a run that is training: its saved states, of which a fit and a loop write one every 30 s
            (checkpoint_seconds) and at the end of each stage.
        host: address to listen on; 0.0.0.0 lets other machines in.
        port: port to listen on.
    """
    from splatfix.viewer import RunWatcher, find_live_run, open_scene, wait_for_run
    from splatfix.viewer import view as serve

    watcher = None
    if live:
        run = find_live_run(sources)
        wait_for_run(run, show)
        scene = open_scene(sources, cameras_only=True)
        watcher = RunWatcher(run, background=scene.background)
    else:
        scene = open_scene(sources)
    if not scene.world.is_identity:
        show(f"the browser shows x where the file has {scene.world.describe()}")
    serve(scene, host=host, port=port, watcher=watcher, say=show)
