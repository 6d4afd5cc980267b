"""Paths of the pictures in a run folder, for evaluation, which writes them, and report, which reads them.

::

    images/<stem>/{photo,before,control,after,post}.jpg   at the size of the evaluation
    images/<stem>/error_{before,control,after,post}.png   `error_maps.error_map`
    rounds/<round>/<stem>.{render,repaired}.jpg           repair views
    rounds/<round>/<stem>.mask.png                        their artifact masks (white), if the restorer has such
    path.mp4                                              before | after along a path
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from splatfix.evaluation.results import ARMS

VIDEO = "path.mp4"
EVALUATION_FILES = (  # glob patterns of all that an evaluation and its report write
    *("split.json", "results.json", "views.json", "report.html", VIDEO),
    *(f"images/*/{kind}.jpg" for kind in ("photo", *ARMS)),
    *(f"images/*/error_{arm}.png" for arm in ARMS),
)
REPAIR_FILES = ("rounds/*/*.render.jpg", "rounds/*/*.repaired.jpg", "rounds/*/*.mask.png")


def view_stem(name: str) -> str:
    """A folder or file name for a view: safe on every file system, unique per view name, readable.

    The view's name without its suffix, other characters than letters, digits, ``_`` and ``-`` replaced, at most 40
    characters, then 8 hex digits of the whole name's SHA-256: ``a/b.jpg`` and ``a_b.png`` stay apart, also where the
    file system ignores case.
    """
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    readable = re.sub(r"\.[A-Za-z0-9]{1,5}$", "", name)
    readable = re.sub(r"[^A-Za-z0-9_-]+", "_", readable).strip("_-")[-40:].strip("_-")
    return f"{readable}-{digest}" if readable else digest


def image_path(run: Path, view: str, kind: str) -> Path:
    """Where the photo (``photo``) or the render of an arm (``before``, ...) of a test view is kept."""
    assert kind in ("photo", *ARMS), kind
    return Path(run) / "images" / view_stem(view) / f"{kind}.jpg"


def error_path(run: Path, view: str, arm: str) -> Path:
    """Where the error map of an arm at a test view is kept."""
    assert arm in ARMS, arm
    return Path(run) / "images" / view_stem(view) / f"error_{arm}.png"


def repair_path(run: Path, round_number: int, view: str, kind: str) -> Path:
    """Where a repair view of a round is kept: ``kind`` is ``render`` (flawed), ``repaired`` or ``mask``."""
    assert kind in ("render", "repaired", "mask"), kind
    suffix = "png" if kind == "mask" else "jpg"
    return Path(run) / "rounds" / str(round_number) / f"{view_stem(view)}.{kind}.{suffix}"


def repair_mask(render: Path) -> Path:
    """Where the mask of a repair view is, from the path of its render; it need not exist."""
    return render.with_name(render.name.replace(".render.jpg", ".mask.png"))


def repair_rounds(run: Path) -> list[int]:
    """The rounds with repair views in the run folder, in order."""
    folder = Path(run) / "rounds"
    if not folder.is_dir():
        return []
    return sorted(int(entry.name) for entry in folder.iterdir() if entry.is_dir() and entry.name.isdigit())


def repair_pairs(run: Path, round_number: int) -> list[tuple[Path, Path]]:
    """(render, repaired) of a round, by file name; a render without its repair is left out."""
    folder = Path(run) / "rounds" / str(round_number)
    renders = sorted(folder.glob("*.render.jpg"))
    pairs = [(path, path.with_name(path.name.replace(".render.", ".repaired."))) for path in renders]
    return [pair for pair in pairs if pair[1].is_file()]
