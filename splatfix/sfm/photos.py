"""Find the photos to pose, check them, and put them upright into the folder of images."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image
from scipy import ndimage

from splatfix.captures.photos import have_same_aspect
from splatfix.files import write_whole
from splatfix.images import SUFFIXES, has_transparency, open_image, read_header, read_image, to_bytes
from splatfix.process import progress
from splatfix.sfm.config import PoseConfig
from splatfix.sfm.poser import PhotoInfo
from splatfix.shapes import Float

MIN_PHOTOS = 3
LINKED_FORMATS = ("JPEG", "MPO", "PNG")  # that COLMAP reads as they are
VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".mts", ".m2ts", ".3gp", ".wmv")
FILM_DIAGONAL_MM = 43.27  # of 35 mm film: focal lengths "as if 35 mm" refer to it
SHARPNESS_SIDE_PX = 640


@dataclass(frozen=True, kw_only=True)
class SourcePhoto:
    """A photo that the user gave: its file, the SHA-256 of the file, and its name in the capture."""

    path: Path
    digest: str
    name: str


@dataclass(frozen=True, kw_only=True)
class PlacedPhoto:
    """A photo in the folder of images, its sharpness, and whether its pixels were turned."""

    info: PhotoInfo
    sharpness: float
    was_turned: bool


def find_photo_files(folder: Path) -> list[Path]:
    """Find the photos of a folder: those directly in it, else those of its only folder that has any; sorted by name."""
    photos = _list_photos(folder)
    if photos:
        return photos
    inner = [found for each in sorted(folder.iterdir()) if each.is_dir() and (found := _list_photos(each))]
    return inner[0] if len(inner) == 1 else []


def _list_photos(folder: Path) -> list[Path]:
    return [path for path in _visible_files(folder) if path.suffix.lower() in SUFFIXES]


def find_video_files(folder: Path) -> list[Path]:
    """Find the videos directly in a folder, sorted by name."""
    return [path for path in _visible_files(folder) if path.suffix.lower() in VIDEO_SUFFIXES]


def _visible_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.is_file())


def gather_photos(folder: Path) -> tuple[list[SourcePhoto], list[str]]:
    """Read the photos of a folder once: without those that are there twice, and with notes about these.

    Raises:
        ValueError: fewer than three photos, or a file that is no image.
    """
    paths = find_photo_files(folder)
    if not paths:
        raise ValueError(f"{folder}: {describe_folder(folder)}; wanted at least {MIN_PHOTOS} photos, or a video")
    photos: dict[str, SourcePhoto] = {}
    taken: set[str] = set()
    notes = []
    with progress(paths, description="reading photos") as bar:
        for path in bar:
            header = read_header(path)
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            if digest in photos:
                notes.append(f"{path.name} is the same file as {photos[digest].path.name}: used once")
                continue
            name = _free_name(path, taken, has_alpha=header.has_alpha)
            taken.add(name.casefold())
            photos[digest] = SourcePhoto(path=path, digest=digest, name=name)
    check_count(folder, len(photos), notes)
    return list(photos.values()), notes


def describe_folder(folder: Path) -> str:
    """Say what a folder without usable photos holds."""
    holders = [each.name for each in sorted(folder.iterdir()) if each.is_dir() and _list_photos(each)]
    if len(holders) > 1:
        return f"photos are in several folders ({', '.join(holders[:4])}): pass one of them"
    return "no photos in it"


def check_count(source: Path, num: int, notes: Sequence[str] = ()) -> None:
    """Refuse fewer than three photos. ValueError."""
    if num < MIN_PHOTOS:
        found = "1 photo" if num == 1 else f"{num} photos"
        doubles = f" ({notes[0]})" if notes else ""
        raise ValueError(
            f"{source}: {found}{doubles}; wanted at least {MIN_PHOTOS} different photos of one scene, 20 or more are "
            "better: move sideways between them"
        )


def _free_name(path: Path, taken: set[str], *, has_alpha: bool) -> str:
    """The name of a photo in the capture: its own, with a suffix that COLMAP reads, and that keeps alpha."""
    suffix = path.suffix.lower()
    kept = suffix in (".jpg", ".jpeg", ".png")
    name = path.name if kept else path.stem + (".png" if has_alpha or suffix in (".tif", ".tiff", ".bmp") else ".jpg")
    return f"{path.stem}_{suffix[1:]}{Path(name).suffix}" if name.casefold() in taken else name


def place_photo(photo: SourcePhoto, images: Path, config: PoseConfig) -> PlacedPhoto:
    """Put a photo upright into the folder of images, unless it is there.

    A file that is upright already becomes a hard link, or a copy. One that EXIF says is turned is written again with
    its pixels turned, so that poses belong to the pixels in every program.

    Raises:
        ValueError: the file cannot be read.
    """
    target = images / photo.name
    header = read_header(photo.path)
    is_turned = header.orientation != 1
    with open_image(photo.path) as image:
        exif = image.getexif()
        links = not is_turned and image.format in LINKED_FORMATS and image.mode in ("RGB", "L", "RGBA", "P")
        sharpness = measure_sharpness(_read_gray(photo.path, image))
    if not target.is_file():
        (_link if links else _rewrite)(photo.path, target)
    info = describe_photo(photo.name, str(photo.path), *header.size(upright=True), exif, config)
    if header.has_alpha and has_transparency(target):
        info = replace(info, has_transparency=True)
    return PlacedPhoto(info=info, sharpness=sharpness, was_turned=is_turned)


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:  # another disk
        with write_whole(target) as temporary:
            shutil.copyfile(source, temporary)


def _rewrite(source: Path, target: Path) -> None:
    """Write a photo with its pixels turned upright, as 8-bit; a JPEG keeps its EXIF but for the orientation."""
    pixels = to_bytes(read_image(source, upright=True))
    with write_whole(target) as temporary:
        if target.suffix.lower() == ".png":
            Image.fromarray(pixels).save(temporary, "PNG")
            return
        with open_image(source) as image:
            exif = image.getexif()
        exif.pop(ExifTags.Base.Orientation, None)
        Image.fromarray(pixels[..., :3]).save(temporary, "JPEG", quality=97, subsampling=0, exif=exif)


def _read_gray(path: Path, image: Image.Image) -> Float[np.ndarray, "H W"]:
    """A small gray version of an image; the whole file is decoded. ValueError if that fails."""
    try:
        gray = image.convert("L")
    except (OSError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: cannot be decoded ({error}); is the file whole? Else remove it") from error
    gray.thumbnail((SHARPNESS_SIDE_PX, SHARPNESS_SIDE_PX), Image.Resampling.BOX)
    return np.asarray(gray, np.float32)


def measure_sharpness(gray: Float[np.ndarray, "H W"]) -> float:
    """Measure how sharp an image is: the variance of its Laplacian over that of its brightness."""
    return float(ndimage.laplace(gray).var() / max(gray.var(), 1.0))


def describe_photo(name: str, source: str, width_px: int, height_px: int, exif: Any, config: PoseConfig) -> PhotoInfo:
    """Describe an upright photo: its size, the key of its physical camera, and its focal length from EXIF."""
    details = exif.get_ifd(ExifTags.IFD.Exif) if exif is not None else {}
    camera = [exif.get(tag) for tag in (ExifTags.Base.Make, ExifTags.Base.Model)] if exif is not None else []
    lens = [details.get(tag) for tag in (ExifTags.Base.LensModel, ExifTags.Base.FocalLength)]
    size = f"{width_px}x{height_px}"
    keys = {
        "auto": " ".join([size, *(str(part).strip() for part in (*camera, *lens) if part)]),
        "one": size,
        "each": name,
    }
    return PhotoInfo(
        name=name,
        source=source,
        width_px=width_px,
        height_px=height_px,
        lens=keys[config.cameras],
        focal_px=read_focal_px(details, width_px, height_px, config.focal_mm),
    )


def read_focal_px(details: Any, width_px: int, height_px: int, focal_mm: float | None) -> float | None:
    """The focal length in pixels that EXIF gives (``FocalLengthIn35mmFilm``), else that of the setting.

    That of a photo that was cropped to another shape is unknown.
    """
    taken = details.get(ExifTags.Base.ExifImageWidth), details.get(ExifTags.Base.ExifImageHeight)
    known = details.get(ExifTags.Base.FocalLengthIn35mmFilm)
    if known and all(taken):
        sides = (max(taken), min(taken)), (max(width_px, height_px), min(width_px, height_px))
        known = known if have_same_aspect(*sides) else None
    millimeters = float(known) if known else focal_mm
    return None if not millimeters else millimeters / FILM_DIAGONAL_MM * float(np.hypot(width_px, height_px))
