"""Precision and recall of artifact masks on photos with planted Gaussians: ``make bench-mask``.

The defaults of `MaskOptions` were chosen on the first group of captures; the second was only measured. A masked pixel
is right within 2 px of a pixel that a planted Gaussian changed; a Gaussian is found where half of its pixels are.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from splatfix.images import SUFFIXES, read_image, resize
from splatfix.restoration.artifact_mask import find_artifacts
from tests.restoration.planted import plant_gaussians

SCENES = Path(os.environ.get("SPLATFIX_SCENES", "../shared/scenes"))
GROUPS = {
    "chosen on": "sample_banana castle brighton_aerial relief bronze_axe cyprus_arch plush bonsai statue",
    "measured": "sample_tankard fox flowerpot fountain lund_street building_site terrace greatwall entry flower",
}
SIZE_PX, NUM_PHOTOS, MARGIN_PX = 320, 3, 2
COLUMNS = ("photo", "planted", "masked", "precision", "recall", "needles", "floaters")


def main() -> None:
    print(f"{'':16}", *(f"{name:>10}" for name in COLUMNS))
    for group, names in GROUPS.items():
        rows = []
        for scene in names.split():
            measured = [measure(photo, scene, index) for index, photo in enumerate(read_photos(SCENES / scene))]
            rows += measured
            _print(scene, measured)
        _print(f"{group}: mean", rows)


def read_photos(capture: Path) -> list[np.ndarray]:
    """Some photos of a capture, evenly over their names, over white."""
    paths = [path for path in sorted(capture.rglob("*")) if path.suffix.lower() in SUFFIXES]
    paths = [path for path in paths if "mask" not in str(path.relative_to(capture))]
    photos = []
    for index in np.linspace(0, len(paths) - 1, NUM_PHOTOS + 2).astype(int)[1:-1]:
        image = read_image(paths[index])
        if image.shape[-1] == 4:
            image = image[..., :3] * image[..., 3:] + 1 - image[..., 3:]
        scale = SIZE_PX / max(image.shape[:2])
        photos.append(resize(image, round(scale * image.shape[1]), round(scale * image.shape[0])))
    return photos


def measure(photo: np.ndarray, scene: str, index: int) -> tuple[float, ...]:
    """One row of the table, of one photo."""
    planted = plant_gaussians(photo, np.random.default_rng([7, index, len(scene), ord(scene[0])]))
    clean, mask = (find_artifacts(torch.from_numpy(image)).numpy() for image in (photo, planted.rgb))
    near = ndimage.binary_dilation(planted.truth, iterations=MARGIN_PX)
    found = np.array([mask[own].mean() > 0.5 for own in planted.masks])
    return (
        *(clean.mean(), planted.truth.mean(), mask.mean()),
        *(near[mask].mean() if mask.any() else 0.0, mask[planted.truth].mean()),
        *(found[planted.is_needle].mean(), found[~planted.is_needle].mean()),
    )


def _print(name: str, rows: list[tuple[float, ...]]) -> None:
    print(f"{name:16}", *(f"{100 * value:9.1f}%" for value in np.mean(rows, axis=0)))


if __name__ == "__main__":
    main()
