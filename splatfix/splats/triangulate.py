"""Triangulate sparse points from the chosen photos alone: SIFT, strict matching under known poses, tracks.

If a capture has no admissible points (LLFF, NeRF-synthetic, reference splats), these are its only reliable geometry.
Few good points are better than many: one wrong match becomes a floater, so every check in this module is strict.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from numpy import ndarray

from splatfix.cameras import Camera
from splatfix.shapes import Bool, Float, Int

GRAY_WEIGHTS = np.array([0.299, 0.587, 0.114], np.float32)  # Rec. 601 luma
EQUAL_DESCRIPTORS = 1e-5  # squared distance of unit descriptors that float32 cannot tell from 0


@dataclass(frozen=True, kw_only=True)
class TriangulateConfig:
    """Settings of matching and triangulation.

    Attributes:
        peak_threshold: smallest contrast of a keypoint (difference of Gaussians); COLMAP's default is 0.0067.
        max_keypoints: largest number of keypoints per photo; those of the largest scale are kept.
        ratio: largest ratio of best to second-best descriptor distance, both ways (Lowe 2004).
        max_epipolar_px: largest distance of a match from its epipolar line, in either photo, in pixels.
        max_reprojection_px: largest reprojection error of a point in any photo of its track, in pixels.
        min_angle_deg: smallest angle between two rays of a track, in degrees.
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
        seen: whether the track of a point has a keypoint in a photo, ``[P, C]``.
        errors_px: largest reprojection error over the track, in pixels, ``[P]``.
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
    device: torch.device | str = "cpu",
) -> TriangulatedPoints:
    """Triangulate points that at least two of the photos agree on, given their poses.

    Args:
        cameras: at least two, in the order of the photos.
        photos: sRGB in [0, 1], each ``[H, W, 3]`` with the size of its camera.
        masks: 1 on the object, ``[H, W]``; keypoints outside it are dropped. None keeps all.
        config: settings.
        device: of the fit; it matches the descriptors.

    Raises:
        ValueError: fewer than two cameras.
        ImportError: pycolmap is not installed (it extracts the keypoints).
    """
    if len(cameras) < 2:
        raise ValueError(f"triangulation from {len(cameras)} photo(s); wanted at least 2")
    features = [extract_keypoints(photo, mask, config) for photo, mask in zip(photos, masks, strict=True)]
    offsets = np.cumsum([0] + [len(pixels) for pixels, _ in features])
    edges, distances = [np.zeros((0, 2), int)], [np.zeros(0)]
    for i, j in combinations(range(len(cameras)), 2):
        matches, distance = match_descriptors(features[i][1], features[j][1], config.ratio, device)
        pixels_i, pixels_j = features[i][0][matches[:, 0]], features[j][0][matches[:, 1]]
        keep = epipolar_distance_px(cameras[i], cameras[j], pixels_i, pixels_j) < config.max_epipolar_px
        edges.append(matches[keep] + [offsets[i], offsets[j]])
        distances.append(distance[keep])
    view_of = np.repeat(np.arange(len(cameras)), np.diff(offsets))
    tracks = link_tracks(np.concatenate(edges), np.concatenate(distances), view_of, len(cameras))
    pixels = np.concatenate([pixels for pixels, _ in features])
    observed = np.where(tracks[..., None] >= 0, pixels[tracks], np.nan) if len(pixels) else np.zeros((0, 0, 2))
    return triangulate_tracks(cameras, observed, config)


