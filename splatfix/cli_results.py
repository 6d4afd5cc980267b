"""The commands that read finished runs: their pages, the viewer, and what MLflow has not received yet."""

from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from splatfix.command_line import command, show

SplatPath = Annotated[Path, tyro.conf.arg(metavar="SPLAT.ply")]
Runs = Annotated[tuple[Path, ...], tyro.conf.arg(metavar="RUN ...")]


@command(examples=["splatfix sync runs/restorer", "splatfix sync runs/sweep runs/sweep/trials/*"])
def sync(runs: Positional[Runs], *, uri: str | None = None) -> None:
    """Send the records of runs to MLflow that it has not received yet.

    Args:
        runs: run folders.
        uri: MLflow server (http://HOST:PORT) or database (sqlite:///FILE); by default that of MLFLOW_TRACKING_URI, or
            the database in the run folder. An address that only the run folder names has to be confirmed by this flag.
    """
    from splatfix.tracking import refuse_foreign_address, send_unsent

    for folder in runs:
        if uri is None:
            refuse_foreign_address(folder)
        show(f"{folder}: {send_unsent(folder, uri, quiet=False)} records sent")


@command(examples=["splatfix report runs/banana", "splatfix report runs/a runs/b --out comparison.html"])
def report(runs: Positional[Runs], *, out: Annotated[Path | None, tyro.conf.arg(metavar="FILE.html")] = None) -> None:
    """Write the page of one run, sweep or comparison, or put several runs beside each other.

    Args:
        runs: run folders, or the folder of a sweep (also while it runs).
        out: the HTML file to write, or a folder for it; by default report.html (of a sweep sweep.html) in the run
            folder, or comparison.html in the first of several.
    """
    from splatfix.report import write_report
    from splatfix.report.compare.page import is_comparison, write_compare_page
    from splatfix.report.sweep.page import is_sweep, write_sweep_page

    if len(runs) == 1 and is_sweep(runs[0]):
        show(f"report: {write_sweep_page(runs[0], out)}")
    elif len(runs) == 1 and is_comparison(runs[0]):
        show(f"report: {write_compare_page(runs[0], out)}")
    else:
        show(f"report: {write_report(runs, out)}")


@command(examples=["splatfix view runs/banana/after.ply", "splatfix view runs/banana/after.ply scenes/banana"])
def view(
    splat: Positional[SplatPath],
    capture: Positional[Annotated[str | None, tyro.conf.arg(metavar="CAPTURE")]] = None,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
) -> None:
    """Look at a splat, and at the cameras of its capture, in the browser.

    Args:
        splat: a 3DGS .ply.
        capture: folder or URL of the posed photos whose cameras are shown.
        host: address to listen on; 0.0.0.0 lets other machines in.
        port: port to listen on.
    """
    from splatfix.captures import open_capture
    from splatfix.gaussians import read_recorded_world, read_splat
    from splatfix.viewer import view as serve

    opened = None if capture is None else open_capture(capture)
    file_from_world = read_recorded_world(splat) if opened is None else opened.file_from_world
    if not file_from_world.is_identity:
        show(f"the browser shows x where the file has {file_from_world.describe()}")
    serve(read_splat(splat, file_from_world=file_from_world), opened, host=host, port=port)
