"""Write splats in the formats that other programs read: compressed files, and pages that show a splat in the browser.

gsplat's exporter writes ``.splat`` and compressed ``.ply`` files, and viser (an extra) the pages. Programs that users
install write the others: PlayCanvas' splat-transform ``.spz`` and ``.sog``, NVIDIA's usd-convert-gsplat ``.usdz``.
"""

from __future__ import annotations

import html
import logging
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from splatfix.evaluation.results import RESULTS, read_results
from splatfix.files import scratch_folder, write_text, write_whole
from splatfix.gaussians import Splat, read_recorded_world, read_splat, write_ply
from splatfix.programs import describe_exit, run_program
from splatfix.report.wording import recommended_arm

log = logging.getLogger(__name__)

Format = Literal["ply", "compressed-ply", "splat", "spz", "sog", "usdz", "html"]
ANTIALIASED = "the splat was fitted antialiased, which most viewers do not draw: thin parts look bolder there"
VIEWED_ARMS = ("before", "after")
VIEWER = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}: before and after</title>
<style>
body {{ margin: 0; display: flex; flex-wrap: wrap; height: 100vh; font: 16px/1.5 system-ui, sans-serif; }}
figure {{ margin: 0; flex: 1 1 20rem; display: flex; flex-direction: column; min-height: 50vh; }}
figcaption {{ padding: 0.3rem 0.8rem; }}
iframe {{ flex: 1; border: 0; }}
</style></head>
<body>
{frames}
</body></html>
"""
MAX_SECONDS = 3600  # a splat of ten million Gaussians takes minutes


@dataclass(frozen=True)
class Program:
    """A program that converts a ``.ply``; it knows formats by their endings.

    Attributes:
        name: of the executable.
        install: command that installs it.
        before_input, before_output: arguments before either file.
    """

    name: str
    install: str
    before_input: tuple[str, ...]
    before_output: tuple[str, ...] = ()


SPLAT_TRANSFORM = Program(
    "splat-transform", "npm install --global @playcanvas/splat-transform", ("--quiet", "--gpu", "cpu")
)
USD_CONVERTER = Program("usd-convert-gsplat", "pipx install 'usd-convert-gsplat[usd]'", ("--input",), ("--output",))


@dataclass(frozen=True)
class ExportFormat:
    """A format that splats are exported in.

    Attributes:
        ending: of its files.
        write: writes a splat into a file; None for a plain ``.ply``, which alone holds any coordinates.
        loss: what the file does not hold, for the user; empty for a format without loss.
    """

    ending: str
    write: Callable[[Splat, Path], None] | None
    loss: str


@dataclass(frozen=True)
class Export:
    """An exported file, and sentences on what it does not hold."""

    path: Path
    losses: tuple[str, ...]


def export_splat(source: Path, form: Format, out: Path | None = None) -> Export:
    """Export a splat in another format.

    Args:
        source: a 3DGS ``.ply``, or the folder of a run: then the splat that its report recommends.
        form: name of the format.
        out: file to write; by default beside the splat, with the ending of the format.

    Returns:
        The file that was written, whole or not at all, and what it does not hold.

    Raises:
        ValueError: no splat, or what writes the format is not installed; the message says what to install.
    """
    path = recommended_splat(source) if source.is_dir() else source
    file_from_world, export_format = read_recorded_world(path), FORMATS[form]
    splat = read_splat(path, file_from_world=file_from_world)
    out = path.with_name(path.stem + export_format.ending) if out is None else out
    if out.resolve() == path.resolve():
        raise ValueError(f"{out}: is the splat itself; wanted another file for --out, or another format")
    if len(splat.gaussians) == 0:
        raise ValueError(f"{path}: no Gaussians; wanted at least one")
    if not out.name.endswith(export_format.ending):
        raise ValueError(f"{out}: wanted a name that ends in {export_format.ending}, by which programs know the format")
    losses = [export_format.loss, ANTIALIASED if splat.mode == "antialiased" else ""]
    with write_whole(out) as temporary:
        if export_format.write is None:
            write_ply(temporary, splat.gaussians, file_from_world=file_from_world)
        else:
            export_format.write(splat, temporary)
            if not file_from_world.is_identity:  # these formats hold positions in float32 or less
                losses.append(f"its coordinates are x where those of the .ply are {file_from_world.describe()}")
    return Export(out, tuple(filter(None, losses)))


def export_viewer(run: Path) -> Export:
    """Write ``viewer.html`` beside the report of a run: ``before`` and ``after`` side by side, without a server.

    It shows the pages ``before.html`` and ``after.html``, which are written too.

    Raises:
        ValueError: the folder holds no splat, or viser is not installed.
    """
    arms = [arm for arm in VIEWED_ARMS if (run / f"{arm}.ply").is_file()]
    if not arms:
        raise ValueError(f"{run}: neither before.ply nor after.ply; wanted the folder of a run")
    exports = [export_splat(run / f"{arm}.ply", "html") for arm in arms]
    frames = "\n".join(
        f'<figure><figcaption>{arm}</figcaption><iframe src="{arm}.html" title="{arm}"></iframe></figure>'
        for arm in arms
    )
    write_text(run / "viewer.html", VIEWER.format(title=html.escape(run.resolve().name), frames=frames))
    return Export(run / "viewer.html", exports[-1].losses)


def recommended_splat(run: Path) -> Path:
    """The splat of a run that is best on its test photos: ``after.ply``, unless the loop made it worse.

    Raises:
        ValueError: the folder holds no finished run.
    """
    arm = recommended_arm(read_results(run))
    if arm is None or not (run / f"{arm}.ply").is_file():
        raise ValueError(f"{run}: no {arm or 'after'}.ply beside {RESULTS}; pass a .ply")
    return run / f"{arm}.ply"


def _write_with_gsplat(splat: Splat, path: Path, form: Literal["splat", "ply_compressed"]) -> None:
    from gsplat.exporter import export_splats

    g = splat.gaussians.detach().to("cpu")
    export_splats(g.means, g.log_scales, g.quats, g.opacity_logits, g.sh0, g.sh_rest, format=form, save_to=str(path))


def _write_with_program(splat: Splat, path: Path, program: Program, ending: str) -> None:
    """Write a plain ``.ply`` and let a program convert it."""
    executable = shutil.which(program.name)
    if executable is None:
        raise ValueError(
            f"{ending} files are written by {program.name}, which is not on the PATH; remedy: {program.install}"
        )
    with scratch_folder("export") as folder:
        plain, converted = folder / "splat.ply", folder / f"converted{ending}"
        write_ply(plain, splat.gaussians)
        log.info(
            "%s is converting %d Gaussians, which may take minutes (at most %d s)",
            *(program.name, len(splat.gaussians), MAX_SECONDS),
        )
        command = [executable, *program.before_input, str(plain), *program.before_output, str(converted)]
        try:
            run = run_program(command, timeout_seconds=MAX_SECONDS)
        except subprocess.TimeoutExpired:
            raise OSError(f"{program.name} has not ended after {MAX_SECONDS} s; it was stopped") from None
        if run.code != 0 or not converted.is_file() or converted.stat().st_size == 0:
            lines = [line for line in (run.errors + run.output).splitlines() if line.strip()]
            reason = "it wrote no file, or an empty one" if run.code == 0 else describe_exit(run.code)
            raise OSError(f"{program.name} failed: {lines[-1].strip() if run.code > 0 and lines else reason}")
        shutil.copyfile(converted, path)


def _write_page(splat: Splat, path: Path) -> None:
    """Write a page that shows the splat without a server: viser's client with the scene in it."""
    from splatfix.viewer import make_page

    path.write_text(make_page(splat), encoding="utf-8")


NO_VIEW_DEPENDENCE = "without view dependence: the color of each Gaussian is that of its constant band"
FORMATS: dict[Format, ExportFormat] = {
    "ply": ExportFormat(".ply", None, ""),
    "compressed-ply": ExportFormat(
        ".compressed.ply",
        partial(_write_with_gsplat, form="ply_compressed"),
        "positions and scales with 11, 10 and 11 bits in each block of 256, colors and opacities with 8",
    ),
    "splat": ExportFormat(
        ".splat", partial(_write_with_gsplat, form="splat"), f"8 bits for color and rotation, {NO_VIEW_DEPENDENCE}"
    ),
    "spz": ExportFormat(".spz", partial(_write_with_program, program=SPLAT_TRANSFORM, ending=".spz"), "quantized"),
    "sog": ExportFormat(
        ".sog",
        partial(_write_with_program, program=SPLAT_TRANSFORM, ending=".sog"),
        "quantized, view dependence clustered",
    ),
    "usdz": ExportFormat(".usdz", partial(_write_with_program, program=USD_CONVERTER, ending=".usdz"), ""),
    "html": ExportFormat(".html", _write_page, NO_VIEW_DEPENDENCE),
}
