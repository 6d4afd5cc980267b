"""The built-in poser: COLMAP's features and matches (SIFT), in a database that a later run resumes from.

Photos and pairs are processed in small batches: there is a bar with an ETA, an interruption loses one batch, and what
is in the database already is not computed again.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy import ndarray

from splatfix.files import write_text
from splatfix.process import keeping_handler, progress
from splatfix.sfm.config import PoseConfig
from splatfix.sfm.database import (
    BYTES_PER_KEYPOINT,
    BYTES_PER_MATCH,
    check_database,
    explain_database,
    require_space,
)
from splatfix.sfm.keypoint_masks import write_keypoint_mask
from splatfix.sfm.mapping import drop_misplaced, locate_photos, map_photos
from splatfix.sfm.poser import PhotoInfo, PosedModel, PoseTask
from splatfix.shapes import Float

with keeping_handler(signal.SIGTERM):  # pycolmap's own handler prints a stack trace at every stop
    import pycolmap

MAX_ALL_PAIRS = 40  # photos up to which auto matches every pair
FEW_PHOTOS = 9  # up to which matches are searched along epipolar lines as well
NUM_LARGEST = 300  # keypoints of a photo, those of the largest scale, that are compared to find photos that look alike
MIN_COSINE = 0.9  # of descriptors that are called alike
PAIRS_PER_BATCH = 16
USUAL_FOCAL = 0.85  # of the longest side, where nothing says: the main camera of phones has 0.7 to 0.9
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """Where COLMAP works.

    Attributes:
        folder: holds all of it.
        photos: links to the photos, under labels without spaces, which COLMAP's lists of pairs cannot hold.
        labels: the label of each photo, by name; in the order of names.
    """

    folder: Path
    photos: Path
    labels: dict[str, str]

    @property
    def database(self) -> Path:
        """COLMAP's database of keypoints and matches."""
        return self.folder / "database.db"

    @property
    def masks(self) -> Path:
        """The masks of photos with transparent pixels."""
        return self.folder / "masks"


def estimate_with_colmap(task: PoseTask) -> PosedModel:
    """Estimate cameras with COLMAP: SIFT, matches, then incremental or global mapping."""
    work = link_photos(task)
    check_database(work.database)
    with quiet_colmap(), explain_database(work.database):
        pycolmap.set_random_seed(task.config.seed)
        with pycolmap.Database.open(work.database) as database:
            import_photos(database, work, task)
            ids = {image.name: image.image_id for image in database.read_all_images()}
            extract_keypoints(database, ids, work, task)
            pairs = choose_pairs(database, ids, task.config)
            match_pairs(database, ids, pairs, work, task.config, choose_max_error_px(task.photos))
            num_keypoints = {name: database.num_keypoints_for_image(ids[label]) for name, label in work.labels.items()}
            num_matches = read_num_matches(database, ids, work)
        chosen = [work.labels[name] for name in task.estimate_from]
        reconstruction, method = map_photos(work.database, work.photos, chosen, task)
        if reconstruction is not None:
            labeled = {(work.labels[a], work.labels[b]): num for (a, b), num in num_matches.items()}
            drop_misplaced(reconstruction, labeled)
        images = [] if reconstruction is None else reconstruction.images.values()
        registered = {image.name for image in images if image.has_pose}
        if reconstruction is not None and len(chosen) < len(task.photos):
            labels = list(work.labels.values())
            reconstruction = locate_photos(reconstruction, work.database, work.photos, labels, task)
    if reconstruction is not None:
        names = {label: name for name, label in work.labels.items()}
        for image in reconstruction.images.values():
            image.name = names[image.name]
    return PosedModel(
        reconstruction=reconstruction,
        estimated_from=tuple(name for name in task.estimate_from if work.labels[name] in registered),
        method=method,
        num_keypoints=num_keypoints,
        num_matches=num_matches,
    )


@contextmanager
def quiet_colmap() -> Iterator[None]:
    """Keep COLMAP from writing its log to standard error; its errors are exceptions."""
    before = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = int(pycolmap.logging.Level.FATAL)
    try:
        yield
    finally:
        pycolmap.logging.minloglevel = before


