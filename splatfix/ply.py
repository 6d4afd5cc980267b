"""Vertices of PLY files, those of splats among them, which are broken, and the names of other formats of splats."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy import ndarray

from splatfix.shapes import Bool, Float, Shaped

MAX_HEADER_BYTES = 1 << 20
NUM_TELLING = 10  # Gaussians, from which their values tell whether they are activated
MAX_STEP = 0.5  # between positions that float32 can hold, over the median size of the Gaussians
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


def list_splat_properties(num_rest: int) -> list[str]:
    """List the properties of a standard 3DGS ``.ply`` with some coefficients above degree 0, in their order."""
    return [
        *("x", "y", "z", "nx", "ny", "nz"),
        *(f"f_dc_{i}" for i in range(3)),
        *(f"f_rest_{i}" for i in range(3 * num_rest)),
        "opacity",
        *(f"scale_{i}" for i in range(3)),
        *(f"rot_{i}" for i in range(4)),
    ]


def check_ply(path: Path) -> None:
    """Check that a file exists and is not a splat in another format, without reading it. ValueError otherwise."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file; wanted a 3D Gaussian splat as .ply")
    refuse_other_splat(path)


def read_splat_columns(path: Path) -> tuple[dict[str, ndarray], list[str]]:
    """Read the columns of a 3DGS ``.ply``, and notes on what was left out or changed; see `gaussians.read_ply`.

    Returns:
        ``means`` (float64), ``scales``, ``quats``, ``opacity``, ``sh0`` and ``rest``, as in the file, and the notes.

    Raises:
        ValueError: as `gaussians.read_ply`.
    """
    check_ply(path)
    vertex = read_vertices(path)
    names = set(vertex.dtype.names or ())
    num_rest = sum(name.startswith("f_rest_") for name in names)
    if num_rest not in (0, 9, 24, 45, 72):
        raise ValueError(f"{path}: {num_rest} f_rest_* properties, wanted 0, 9, 24, 45 or 72 (SH degree 0 to 4)")
    columns = _group_columns(num_rest) | ({"filter": ("filter_3D",)} if "filter_3D" in names else {})
    values = {key: _stack_columns(path, vertex, group) for key, group in columns.items()}
    values["opacity"] = np.clip(values["opacity"], -30, 30)
    sound, notes = find_sound_rows(path, {columns[key]: group for key, group in values.items()})
    if not sound.all():
        values = {key: group[sound] for key, group in values.items()}
    if "filter" in values:
        _apply_filter(values)
        notes.append(f"{path.name}: the 3D filter of Mip-Splatting (filter_3D) is applied to scales and opacities")
    notes += _describe_odd_values(path, values)
    if vertex["x"].dtype.itemsize == 4:
        notes += _describe_rounding(path, values)
    if num_rest == 72:
        notes.append(f"{path.name}: spherical harmonics of degree 4: only degrees 0 to 3 are used")
    return values, notes


def _describe_odd_values(path: Path, values: dict[str, ndarray]) -> list[str]:
    """Describe values that are not those of a 3DGS ``.ply``, and make rotations that are 0 the identity."""
    notes = []
    is_zero = (values["quats"] == 0).all(axis=1)
    if is_zero.any():
        values["quats"][is_zero] = (1, 0, 0, 0)
        notes.append(f"{path.name}: {is_zero.sum()} of {len(is_zero)} rotations are 0: taken as none")
    opacity, scales = values["opacity"], values["scales"]
    if len(scales) >= NUM_TELLING and scales.min() > 0 and opacity.min() >= 0 and opacity.max() <= 1:
        notes.append(
            f"{path.name}: all scale_* are above 0 and all opacity from 0 to 1: they seem to be sizes and opacities; "
            "wanted their logarithms and logits, as 3DGS writes them"
        )
    return notes


def _describe_rounding(path: Path, values: Mapping[str, ndarray]) -> list[str]:
    """Describe float32 positions so far from the origin that they are coarse for their Gaussians: one note, or none."""
    if len(values["means"]) == 0:
        return []
    farthest = float(np.median(np.abs(values["means"]).max(axis=1)))
    step, size = float(np.spacing(np.float32(farthest))), float(np.exp(np.median(values["scales"])))
    if step <= MAX_STEP * size:
        return []
    return [
        f"{path.name}: positions near {farthest:.3g} are rounded to {step:.2g} by float32, coarse for Gaussians of "
        f"size {size:.2g}; save it with coordinates near 0, or with positions in float64"
    ]


def _group_columns(num_rest: int) -> dict[str, tuple[str, ...]]:
    """Group the properties of a 3DGS ``.ply`` that are read."""
    return {
        "means": ("x", "y", "z"),
        "scales": ("scale_0", "scale_1", "scale_2"),
        "quats": ("rot_0", "rot_1", "rot_2", "rot_3"),
        "opacity": ("opacity",),
        "sh0": ("f_dc_0", "f_dc_1", "f_dc_2"),
        "rest": tuple(f"f_rest_{i}" for i in range(num_rest)),
    }


def _stack_columns(path: Path, vertex: ndarray, columns: tuple[str, ...]) -> Float[ndarray, "N _"]:
    """Stack properties as columns, positions in float64. ValueError if one is missing."""
    missing = [name for name in columns if name not in (vertex.dtype.names or ())]
    if missing:
        raise ValueError(f"{path}: property {missing[0]!r} is missing; wanted a 3DGS .ply with {list(columns)}")
    dtype = np.float64 if columns == ("x", "y", "z") else np.float32
    table = np.empty((len(vertex), len(columns)), dtype)
    for index, name in enumerate(columns):
        table[:, index] = vertex[name]
    return table


def _apply_filter(values: dict[str, ndarray]) -> None:
    """Apply the 3D smoothing filter of Mip-Splatting (Yu et al. 2024, eq. 7), a standard deviation per Gaussian.

    Its training saves scales and opacities without it, and applies it whenever it renders.
    """
    variances = np.exp(2 * values["scales"].astype(np.float64))
    filtered = variances + values.pop("filter").astype(np.float64) ** 2
    factor = np.sqrt((variances / filtered).prod(axis=1, keepdims=True))
    opacities = np.clip(factor / (1 + np.exp(-values["opacity"].astype(np.float64))), 1e-13, 1 - 1e-13)
    values["scales"] = 0.5 * np.log(filtered)
    values["opacity"] = np.log(opacities / (1 - opacities))
