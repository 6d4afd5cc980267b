"""Gaussians with opacity and spherical-harmonics color, splats (Gaussians with a render mode) and their files.

Parameters are kept as they are optimized (log-scales, opacity logits, unnormalized quaternions), as in 3D Gaussian
Splatting (Kerbl et al. 2023) and its ``.ply`` files.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from splatfix.files import read_json, write_json, write_whole
from splatfix.ply import list_splat_properties, read_splat_columns
from splatfix.shapes import Float, Shaped
from splatfix.similarity import IDENTITY, Similarity

log = logging.getLogger(__name__)

SH_C0 = 0.28209479177387814  # the constant band of real spherical harmonics
SPLAT_FILE = "splat.json"  # render mode and background of the .ply files of a folder
SPLAT_SCHEMA = 1
MAX_REST = 15  # coefficients above degree 0 that are used, those of degrees 1 to 3

RenderMode = Literal["classic", "antialiased"]


@dataclass(frozen=True, eq=False)
class Gaussians:
    """Parameters of ``N`` 3D Gaussians, as they are optimized.

    Attributes:
        means: centers in world units, ``[N, 3]``.
        log_scales: natural log of the standard deviation per axis, ``[N, 3]``.
        quats: rotations wxyz, not necessarily unit, ``[N, 4]``.
        opacity_logits: inverse sigmoid of the opacity, ``[N]``.
        sh0: constant spherical-harmonics coefficients, ``[N, 1, 3]``.
        sh_rest: higher coefficients, ``[N, K, 3]`` with K = 0, 3, 8 or 15.
    """

    means: Float[Tensor, "N 3"]
    log_scales: Float[Tensor, "N 3"]
    quats: Float[Tensor, "N 4"]
    opacity_logits: Float[Tensor, " N"]
    sh0: Float[Tensor, "N 1 3"]
    sh_rest: Float[Tensor, "N K 3"]

    def __len__(self) -> int:
        return len(self.means)

    @property
    def sh_degree(self) -> int:
        """Degree of the stored spherical harmonics, 0 to 3."""
        return round((1 + self.sh_rest.shape[1]) ** 0.5) - 1

    @property
    def scales(self) -> Float[Tensor, "N 3"]:
        """Standard deviations along the axes, in world units."""
        return self.log_scales.exp()

    @property
    def opacities(self) -> Float[Tensor, " N"]:
        """Opacities in (0, 1)."""
        return self.opacity_logits.sigmoid()

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return self.means.device

    def to(self, *args, **kwargs) -> Gaussians:
        """Convert every parameter with ``Tensor.to``."""
        return Gaussians(**{f.name: getattr(self, f.name).to(*args, **kwargs) for f in fields(self)})

    def detach(self) -> Gaussians:
        """Detach every parameter from the autograd graph."""
        return Gaussians(**{f.name: getattr(self, f.name).detach() for f in fields(self)})

    def __getitem__(self, which: Shaped[Tensor, " M"] | slice) -> Gaussians:
        return Gaussians(**{f.name: getattr(self, f.name)[which] for f in fields(self)})

    def concatenate(self, other: Gaussians) -> Gaussians:
        """Append other Gaussians of the same degree of spherical harmonics."""
        return Gaussians(**{f.name: torch.cat([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self)})


@dataclass(frozen=True, eq=False)
class Splat:
    """Gaussians with the mode and the background that they are rendered with.

    Attributes:
        gaussians: the Gaussians.
        mode: ``classic`` adds 0.3 px^2 to every projected variance; ``antialiased`` also lowers the opacity
            to compensate (Mip-Splatting, Yu et al. 2024). A splat looks right only in the mode that it was fitted in.
        background: RGB behind the Gaussians, ``[3]``; None is black.
    """

    gaussians: Gaussians
    mode: RenderMode = "classic"
    background: Sequence[float] | Tensor | None = None

    @property
    def device(self) -> torch.device:
        """Device of the Gaussians."""
        return self.gaussians.device

    def to(self, *args, **kwargs) -> Splat:
        """Convert the Gaussians with ``Tensor.to``."""
        return replace(self, gaussians=self.gaussians.to(*args, **kwargs))

    def detach(self) -> Splat:
        """Detach the Gaussians from the autograd graph."""
        return replace(self, gaussians=self.gaussians.detach())


def rotations(quats: Float[Tensor, "N 4"]) -> Float[Tensor, "N 3 3"]:
    """Compute rotation matrices from quaternions wxyz, of any norm; their columns are the axes of the Gaussians."""
    w, x, y, z = torch.nn.functional.normalize(quats, dim=-1).unbind(-1)
    rows = [
        *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    ]
    return torch.stack(rows, dim=-1).reshape(-1, 3, 3)


def covariances(quats: Float[Tensor, "N 4"], scales: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3 3"]:
    """Compute world covariances ``R diag(s)^2 R^T`` from quaternions wxyz, of any norm, and standard deviations."""
    axes = rotations(quats) * scales[:, None, :]
    return axes @ axes.transpose(1, 2)


def make_isotropic_gaussians(
    positions: Float[np.ndarray, "N 3"],
    colors: Float[np.ndarray, "N 3"],
    log_scales: Float[np.ndarray, " N"],
    *,
    opacity: float,
    sh_degree: int,
    device: torch.device | str = "cpu",
) -> Gaussians:
    """Make Gaussians with the same standard deviation along each axis and the same color from every direction.

    Args:
        positions: centers in world units.
        colors: RGB in [0, 1].
        log_scales: natural log of the standard deviations.
        opacity: of all of them, in (0, 1).
        sh_degree: degree of the spherical harmonics, 0 to 3; the coefficients above degree 0 are zero.
    """

    def tensor(values: np.ndarray) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32, device=device)

    n = len(positions)
    return Gaussians(
        means=tensor(positions),
        log_scales=tensor(log_scales)[:, None].repeat(1, 3),
        quats=tensor(np.tile([1.0, 0.0, 0.0, 0.0], (n, 1))),
        opacity_logits=torch.full((n,), float(np.log(opacity / (1 - opacity))), device=device),
        sh0=tensor((colors - 0.5) / SH_C0)[:, None, :],
        sh_rest=torch.zeros(n, (sh_degree + 1) ** 2 - 1, 3, device=device),
    )


def elongation(gaussians: Gaussians) -> dict[str, float | None]:
    """Compute the ratio of the longest to the shortest axis: ``{"median", "p95"}``, None without Gaussians."""
    if len(gaussians) == 0:
        return {"median": None, "p95": None}
    logs = gaussians.log_scales.detach().double()
    ratio = (logs.amax(1) - logs.amin(1)).exp().cpu().numpy()
    return {"median": float(np.median(ratio)), "p95": float(np.percentile(ratio, 95))}


def write_ply(path: Path | str, gaussians: Gaussians, *, file_from_world: Similarity = IDENTITY) -> None:
    """Write the standard 3DGS ``.ply`` (binary, float32, normals zero), whole or not at all.

    ``f_rest`` is channel-major: all red coefficients, then green, then blue.

    Args:
        path: of the file.
        gaussians: in the world of a capture.
        file_from_world: that of the capture; the file has the coordinates of the capture's files. Far from their
            origin float32 is too coarse for positions: where the offset is not zero, x, y and z are double.
    """
    from plyfile import PlyData, PlyElement  # here: kernels and fits must import without plyfile

    g = gaussians.detach().to("cpu", torch.float32)
    if not file_from_world.is_identity:
        g = replace(g, log_scales=g.log_scales + math.log(file_from_world.scale))
    positions = file_from_world.apply(g.means.numpy())
    n, k = len(g), g.sh_rest.shape[1]
    table = np.concatenate(
        [
            positions.astype(np.float32),
            np.zeros((n, 3), np.float32),
            g.sh0.reshape(n, 3).numpy(),
            g.sh_rest.transpose(1, 2).reshape(n, 3 * k).numpy(),
            g.opacity_logits.reshape(n, 1).numpy(),
            g.log_scales.numpy(),
            g.quats.numpy(),
        ],
        axis=1,
    )
    vertex = np.ascontiguousarray(table).view([(name, "<f4") for name in list_splat_properties(k)]).reshape(n)
    if any(file_from_world.offset):
        vertex = vertex.astype([(name, "<f8" if name in "xyz" else "<f4") for name in list_splat_properties(k)])
        for name, values in zip("xyz", positions.T, strict=True):
            vertex[name] = values
    with write_whole(Path(path)) as temporary:
        PlyData([PlyElement.describe(vertex, "vertex")]).write(str(temporary))


def read_ply(path: Path | str, *, file_from_world: Similarity = IDENTITY) -> Gaussians:
    """Read a 3DGS ``.ply``: SH degree 0 to 4, with or without normals, properties in any order.

    Infinite opacity logits (of splats baked at opacity 0 or 1) become +-30. The 3D filter of Mip-Splatting is applied
    to scales and opacities. A few broken rows, and the bands of degree 4, are left out, with a warning.

    Args:
        path: of the file.
        file_from_world: that of the capture in whose world the Gaussians are wanted.

    Raises:
        ValueError: not a PLY, a splat in another format, truncated, a property missing, or more than a tenth of the
            rows broken.
    """
    gaussians, notes = read_ply_with_notes(path, file_from_world=file_from_world)
    for note in notes:
        log.warning("%s", note)
    return gaussians


def read_ply_with_notes(
    path: Path | str, *, file_from_world: Similarity = IDENTITY
) -> tuple[Gaussians, tuple[str, ...]]:
    """Read a 3DGS ``.ply`` as `read_ply` does, and return the notes on what was changed, instead of logging them."""
    values, notes = read_splat_columns(Path(path))
    values["means"] = file_from_world.apply_inverse(values["means"])
    if not file_from_world.is_identity:
        values["scales"] = values["scales"] - np.float32(math.log(file_from_world.scale))
    tensors = {key: torch.from_numpy(np.ascontiguousarray(group, np.float32)) for key, group in values.items()}
    n, k = len(tensors["means"]), tensors["rest"].shape[1] // 3
    return Gaussians(
        means=tensors["means"],
        log_scales=tensors["scales"],
        quats=tensors["quats"],
        opacity_logits=tensors["opacity"][:, 0],
        sh0=tensors["sh0"][:, None, :],
        sh_rest=tensors["rest"].reshape(n, 3, k)[:, :, :MAX_REST].transpose(1, 2).contiguous(),
    ), tuple(notes)


def write_splat(path: Path | str, splat: Splat, *, file_from_world: Similarity = IDENTITY) -> None:
    """Write the Gaussians as ``.ply``, and their mode, background and world to the ``splat.json`` beside it.

    The splats of one folder share that file, so they must have the same mode, background and world. For
    ``file_from_world`` see `write_ply`; ``splat.json`` has it unless it is the identity.
    """
    background = None if splat.background is None else [float(value) for value in splat.background]
    record: dict[str, Any] = {"schema": SPLAT_SCHEMA, "mode": splat.mode, "background": background}
    if not file_from_world.is_identity:
        record["file_from_world"] = file_from_world.to_json()
    write_json(Path(path).parent / SPLAT_FILE, record)
    write_ply(path, splat.gaussians, file_from_world=file_from_world)


def read_splat(
    path: Path | str,
    *,
    mode: RenderMode | None = None,
    background: Sequence[float] | None = None,
    file_from_world: Similarity = IDENTITY,
) -> Splat:
    """Read a ``.ply`` and, from the ``splat.json`` beside it, its mode and background.

    Without a ``splat.json`` the mode is classic and the background black. The arguments ``mode`` and ``background``
    override what is recorded. ``file_from_world`` is that of the capture in whose world the splat is wanted.

    Raises:
        ValueError: the ``.ply`` cannot be read (see `read_ply`), or its ``splat.json`` is not valid.
    """
    return make_splat(path, read_ply(path, file_from_world=file_from_world), mode=mode, background=background)


def read_recorded_world(path: Path | str) -> Similarity:
    """Read the ``file_from_world`` that `write_splat` recorded for a ``.ply``; the identity if it recorded none.

    Raises:
        ValueError: the ``splat.json`` is not valid.
    """
    record = Path(path).parent / SPLAT_FILE
    tree = read_json(record) if record.is_file() else {}
    if not isinstance(tree, dict) or tree.get("file_from_world") is None:
        return IDENTITY
    try:
        return Similarity.from_json(tree["file_from_world"])
    except (TypeError, ValueError, KeyError):
        seen = f"file_from_world = {tree['file_from_world']!r}"
        raise ValueError(f"{record}: {seen}; wanted a scale above 0 and an offset of three numbers") from None


def make_splat(
    path: Path | str,
    gaussians: Gaussians,
    *,
    mode: RenderMode | None = None,
    background: Sequence[float] | None = None,
) -> Splat:
    """Make the splat of the Gaussians of a ``.ply``, with mode and background as `read_splat` finds them."""
    record = Path(path).parent / SPLAT_FILE
    recorded_mode, recorded_background = _read_record(record) if record.is_file() else ("classic", None)
    return Splat(gaussians, mode or recorded_mode, recorded_background if background is None else background)


def _read_record(path: Path) -> tuple[RenderMode, tuple[float, ...] | None]:
    record = read_json(path)
    if not isinstance(record, dict) or record.get("schema") != SPLAT_SCHEMA:
        raise ValueError(f"{path}: wanted a mapping with schema = {SPLAT_SCHEMA}; saw {record!r}")
    mode: Any = record.get("mode")
    background: Any = record.get("background")
    if mode not in get_args(RenderMode):
        raise ValueError(f"{path}: mode = {mode!r}; wanted one of {', '.join(get_args(RenderMode))}")
    if background is None:
        return mode, None
    numbers = isinstance(background, list) and all(isinstance(value, int | float) for value in background)
    if not numbers or len(background) != 3:
        raise ValueError(f"{path}: background = {background!r}; wanted three numbers or null")
    return mode, tuple(float(value) for value in background)
