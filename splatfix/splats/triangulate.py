"""Sparse points from the chosen photos alone: SIFT, strict matches under known poses, triangulated tracks.

A sparse fit may use nothing from the other photos. Where a capture has no admissible points (LLFF, NeRF-synthetic,
reference splats) these are its only reliable geometry. Few good points are better than many: one wrong match becomes a
floater, so every check here is strict.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy import ndarray

from splatfix.cameras import Camera
from splatfix.shapes import Bool, Float, Int

GRAY_WEIGHTS = np.array([0.299, 0.587, 0.114], np.float32)  # Rec. 601 luma
EQUAL_DESCRIPTORS = 1e-5  # squared distance of unit descriptors that float32 cannot tell from 0


@dataclass(frozen=True, kw_only=True)
class TriangulateConfig:
    """How keypoints are matched and triangulated.

    Attributes:
        peak_threshold: least contrast of a keypoint (difference of Gaussians); COLMAP's own is 0.0067.
        max_keypoints: largest number of keypoints per photo; those of the largest scale are kept.
        ratio: largest ratio of best to second-best descriptor distance, both ways (Lowe 2004).
        max_epipolar_px: largest distance of a match from its epipolar line, in either photo, in pixels.
        max_reprojection_px: largest reprojection error of a point in any photo of its track, in pixels.
        min_angle_deg: least angle between two rays of a track, in degrees.
    """

    peak_threshold: float = 0.003
    max_keypoints: int = 4096
    ratio: float = 0.8
    max_epipolar_px: float = 1.5
    max_reprojection_px: float = 1.5
    min_angle_deg: float = 1.5


@dataclass(frozen=True, eq=False)
class TriangulatedPoints:
    """Points with the photos that see them.

    Attributes:
        positions: world coordinates, float64 ``[P, 3]``.
        seen: which photo's keypoint is part of the point's track, ``[P, C]``.
        errors_px: largest reprojection error over the track, pixels, ``[P]``.
    """

    positions: Float[ndarray, "P 3"]
    seen: Bool[ndarray, "P C"]
    errors_px: Float[ndarray, " P"]

    def __len__(self) -> int:
        return len(self.positions)


def triangulate(
    cameras: Sequence[Camera],
    photos: Sequence[Float[ndarray, "_ _ 3"]],
    masks: Sequence[Float[ndarray, "_ _"] | None],
    config: TriangulateConfig,
) -> TriangulatedPoints:
    """Triangulate points that at least two of the photos agree on, given their poses.

    Args:
        cameras: at least two, in the order of the photos.
        photos: sRGB in [0, 1], each ``[H, W, 3]`` with the size of its camera.
        masks: 1 on the object, ``[H, W]``; keypoints outside it are dropped. None keeps all.

    Raises:
        ValueError: fewer than two cameras.
        ImportError: pycolmap is not installed (it extracts the keypoints).
    """
    if len(cameras) < 2:
        raise ValueError(f"triangulation from {len(cameras)} photo(s); wanted at least 2")
    features = [extract_keypoints(photo, mask, config) for photo, mask in zip(photos, masks, strict=True)]
    starts = np.cumsum([0] + [len(pixels) for pixels, _ in features])
    edges, distances = [np.zeros((0, 2), int)], [np.zeros(0)]
    for i, j in combinations(range(len(cameras)), 2):
        matches, distance = match_descriptors(features[i][1], features[j][1], config.ratio)
        off = epipolar_distance_px(cameras[i], cameras[j], features[i][0][matches[:, 0]], features[j][0][matches[:, 1]])
        keep = off < config.max_epipolar_px
        edges.append(matches[keep] + [starts[i], starts[j]])
        distances.append(distance[keep])
    view_of = np.repeat(np.arange(len(cameras)), np.diff(starts))
    tracks = link_tracks(np.concatenate(edges), np.concatenate(distances), view_of, len(cameras))
    pixels = np.concatenate([pixels for pixels, _ in features])
    observed = np.where(tracks[..., None] >= 0, pixels[tracks], np.nan) if len(pixels) else np.zeros((0, 0, 2))
    return triangulate_tracks(cameras, observed, config)


def extract_keypoints(
    photo: Float[ndarray, "H W 3"], mask: Float[ndarray, "H W"] | None, config: TriangulateConfig
) -> tuple[Float[ndarray, "F 2"], Float[ndarray, "F 128"]]:
    """Extract SIFT keypoints of one photo: pixel coordinates (centers at +0.5) and RootSIFT descriptors of unit length.

    Lowe 2004; Arandjelovic and Zisserman 2012 for the descriptors. The pyramid starts at twice the photo's size.
    """
    try:
        from splatfix.process import keeping_handler

        with keeping_handler(signal.SIGTERM):  # pycolmap's own handler prints a stack trace at every stop
            import pycolmap  # here: fits from given points run without it
    except ImportError as error:
        raise ImportError("triangulated points need pycolmap: pip install pycolmap (or leave them out)") from error
    options = pycolmap.FeatureExtractionOptions()
    options.use_gpu = False
    options.num_threads = 1  # one photo at a time
    options.sift.peak_threshold = config.peak_threshold
    options.sift.max_num_features = config.max_keypoints
    level, pycolmap.logging.minloglevel = pycolmap.logging.minloglevel, int(pycolmap.logging.ERROR.value)
    try:
        extractor = pycolmap.FeatureExtractor.create(options, pycolmap.Device.cpu)
        gray = np.ascontiguousarray((np.clip(photo @ GRAY_WEIGHTS, 0, 1) * 255).round().astype(np.uint8))
        features, encoded = extractor.extract_from_uint8_array(gray)
    finally:
        pycolmap.logging.minloglevel = level
    pixels = np.asarray(pycolmap.keypoints_to_matrix(features), np.float64).reshape(-1, 4)[:, :2]
    descriptors = np.asarray(encoded.to_float().data, np.float32).reshape(-1, 128)
    descriptors = descriptors / np.maximum(np.linalg.norm(descriptors, axis=1, keepdims=True), 1e-9)
    if mask is not None:
        column, row = (np.clip(pixels.astype(int), 0, [mask.shape[1] - 1, mask.shape[0] - 1])).T
        on_object = mask[row, column] > 0.5
        pixels, descriptors = pixels[on_object], descriptors[on_object]
    return pixels, descriptors


def match_descriptors(
    a: Float[ndarray, "F 128"], b: Float[ndarray, "G 128"], ratio: float
) -> tuple[Int[ndarray, "M 2"], Float[ndarray, " M"]]:
    """Match mutual nearest neighbors that pass the ratio test both ways; returns index pairs and distances."""
    if len(a) < 2 or len(b) < 2:
        return np.zeros((0, 2), int), np.zeros(0)
    squared = 2 - 2 * (a @ b.T)
    squared[squared < EQUAL_DESCRIPTORS] = 0  # rounding depends on the BLAS kernel, and would count as a difference
    rows = np.arange(len(a))
    forth, back = squared.argmin(1), squared.argmin(0)
    best = squared[rows, forth]
    second = np.partition(squared, 1, axis=1)[:, 1]
    second_back = np.partition(squared, 1, axis=0)[1]
    keep = (back[forth] == rows) & (best < ratio**2 * second) & (best < ratio**2 * second_back[forth])
    return np.stack([rows, forth], 1)[keep], np.sqrt(best[keep])


def fundamental_matrix(a: Camera, b: Camera) -> Float[ndarray, "3 3"]:
    """``F`` with ``x_b^T F x_a = 0`` for the pixels of one world point (Hartley and Zisserman, eq. 9.2)."""
    b_from_a = b.camera_from_world @ a.world_from_camera
    x, y, z = b_from_a[:3, 3]
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.linalg.inv(b.intrinsics).T @ cross @ b_from_a[:3, :3] @ np.linalg.inv(a.intrinsics)


def epipolar_distance_px(
    a: Camera, b: Camera, pixels_a: Float[ndarray, "M 2"], pixels_b: Float[ndarray, "M 2"]
) -> Float[ndarray, " M"]:
    """The larger of the two distances from a pixel to the epipolar line of its match, in pixels."""
    f = fundamental_matrix(a, b)
    x_a = np.concatenate([pixels_a, np.ones((len(pixels_a), 1))], 1)
    x_b = np.concatenate([pixels_b, np.ones((len(pixels_b), 1))], 1)
    line_b, line_a = x_a @ f.T, x_b @ f
    off = np.abs((x_b * line_b).sum(1))
    shorter = np.minimum(np.linalg.norm(line_a[:, :2], axis=1), np.linalg.norm(line_b[:, :2], axis=1))
    return off / np.maximum(shorter, 1e-12)


def link_tracks(
    edges: Int[ndarray, "E 2"], distances: Float[ndarray, " E"], view_of: Int[ndarray, " F"], num_views: int
) -> Int[ndarray, "T C"]:
    """Join keypoints into tracks with at most one keypoint per view: keypoint indices, -1 where unseen.

    Best matches are joined first (Kruskal); a match that would give a track two keypoints in one view is skipped.
    """
    members: dict[int, dict[int, int]] = {}  # root -> {view: keypoint}
    root_of: dict[int, int] = {}
    for first, second in edges[np.argsort(distances, kind="stable")].tolist():
        for node in (first, second):
            if node not in root_of:
                root_of[node] = node
                members[node] = {int(view_of[node]): node}
        a, b = root_of[first], root_of[second]
        if a == b or members[a].keys() & members[b].keys():
            continue
        for node in members[b].values():
            root_of[node] = a
        members[a] |= members.pop(b)
    long = [track for track in members.values() if len(track) >= 2]
    tracks = np.full((len(long), num_views), -1)
    for row, track in enumerate(long):
        tracks[row, list(track)] = list(track.values())
    return tracks


def triangulate_tracks(
    cameras: Sequence[Camera], observed: Float[ndarray, "T C 2"], config: TriangulateConfig
) -> TriangulatedPoints:
    """Triangulate tracks of pixels (NaN where unseen) and keep the points that pass every check.

    Linear triangulation (Hartley and Zisserman, section 12.2), then Gauss-Newton on the reprojection error. A track
    of three or more loses its worst photo and tries again; two must agree.
    """
    num_views = len(cameras)
    observed = observed.reshape(-1, num_views, 2)
    positions = np.zeros((len(observed), 3))
    errors = np.full(len(observed), np.inf)
    observed = observed.copy()
    pending = np.arange(len(observed))
    while len(pending):
        positions[pending] = _solve(cameras, observed[pending])
        off = _reprojection_px(cameras, positions[pending], observed[pending])
        errors[pending] = np.nanmax(off, axis=1)
        again = (errors[pending] >= config.max_reprojection_px) & (np.isfinite(observed[pending, :, 0]).sum(1) > 2)
        observed[pending[again], np.nanargmax(off[again], axis=1)] = np.nan
        pending = pending[again]
    seen = np.isfinite(observed[..., 0])
    angles = widest_angle_rad(cameras, positions, seen)
    keep = (errors < config.max_reprojection_px) & (angles > np.deg2rad(config.min_angle_deg))
    return TriangulatedPoints(positions[keep], seen[keep], errors[keep])


def widest_angle_rad(
    cameras: Sequence[Camera], positions: Float[ndarray, "P 3"], seen: Bool[ndarray, "P C"]
) -> Float[ndarray, " P"]:
    """Largest angle between the rays of the cameras that see each point, in radians (0 with fewer than two)."""
    rays = positions[:, None] - np.stack([camera.center for camera in cameras])
    rays = rays / np.maximum(np.linalg.norm(rays, axis=-1, keepdims=True), 1e-12)
    cosines = np.einsum("pid,pjd->pij", rays, rays)
    both = seen[:, :, None] & seen[:, None, :]
    return np.arccos(np.clip(np.where(both, cosines, 1.0).min(axis=(1, 2)), -1, 1))


def _solve(cameras: Sequence[Camera], observed: Float[ndarray, "T C 2"], steps: int = 5) -> Float[ndarray, "T 3"]:
    """Triangulate tracks with at least two pixels each: linear, then Gauss-Newton."""
    seen = np.isfinite(observed[..., 0])
    pixels = np.where(seen[..., None], observed, 0)
    poses = np.stack([camera.camera_from_world[:3] for camera in cameras])
    calibrations = np.stack([camera.intrinsics for camera in cameras])
    rays = np.concatenate([pixels, np.ones_like(pixels[..., :1])], -1)
    rays = np.einsum("cij,tcj->tci", np.linalg.inv(calibrations), rays)
    # Inhomogeneous rows of x cross (R X + t) = 0, in normalised coordinates.
    rows = poses[None, :, :2] - rays[..., :2, None] * poses[None, :, 2:]  # [T, C, 2, 4]
    rows = np.where(seen[..., None, None], rows, 0).reshape(len(observed), -1, 4)
    normal = np.einsum("tri,trj->tij", rows[..., :3], rows[..., :3]) + 1e-12 * np.eye(3)
    points = np.linalg.solve(normal, -np.einsum("tri,tr->ti", rows[..., :3], rows[..., 3])[..., None])[..., 0]
    projections = calibrations @ poses
    for _ in range(steps):
        image = np.einsum("cij,tj->tci", projections[:, :, :3], points) + projections[:, :, 3]
        depth = np.where(np.abs(image[..., 2:]) > 1e-9, image[..., 2:], 1e-9)
        predicted = image[..., :2] / depth
        jacobian = projections[None, :, :2, :3] - predicted[..., None] * projections[None, :, 2:, :3]
        jacobian = jacobian / depth[..., None]
        jacobian = np.where(seen[..., None, None], jacobian, 0).reshape(len(observed), -1, 3)
        residual = np.where(seen[..., None], pixels - predicted, 0).reshape(len(observed), -1)
        normal = np.einsum("tri,trj->tij", jacobian, jacobian)
        normal += (1e-9 * np.trace(normal, axis1=1, axis2=2) + 1e-15)[:, None, None] * np.eye(3)
        step = np.linalg.solve(normal, np.einsum("tri,tr->ti", jacobian, residual)[..., None])[..., 0]
        points = points + step
    return points


def _reprojection_px(
    cameras: Sequence[Camera], positions: Float[ndarray, "T 3"], observed: Float[ndarray, "T C 2"]
) -> Float[ndarray, "T C"]:
    """Reprojection errors in pixels: NaN where unseen, infinite behind the camera."""
    errors = np.full(observed.shape[:2], np.nan)
    for index, camera in enumerate(cameras):
        pixels, depth = camera.project(positions)
        off = np.where(depth > 0, np.linalg.norm(pixels - observed[:, index], axis=1), np.inf)
        errors[:, index] = np.where(np.isfinite(observed[:, index, 0]), off, np.nan)
    return errors
