"""Masks that keep COLMAP from finding keypoints where photos are transparent.

COLMAP reads colors alone. Under transparent pixels these are made up, or show a background that the user has cut away:
behind an object on a turntable, one that contradicts how the object moves.
"""

from __future__ import annotations

from pathlib import Path

from splatfix.images import read_image, write_image
from splatfix.sfm.poser import PhotoInfo

MIN_ALPHA = 0.5  # of a pixel that may have a keypoint


def write_keypoint_mask(photo: PhotoInfo, images: Path, folder: Path, label: str) -> bool:
    """Write the mask of a photo with transparent pixels, as COLMAP names it; returns whether the photo has any.

    Args:
        photo: the photo.
        images: folder of the photos.
        folder: folder for masks: white where keypoints may be. A photo without a file there would get no keypoints.
        label: name of the photo in COLMAP's database.
    """
    if not photo.has_transparency:
        return False
    target = folder / f"{label}.png"
    if not target.is_file():
        alpha = read_image(images / photo.name)[..., 3]
        folder.mkdir(parents=True, exist_ok=True)
        write_image(target, (alpha >= MIN_ALPHA).astype("float32"))
    return True