def link_photos(task: PoseTask) -> Workspace:
    """Make the folder that COLMAP works in, with links to all photos."""
    folder = task.folder / "colmap"
    photos = folder / "photos"
    photos.mkdir(parents=True, exist_ok=True)
    labels = {}
    for index, photo in enumerate(task.photos):
        label = f"{index:06d}{Path(photo.name).suffix.lower()}"
        labels[photo.name] = label
        link = photos / label
        if not link.is_symlink():
            link.symlink_to(os.path.relpath(task.images / photo.name, photos))
    return Workspace(folder=folder, photos=photos, labels=labels)


def import_photos(database: pycolmap.Database, work: Workspace, task: PoseTask) -> None:
    """Write the cameras and photos that the database lacks, in the order of names: ids do not depend on threads."""
    known = {image.name: image.camera_id for image in database.read_all_images()}
    cameras = {photo.lens: known[label] for photo in task.photos if (label := work.labels[photo.name]) in known}
    for photo in task.photos:
        label = work.labels[photo.name]
        if label in known:
            continue
        if photo.lens not in cameras:
            cameras[photo.lens] = database.write_camera(initial_camera(photo, task.config))
        options = pycolmap.ImageReaderOptions(
            camera_model=task.config.camera_model, existing_camera_id=cameras[photo.lens]
        )
        pycolmap.import_images(work.database, work.photos, pycolmap.CameraMode.AUTO, [label], options)


def initial_camera(photo: PhotoInfo, config: PoseConfig) -> pycolmap.Camera:
    """The camera of a photo before mapping: its known focal length, or a usual one, and no distortion."""
    focal_px = photo.focal_px or USUAL_FOCAL * max(photo.width_px, photo.height_px)
    camera = pycolmap.Camera.create_from_model_name(0, config.camera_model, focal_px, photo.width_px, photo.height_px)
    camera.has_prior_focal_length = photo.focal_px is not None
    return camera


def extract_keypoints(database: pycolmap.Database, ids: dict[str, int], work: Workspace, task: PoseTask) -> None:
    """Extract the keypoints of all photos that have none in the database; transparent pixels get none."""
    config = task.config
    options = pycolmap.FeatureExtractionOptions(
        max_image_size=config.size_px, num_threads=config.num_threads, use_gpu=False
    )
    options.sift.max_num_features = config.max_keypoints
    photos = [photo for photo in task.photos if not database.exists_keypoints(ids[work.labels[photo.name]])]
    groups: dict[bool, list[str]] = {True: [], False: []}  # COLMAP takes a mask for each photo of a call, or for none
    for photo in photos:
        label = work.labels[photo.name]
        groups[write_keypoint_mask(photo, task.images, work.masks, label)].append(label)
    with progress(total=len(ids), initial=len(ids) - len(photos), description="keypoints") as bar:
        for is_masked, labels in groups.items():
            reading = pycolmap.ImageReaderOptions(mask_path=work.masks) if is_masked else pycolmap.ImageReaderOptions()
            for batch in split_batches(labels, config.num_threads):
                require_space(work.database, len(batch) * config.max_keypoints * BYTES_PER_KEYPOINT)
                pycolmap.extract_features(
                    work.database,
                    work.photos,
                    batch,
                    reader_options=reading,
                    extraction_options=options,
                    device=pycolmap.Device.cpu,
                )
                bar.update(len(batch))


def split_batches(items: Sequence[T], size: int) -> Iterator[list[T]]:
    """Split a sequence into batches of at most ``size`` items."""
    for start in range(0, len(items), size):
        yield list(items[start : start + size])


def choose_pairs(database: pycolmap.Database, ids: dict[str, int], config: PoseConfig) -> list[tuple[str, str]]:
    """Choose the pairs of photos to match: all of them, or neighbors by name and photos that look alike."""
    labels = sorted(ids)
    if config.matching == "all" or (config.matching == "auto" and len(labels) <= MAX_ALL_PAIRS):
        return list(combinations(labels, 2))
    alike = compare_photos([read_largest(database, ids[label]) for label in labels])
    chosen: set[tuple[int, int]] = set()
    for i in range(len(labels)):
        chosen.update((i, j) for j in range(i + 1, min(i + 1 + config.neighbors, len(labels))))
        most = np.argsort(-alike[i], kind="stable")[: config.neighbors]
        chosen.update((min(i, int(j)), max(i, int(j))) for j in most if j != i)
    return [(labels[i], labels[j]) for i, j in sorted(chosen)]


