"""Find what is doubtful about estimated cameras although their errors are small."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.sparse.csgraph import connected_components

from splatfix.sfm.record import CameraRecord
from splatfix.shapes import Bool, Int

FOCAL_RANGE = 0.4, 4.0  # of the longest side: few lenses are outside of it
FEW_POINTS = 40  # of a photo, whose pose they determine poorly
MIN_SHARED_POINTS = 15  # that tie two photos to each other
STRONG_MATCHES = 30  # of a pair, which are hardly there by chance
EXPLAINED_SHARE = 0.2  # of the matches of a pair, that at least become points if the model agrees with it
MIN_CONTRADICTIONS, CONTRADICTING_SHARE = 3, 0.03  # number and share of pairs above which they are a doubt
MAX_NAMED = 3


def find_doubts(
    reconstruction: Any, cameras: Sequence[CameraRecord], num_matches: Mapping[tuple[str, str], int]
) -> list[str]:
    """Describe what is doubtful about a reconstruction.

    Focal lengths that few lenses have, photos that see few points, groups that one photo ties together, and parts of
    the scene that look alike and were taken for one another. ``num_matches`` are the verified matches of pairs of
    photos, by the pair of names.
    """
    doubts = []
    for camera in cameras:
        ratio = camera.focal_px / max(camera.width_px, camera.height_px)
        if not FOCAL_RANGE[0] <= ratio <= FOCAL_RANGE[1]:
            doubts.append(
                f"the focal length of {camera.num_photos} photos ({camera.width_px}x{camera.height_px}) came out as "
                f"{camera.focal_px:.0f} px, which few lenses have: give it with --focal-mm, or take more photos"
            )
    seen = {image.name: image.num_points3D for image in reconstruction.images.values() if image.has_pose}
    few = sorted(name for name, num in seen.items() if 0 < num < FEW_POINTS)
    if few:
        doubts.append(
            f"{len(few)} of {len(seen)} photos ({_list_some(few)}) see fewer than {FEW_POINTS} points, so that their "
            "poses are uncertain: take photos between these and their neighbors"
        )
    loose = find_loose_photos(reconstruction)
    if loose:
        doubts.append(
            f"{len(loose)} of {len(seen)} photos ({_list_some(loose)}) are tied to the others by one photo or none, so "
            "that their distance from these is uncertain: take photos between the two groups"
        )
    strong, contradicting = find_contradictions(reconstruction, num_matches)
    if len(contradicting) >= max(MIN_CONTRADICTIONS, CONTRADICTING_SHARE * len(strong)):
        a, b = contradicting[0]
        doubts.append(
            f"{len(contradicting)} of {len(strong)} pairs with many matches ({a} and {b} first) contradict the model: "
            "parts of the scene that look alike may have been taken for one another; take photos in smaller steps, or "
            "put something distinct beside what repeats"
        )
    return doubts


def _list_some(names: Sequence[str]) -> str:
    return ", ".join(names[:MAX_NAMED]) + (", ..." if len(names) > MAX_NAMED else "")


def find_contradictions(
    reconstruction: Any, num_matches: Mapping[tuple[str, str], int]
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """The pairs with many matches, and those of them whose matches hardly became points of the model, worst first.

    Where a scene repeats itself, each of two such pairs is right alone, but the model can agree with one only.
    """
    names, shared = count_shared_points(reconstruction)
    index = {name: i for i, name in enumerate(names)}
    strong = [
        (num, pair)
        for pair, num in num_matches.items()
        if num >= STRONG_MATCHES and pair[0] in index and pair[1] in index
    ]
    found = [(num, (a, b)) for num, (a, b) in strong if shared[index[a], index[b]] < EXPLAINED_SHARE * num]
    worst_first = sorted(found, key=lambda entry: (-entry[0], entry[1]))
    return [pair for _, pair in strong], [pair for _, pair in worst_first]


def find_loose_photos(reconstruction: Any) -> list[str]:
    """The names of the photos of a reconstruction that `find_loose_group` finds; photos without points do not count."""
    names, shared = count_shared_points(reconstruction)
    return [names[i] for i in find_loose_group(shared >= MIN_SHARED_POINTS)]


def count_shared_points(reconstruction: Any) -> tuple[list[str], Int[np.ndarray, "N N"]]:
    """The points that each pair of registered photos sees, with the names of the photos; only photos that see any."""
    images = [image for image in reconstruction.images.values() if image.has_pose and image.num_points3D]
    images.sort(key=lambda image: image.name)
    index = {image.image_id: i for i, image in enumerate(images)}
    shared = np.zeros((len(images), len(images)), int)
    for point in reconstruction.points3D.values():
        seen = sorted({index[element.image_id] for element in point.track.elements if element.image_id in index})
        shared[np.ix_(seen, seen)] += 1
    return [image.name for image in images], shared


def find_loose_group(tied: Bool[np.ndarray, "N N"]) -> list[int]:
    """The photos of a group that would come loose from the largest one without one single photo, or is loose already.

    Two groups that only one photo ties together have their scales from different points: their distance is arbitrary.
    Returns the largest such group; empty if every photo is tied by two others, or there are fewer than three.
    """
    num = len(tied)
    found: list[int] = []
    for removed in (None, *range(num)) if num > 2 else ():
        kept = np.array([i for i in range(num) if i != removed])
        count, labels = connected_components(tied[np.ix_(kept, kept)], directed=False)
        if count > 1:
            largest = np.bincount(labels).argmax()
            loose = kept[labels != largest].tolist()
            found = max(found, loose, key=len)
    return found