def extract_keypoints(
    photo: Float[ndarray, "H W 3"], mask: Float[ndarray, "H W"] | None, config: TriangulateConfig
) -> tuple[Float[ndarray, "F 2"], Float[ndarray, "F 128"]]:
    """Extract SIFT keypoints of one photo: pixel coordinates (centers at +0.5) and RootSIFT descriptors of unit norm.

    Lowe 2004; Arandjelovic and Zisserman 2012 for the descriptors. The first octave is at twice the size of the photo.
    """
    try:
        from splatfix.process import keeping_handler

        with keeping_handler(signal.SIGTERM):  # pycolmap installs a handler that prints a stack trace
            import pycolmap  # here, because fits from SfM points do not need it
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
    a: Float[ndarray, "F 128"], b: Float[ndarray, "G 128"], ratio: float, device: torch.device | str = "cpu"
) -> tuple[Int[ndarray, "M 2"], Float[ndarray, " M"]]:
    """Match mutual nearest neighbors that pass the ratio test in both directions; returns index pairs and distances."""
    if len(a) < 2 or len(b) < 2:
        return np.zeros((0, 2), int), np.zeros(0)
    on_cpu = torch.device(device).type == "cpu"
    nearest = _find_two_nearest(a, b) if on_cpu else _find_two_nearest_with_torch(a, b, device)
    forward, backward, best, second, second_backward = nearest
    rows = np.arange(len(a))
    keep = (backward[forward] == rows) & (best < ratio**2 * second) & (best < ratio**2 * second_backward[forward])
    return np.stack([rows, forward], 1)[keep], np.sqrt(best[keep])


def _find_two_nearest(a: Float[ndarray, "F 128"], b: Float[ndarray, "G 128"]) -> tuple[ndarray, ...]:
    """Find the nearest descriptors: those of ``b`` and of ``a``, their squared distances, the second ones both ways.

    Of equal distances, the first is the nearest.
    """
    squared = 2 - 2 * (a @ b.T)
    squared[squared < EQUAL_DESCRIPTORS] = 0  # rounding errors, which depend on the BLAS kernel
    forward, backward = squared.argmin(1), squared.argmin(0)
    best = squared[np.arange(len(a)), forward]
    return forward, backward, best, np.partition(squared, 1, axis=1)[:, 1], np.partition(squared, 1, axis=0)[1]


def _find_two_nearest_with_torch(
    a: Float[ndarray, "F 128"], b: Float[ndarray, "G 128"], device: torch.device | str
) -> tuple[ndarray, ...]:
    """Find the same as `_find_two_nearest` on a device: one product, and the two smallest of its rows and columns."""
    squared = torch.from_numpy(a).to(device) @ torch.from_numpy(b).to(device).T
    squared = squared.mul_(-2).add_(2)
    squared.masked_fill_(squared < EQUAL_DESCRIPTORS, 0)
    forward, backward = squared.argmin(1), squared.argmin(0)  # topk promises no order of equal distances
    best, second = squared.topk(2, dim=1, largest=False).values.T
    second_backward = squared.topk(2, dim=0, largest=False).values[1]
    return tuple(each.cpu().numpy() for each in (forward, backward, best, second, second_backward))


def fundamental_matrix(a: Camera, b: Camera) -> Float[ndarray, "3 3"]:
    """Compute ``F`` with ``x_b^T F x_a = 0`` for the pixels of one world point (Hartley and Zisserman, eq. 9.2)."""
    b_from_a = b.camera_from_world @ a.world_from_camera
    x, y, z = b_from_a[:3, 3]
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.linalg.inv(b.intrinsics).T @ cross @ b_from_a[:3, :3] @ np.linalg.inv(a.intrinsics)


def epipolar_distance_px(
    a: Camera, b: Camera, pixels_a: Float[ndarray, "M 2"], pixels_b: Float[ndarray, "M 2"]
) -> Float[ndarray, " M"]:
    """Compute the larger of the distances of two matched pixels from the epipolar lines of each other, in pixels."""
    f = fundamental_matrix(a, b)
    x_a = np.concatenate([pixels_a, np.ones((len(pixels_a), 1))], 1)
    x_b = np.concatenate([pixels_b, np.ones((len(pixels_b), 1))], 1)
    line_b, line_a = x_a @ f.T, x_b @ f
    residual = np.abs((x_b * line_b).sum(1))
    smaller_norm = np.minimum(np.linalg.norm(line_a[:, :2], axis=1), np.linalg.norm(line_b[:, :2], axis=1))
    return residual / np.maximum(smaller_norm, 1e-12)