def read_largest(database: pycolmap.Database, image_id: int) -> Float[ndarray, "K 128"]:
    """The descriptors of the keypoints of largest scale of a photo, with unit length."""
    keypoints = database.read_keypoints(image_id)  # x, y and an affine frame
    descriptors = np.asarray(database.read_descriptors(image_id).data, np.float32).reshape(len(keypoints), 128)
    scales = np.hypot(keypoints[:, 2], keypoints[:, 4])
    largest = descriptors[np.argsort(-scales, kind="stable")[:NUM_LARGEST]]
    return largest / np.maximum(np.linalg.norm(largest, axis=1, keepdims=True), 1e-9)


def compare_photos(descriptors: Sequence[Float[ndarray, "_ 128"]]) -> Float[ndarray, "N N"]:
    """Count the mutual nearest neighbors of each pair of photos among a few descriptors; -1 on the diagonal.

    A small sample of the largest keypoints predicts which pairs match (Wu, "Towards linear-time incremental structure
    from motion", 3DV 2013).
    """
    counts = np.full((len(descriptors), len(descriptors)), -1.0)
    with progress(total=len(descriptors), description="photos that look alike") as bar:
        for i, first in enumerate(descriptors):
            for j in range(i):
                if len(first) and len(descriptors[j]):
                    products = first @ descriptors[j].T
                    best, back = products.argmax(1), products.argmax(0)
                    mutual = (back[best] == np.arange(len(best))) & (products.max(1) > MIN_COSINE)
                    counts[i, j] = counts[j, i] = int(mutual.sum())
            bar.update()
    return counts


def match_pairs(
    database: pycolmap.Database,
    ids: dict[str, int],
    pairs: Sequence[tuple[str, str]],
    work: Workspace,
    config: PoseConfig,
    max_error_px: float,
) -> None:
    """Match the pairs that the database lacks, and verify them: inliers are ``max_error_px`` from epipolar lines."""
    options = pycolmap.FeatureMatchingOptions(
        num_threads=config.num_threads, use_gpu=False, guided_matching=len(ids) <= FEW_PHOTOS
    )
    verification = pycolmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = config.seed
    verification.ransac.max_error = max_error_px
    missing = [(a, b) for a, b in pairs if not database.exists_two_view_geometry(ids[a], ids[b])]
    listing = work.folder / "pairs.txt"
    with progress(total=len(pairs), initial=len(pairs) - len(missing), description="pairs of photos") as bar:
        for batch in split_batches(missing, PAIRS_PER_BATCH):
            require_space(work.database, len(batch) * config.max_keypoints * BYTES_PER_MATCH)
            write_text(listing, "".join(f"{a} {b}\n" for a, b in batch))
            pairing = pycolmap.ImportedPairingOptions(match_list_path=listing)
            pycolmap.match_image_pairs(work.database, options, pairing, verification, pycolmap.Device.cpu)
            bar.update(len(batch))


def choose_max_error_px(photos: Sequence[PhotoInfo]) -> float:
    """COLMAP's 4 px for photos of 1600 px, and less for smaller ones, in which 4 px accept wrong matches."""
    longest = float(np.median([max(photo.width_px, photo.height_px) for photo in photos]))
    return float(np.clip(4 * longest / 1600, 1.5, 6))


def read_num_matches(database: pycolmap.Database, ids: dict[str, int], work: Workspace) -> dict[tuple[str, str], int]:
    """The number of verified matches of each pair that has any, by the names of its photos."""
    names = {ids[label]: name for name, label in work.labels.items()}
    found = {}
    for pair_id, num in zip(*database.read_two_view_geometry_num_inliers(), strict=True):
        a, b = pycolmap.pair_id_to_image_pair(pair_id)
        if num:
            found[names[a], names[b]] = int(num)
    return found
