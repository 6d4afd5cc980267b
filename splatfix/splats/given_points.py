"""Initial points that the user gives: a point cloud, or depth maps of the photos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy import ndarray

from splatfix.cameras import Camera
from splatfix.shapes import Float
from splatfix.similarity import Similarity
from splatfix.splats.stereo.plane_sweep import StereoPoints

SUFFIXES = (".npy", ".png", ".tif", ".tiff")
AGREEMENT = 0.02  # relative difference of the depths of two photos up to which they show the same surface


def read_given_cloud(
    path: Path, file_from_world: Similarity
) -> tuple[Float[ndarray, "P 3"], Float[ndarray, "P 3"] | None, list[str]]:
    """Read positions in the world of the capture and colors (None if the file has none), with notes on broken rows.

    Raises:
        ValueError: not a PLY with x, y, z, or no points.
    """
    from splatfix.captures.clouds import has_colors, read_points

    points, notes = read_points(path)
    if len(points) == 0:
        raise ValueError(f"{path}: no points; wanted at least one")
    return file_from_world.apply_inverse(points.positions), points.colors if has_colors(path) else None, notes


def find_depth_map(folder: Path, photo: str) -> Path:
    """Find the depth map of a photo: the file with its name and another suffix, with or without its folders.

    Raises:
        ValueError: there is none, or several.
    """
    stem = Path(photo.replace("\\", "/")).with_suffix("")
    places = [folder / stem, folder / stem.name]
    found = [place.with_name(place.name + suffix) for place in dict.fromkeys(places) for suffix in SUFFIXES]
    existing = [path for path in found if path.is_file()]
    if len(existing) != 1:
        seen = " and ".join(path.name for path in existing) or "no file"
        raise ValueError(
            f"{folder}: {seen} for the photo {photo}; wanted one depth map named {stem.name} with one of the suffixes "
            f"{', '.join(SUFFIXES)}"
        )
    return existing[0]


def read_depth_map(path: Path, unit: float, width_px: int, height_px: int) -> Float[ndarray, "H W"]:
    """Read a depth map at the size of its photo (nearest pixel); 0 where the depth is not known.

    Depths are along the optical axis. A ``.npy`` holds them in units of the capture; an image with 16 bits holds whole
    numbers, each ``unit`` of the capture's units (0.001 for millimeters where the capture is in meters).

    Raises:
        ValueError: unreadable, not one channel, of another shape than the photo, or without a depth.
    """
    values = _read_array(path)
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(f"{path}: array of shape {values.shape}; wanted rows and columns of depths")
    if abs(values.shape[1] * height_px - values.shape[0] * width_px) > max(values.shape) + max(width_px, height_px):
        raise ValueError(
            f"{path}: depth map of {values.shape[1]}x{values.shape[0]}; wanted the shape of its photo, "
            f"{width_px} wide and {height_px} high at the size of the fit"
        )
    rows = ((np.arange(height_px) + 0.5) * values.shape[0] / height_px).astype(int)
    columns = ((np.arange(width_px) + 0.5) * values.shape[1] / width_px).astype(int)
    depth = values[np.ix_(rows, columns)].astype(np.float64)
    if np.issubdtype(values.dtype, np.integer):
        depth *= unit
    depth[~(np.isfinite(depth) & (depth > 0))] = 0
    if not depth.any():
        raise ValueError(f"{path}: no depth above 0; wanted distances along the optical axis")
    return depth


def _read_array(path: Path) -> ndarray:
    from splatfix.images import open_image

    if path.suffix == ".npy":
        try:
            return np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(f"{path}: cannot be read as .npy ({error}); is the file whole?") from error
    with open_image(path) as image:
        try:
            values = np.asarray(image)
        except (OSError, SyntaxError, ValueError) as error:
            raise ValueError(f"{path}: cannot be decoded ({error}); is the file whole?") from error
    if values.dtype == np.uint8:
        raise ValueError(f"{path}: depth map with 8 bits; wanted 16 bits, or a .npy")
    return values


def make_depth_points(
    folder: Path,
    unit: float,
    cameras: Sequence[Camera],
    masks: Sequence[Float[ndarray, "_ _"] | None],
    file_from_world: Similarity,
) -> StereoPoints:
    """Make the points of the depth maps of all photos, as stereo finds them.

    Args:
        folder: has one depth map per photo (`find_depth_map`), as large as the photo or larger.
        unit: of depths in images (`read_depth_map`).
        cameras: of the photos.
        masks: 1 where points may be, ``[H, W]``; None for a whole photo.
        file_from_world: that of the capture; depths are in the units of its files.

    Raises:
        ValueError: a depth map is missing or cannot be used.
    """
    depths = []
    for camera, mask in zip(cameras, masks, strict=True):
        path = find_depth_map(folder, camera.name)
        depth = read_depth_map(path, unit, camera.width_px, camera.height_px) / file_from_world.scale
        depths.append(depth if mask is None else depth * (mask > 0.5))
    return fuse_depth_maps(depths, cameras, masks)


def fuse_depth_maps(
    depths: Sequence[Float[ndarray, "_ _"]],
    cameras: Sequence[Camera],
    masks: Sequence[Float[ndarray, "_ _"] | None],
    *,
    compared: Sequence[Float[ndarray, "_ _"]] | None = None,
    tolerance: float = AGREEMENT,
    drop_contradicted: bool = False,
) -> StereoPoints:
    """Make a point of each pixel with a depth, and count the photos that agree.

    Args:
        depths: depth map of each photo in world units, ``[H, W]``; 0 where there is none.
        cameras: of the photos.
        masks: 1 where points may be, ``[H, W]``, which the coverage is a share of; None for a whole photo.
        compared: depth maps that points are compared with; None for the same.
        tolerance: relative difference up to which two depths agree.
        drop_contradicted: drop points that more photos see through than agree with.
    """
    compared = depths if compared is None else compared
    positions, views, pixels, agreeing = [], [], [], []
    for index, (camera, depth) in enumerate(zip(cameras, depths, strict=True)):
        row, column = np.nonzero(depth)
        points = camera.unproject(np.stack([column, row], axis=1) + 0.5, depth[row, column])
        confirming, contradicting = _count_votes(points, index, cameras, compared, tolerance)
        keep = confirming >= contradicting if drop_contradicted else np.ones(len(points), bool)
        positions.append(points[keep])
        views.append(np.full(keep.sum(), index))
        pixels.append(np.stack([column, row], axis=1)[keep])
        agreeing.append(confirming[keep])
    num_pixels = sum(
        depth.size if mask is None else (mask > 0.5).sum() for depth, mask in zip(depths, masks, strict=True)
    )
    points = np.concatenate(positions)
    return StereoPoints(
        points,
        np.concatenate(views),
        np.concatenate(pixels),
        np.concatenate(agreeing),
        len(points) / max(num_pixels, 1),
    )


def _count_votes(
    points: Float[ndarray, "P 3"],
    index: int,
    cameras: Sequence[Camera],
    depths: Sequence[ndarray],
    tolerance: float,
) -> tuple[ndarray, ndarray]:
    """Count the other photos whose depth map has each point on its surface, and those that see through it."""
    confirming, contradicting = np.zeros((2, len(points)), int)
    for other, (camera, depth) in enumerate(zip(cameras, depths, strict=True)):
        if other == index:
            continue
        visible = np.flatnonzero(camera.sees(points))
        pixel, z = camera.project(points[visible])
        column, row = pixel.astype(int).T
        seen = depth[row, column]
        confirming[visible[np.abs(seen - z) <= tolerance * z]] += 1
        contradicting[visible[seen - z > tolerance * z]] += 1
    return confirming, contradicting