def link_tracks(
    edges: Int[ndarray, "E 2"], distances: Float[ndarray, " E"], view_of: Int[ndarray, " F"], num_views: int
) -> Int[ndarray, "T C"]:
    """Link matches to tracks with at most one keypoint per view: keypoint indices, -1 where unseen.

    The best matches are linked first (Kruskal); a match that would give a track two keypoints in one view is skipped.
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
    long_tracks = [track for track in members.values() if len(track) >= 2]
    tracks = np.full((len(long_tracks), num_views), -1)
    for row, track in enumerate(long_tracks):
        tracks[row, list(track)] = list(track.values())
    return tracks


def triangulate_tracks(
    cameras: Sequence[Camera], observed: Float[ndarray, "T C 2"], config: TriangulateConfig
) -> TriangulatedPoints:
    """Triangulate tracks of pixels (NaN where unseen) and keep the points that pass every check.

    Linear triangulation (Hartley and Zisserman, section 12.2), then Gauss-Newton on the reprojection error. If the
    error of a track in three or more photos is too large, the worst photo is removed and the track solved again.
    """
    num_views = len(cameras)
    observed = observed.reshape(-1, num_views, 2)
    positions = np.zeros((len(observed), 3))
    errors = np.full(len(observed), np.inf)
    observed = observed.copy()
    pending = np.arange(len(observed))
    while len(pending):
        positions[pending] = _solve_positions(cameras, observed[pending])
        photo_errors = _reprojection_errors_px(cameras, positions[pending], observed[pending])
        errors[pending] = np.nanmax(photo_errors, axis=1)
        again = (errors[pending] >= config.max_reprojection_px) & (np.isfinite(observed[pending, :, 0]).sum(1) > 2)
        observed[pending[again], np.nanargmax(photo_errors[again], axis=1)] = np.nan
        pending = pending[again]
    seen = np.isfinite(observed[..., 0])
    angles = widest_angle_rad(cameras, positions, seen)
    keep = (errors < config.max_reprojection_px) & (angles > np.deg2rad(config.min_angle_deg))
    return TriangulatedPoints(positions[keep], seen[keep], errors[keep])


def widest_angle_rad(
    cameras: Sequence[Camera], positions: Float[ndarray, "P 3"], seen: Bool[ndarray, "P C"]
) -> Float[ndarray, " P"]:
    """Compute the largest angle between the rays of the cameras that see a point, in radians (0 for fewer than two)."""
    rays = positions[:, None] - np.stack([camera.center for camera in cameras])
    rays = rays / np.maximum(np.linalg.norm(rays, axis=-1, keepdims=True), 1e-12)
    cosines = np.einsum("pid,pjd->pij", rays, rays)
    both = seen[:, :, None] & seen[:, None, :]
    return np.arccos(np.clip(np.where(both, cosines, 1.0).min(axis=(1, 2)), -1, 1))


def _solve_positions(
    cameras: Sequence[Camera], observed: Float[ndarray, "T C 2"], steps: int = 5
) -> Float[ndarray, "T 3"]:
    """Solve for the points of tracks with at least two pixels each: linear, then ``steps`` of Gauss-Newton."""
    seen = np.isfinite(observed[..., 0])
    pixels = np.where(seen[..., None], observed, 0)
    poses = np.stack([camera.camera_from_world[:3] for camera in cameras])
    calibrations = np.stack([camera.intrinsics for camera in cameras])
    rays = np.concatenate([pixels, np.ones_like(pixels[..., :1])], -1)
    rays = np.einsum("cij,tcj->tci", np.linalg.inv(calibrations), rays)
    # Inhomogeneous rows of x cross (R X + t) = 0, in normalized coordinates.
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


def _reprojection_errors_px(
    cameras: Sequence[Camera], positions: Float[ndarray, "T 3"], observed: Float[ndarray, "T C 2"]
) -> Float[ndarray, "T C"]:
    """Compute reprojection errors in pixels: NaN where unseen, infinite behind the camera."""
    errors = np.full(observed.shape[:2], np.nan)
    for index, camera in enumerate(cameras):
        pixels, depth = camera.project(positions)
        distances = np.where(depth > 0, np.linalg.norm(pixels - observed[:, index], axis=1), np.inf)
        errors[:, index] = np.where(np.isfinite(observed[:, index, 0]), distances, np.nan)
    return errors
