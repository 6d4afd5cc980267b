"""Vertices of PLY files and which of them are broken, and the names of other formats of splats."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy import ndarray

from splatfix.shapes import Bool, Shaped

MAX_HEADER_BYTES = 1 << 20
MAX_BROKEN_SHARE = 0.1  # of the rows of a file; a file with more was not written whole
OTHER_SPLATS = {  # by suffix; none of these formats is read
    ".splat": "the .splat format of web viewers",
    ".ksplat": "the .ksplat format of web viewers",
    ".spz": "the compressed .spz format",
    ".sog": "the compressed .sog format",
    ".compressed.ply": "a compressed .ply",
}
CONVERTER = "npx @playcanvas/splat-transform"  # reads all of them


def read_header(path: Path) -> str:
    """Read the header of a PLY file, up to ``end_header``; empty for other files, and where it is over 1 MB long."""
    with path.open("rb") as file:
        if file.read(3) != b"ply":
            return ""
        header = file.read(8192)
        while b"end_header" not in header and len(header) < MAX_HEADER_BYTES:
            more = file.read(len(header))
            if not more:
                break
            header += more
    text, end, _ = header.partition(b"end_header")
    return text.decode("latin-1") if end else ""


def name_other_splat(path: Path) -> str | None:
    """Name the format of a file that holds a splat which is not a 3DGS ``.ply``, by its name or header; else None."""
    for suffix, name in OTHER_SPLATS.items():
        if path.name.lower().endswith(suffix):
            return name
    if path.suffix.lower() == ".ply" and path.is_file() and " packed_position" in read_header(path):
        return OTHER_SPLATS[".compressed.ply"]
    return None


def refuse_other_splat(path: Path) -> None:
    """Check that a file is not a splat in another format. ValueError with a converter if it is."""
    name = name_other_splat(path)
    if name is not None:
        stem = path.name.split(".")[0]
        raise ValueError(
            f"{path}: {name}; wanted a 3DGS .ply: convert it, for example with {CONVERTER} {path.name} {stem}_3dgs.ply"
        )


def read_vertices(path: Path) -> ndarray:
    """Read the vertices of a PLY file as a structured array.

    Raises:
        ValueError: not a PLY, truncated, or without vertices.
    """
    from plyfile import PlyData  # here: kernels and fits must import without plyfile

    try:
        return PlyData.read(str(path), mmap="c")["vertex"].data
    except Exception as error:  # plyfile raises many kinds; each means that the file is not a whole PLY
        raise ValueError(f"{path}: cannot be read as PLY ({error}); is the file whole?") from error


def find_sound_rows(
    path: Path, groups: Mapping[tuple[str, ...], Shaped[ndarray, "N _"]]
) -> tuple[Bool[ndarray, " N"], list[str]]:
    """Find the rows that are finite and not zero throughout, and describe the others: a list of one note, or of none.

    Programs that are stopped while they write, or that prune badly, leave such rows.

    Args:
        path: of the file, for notes and errors.
        groups: the values of properties, by their names.

    Raises:
        ValueError: more than a tenth of the rows is broken.
    """
    num_rows = len(next(iter(groups.values())))
    finite = {names: np.isfinite(values).all(axis=1) for names, values in groups.items()}
    broken = ~np.all(list(finite.values()), axis=0)
    zero = np.arange(num_rows)
    for values in groups.values():
        zero = zero[(values[zero] == 0).all(axis=1)]
    broken[zero] = True
    num = int(broken.sum())
    if num == 0:
        return ~broken, []
    row = int(broken.argmax())
    if num > MAX_BROKEN_SHARE * num_rows:
        names = next((names for names, sound in finite.items() if not sound[row]), next(iter(groups)))
        raise ValueError(
            f"{path}: vertex {row}: {list(names)} = {groups[names][row].tolist()}, and {num} of {num_rows} vertices "
            "are zeros or not finite; wanted finite numbers in at least 90 %: is the file whole? Export it again"
        )
    return ~broken, [f"{path.name}: {num} of {num_rows} vertices are zeros or not finite (the first: {row}): left out"]
