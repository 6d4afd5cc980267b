"""Artifact masks of image files: what ``splatfix mask`` writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from splatfix.images import SUFFIXES, read_image, write_image
from splatfix.restoration.artifact_mask import MaskOptions, find_artifacts

ENDING = ".mask.png"


@dataclass(frozen=True, kw_only=True)
class MaskFile:
    """The mask of an image.

    Attributes:
        image: the image's file.
        path: the mask's file; white is an artifact.
        share: of the pixels that are white, in [0, 1].
    """

    image: Path
    path: Path
    share: float


def write_masks(places: Sequence[Path], out: Path, options: MaskOptions) -> Iterator[MaskFile]:
    """Write the mask of each image into a folder, as ``NAME.mask.png``.

    Masks of images of the same name start with the name of their folder. An alpha channel marks holes, and its image is
    composited over white.

    Raises:
        ValueError: a place is neither an image nor a folder with images, or an image cannot be read.
    """
    images = find_images(places)
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: is a file; wanted a folder for the masks")
    for image, name in zip(images, choose_names(images), strict=True):
        pixels = torch.from_numpy(read_image(image))
        rgb, alpha = pixels[..., :3], pixels[..., 3] if pixels.shape[-1] == 4 else None
        if alpha is not None:
            rgb = alpha[..., None] * rgb + 1 - alpha[..., None]
        mask = find_artifacts(rgb, alpha, options)
        path = out / f"{name}{ENDING}"
        write_image(path, mask.float().numpy())
        yield MaskFile(image=image, path=path, share=float(mask.float().mean()))


def find_images(places: Sequence[Path]) -> list[Path]:
    """The images among files and in folders, without masks that were written there; each once, in order."""
    found: dict[Path, Path] = {}
    for place in places:
        if place.is_dir():
            files = [path for path in sorted(place.iterdir()) if path.suffix.lower() in SUFFIXES and path.is_file()]
            files = [path for path in files if not path.name.endswith(ENDING)]
            if not files:
                raise ValueError(f"{place}: no images in this folder; wanted files that end in {', '.join(SUFFIXES)}")
        elif place.is_file():
            files = [place]
        else:
            raise ValueError(f"{place}: no such image file or folder")
        for path in files:
            found.setdefault(path.resolve(), path)
    if not found:
        raise ValueError("no image given; wanted image files, or folders of them")
    return list(found.values())


def choose_names(images: Sequence[Path]) -> list[str]:
    """A name for each image: its stem; with its folder's name, then a number, where that is taken (in any case)."""
    stems = [path.stem.lower() for path in images]
    names: list[str] = []
    taken: set[str] = set()
    for path, stem in zip(images, stems, strict=True):
        wanted = path.stem if stems.count(stem) == 1 else f"{path.resolve().parent.name}_{path.stem}"
        name, number = wanted, 1
        while name.lower() in taken:
            number += 1
            name = f"{wanted}_{number}"
        taken.add(name.lower())
        names.append(name)
    return names
