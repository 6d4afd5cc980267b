"""Photos on disk: found, checked by their headers, and loaded as the pinhole image that their camera promises."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy import ndarray

from splatfix.cameras import Camera
from splatfix.captures.capture import Capture, Photo, Points, View
from splatfix.captures.lenses import Lens, pinhole, undistort
from splatfix.images import SUFFIXES, image_size, read_header, read_image, resize
from splatfix.shapes import Float

WHITE = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class PhotoFile:
    """Loads one photo: alpha and mask applied over white, distortion removed, averaged down to its camera's size.

    A value without state: loading keeps nothing, and it travels to other processes.
    """

    path: Path
    file_size: tuple[int, int]
    camera_size: tuple[int, int]
    lens: Lens
    has_alpha: bool
    mask_path: Path | None = None

    @property
    def has_mask(self) -> bool:
        """Whether `Photo.mask` will be filled."""
        return self.has_alpha or self.mask_path is not None

    def __call__(self) -> Photo:
        """Read the photo. ValueError where the file is broken or has changed since the capture was opened."""
        image = read_image(self.path)
        height, width = image.shape[:2]
        if (width, height) != self.file_size or (image.shape[2] == 4) != self.has_alpha:
            raise ValueError(f"{self.path}: changed while in use (now {width}x{height}); open the capture again")
        rgb = image[..., :3]
        if not self.has_mask:
            return Photo(np.ascontiguousarray(self._at_camera(rgb)))
        mask = image[..., 3:] if self.has_alpha else np.ones_like(rgb[..., :1])
        if self.mask_path is not None:
            mask = mask * _read_mask(self.mask_path, width, height)[..., None]
        made = self._at_camera(np.concatenate([rgb * mask + (1 - mask), mask], axis=2))
        return Photo(np.ascontiguousarray(made[..., :3]), np.ascontiguousarray(made[..., 3]))

    def _at_camera(self, image: Float[ndarray, "H W C"]) -> Float[ndarray, "h w C"]:
        if self.lens.is_pinhole:
            return resize(image, *self.camera_size)
        return undistort(image, self.lens, *self.camera_size)


def _read_mask(path: Path, width_px: int, height_px: int) -> Float[ndarray, "H W"]:
    mask = read_image(path)[..., :3].mean(axis=2)
    if 0 < mask.max() < 2 / 255:  # written as 0 and 1 in bytes
        mask = mask / mask.max()
    return resize(mask, width_px, height_px)


def photo_view(
    name: str,
    path: Path,
    lens: Lens,
    camera_from_world: Float[ndarray, "4 4"],
    longest_side_px: int | None,
    where: str,
    mask_path: Path | None = None,
) -> View:
    """A view of a photo on disk. Only headers are read here.

    The intrinsics follow the file: where its size differs from the lens's by a scale, they are scaled with it.

    Raises:
        ValueError: the file is no image, or its shape is not that of the camera or of its mask; ``where`` names the
            field that holds the camera.
    """
    header = read_header(path)
    width, height = header.width_px, header.height_px
    if not same_shape((width, height), (lens.width_px, lens.height_px)):
        turned = same_shape((height, width), (lens.width_px, lens.height_px))
        remedy = "is it turned (EXIF)?" if turned else "wanted the same shape"
        raise ValueError(
            f"{path}: image is {width}x{height} but its camera in {where} is {lens.width_px}x{lens.height_px}; {remedy}"
        )
    if mask_path is not None:
        mask_size = image_size(mask_path)
        if not same_shape(mask_size, (width, height)):
            raise ValueError(f"{mask_path}: mask is {mask_size[0]}x{mask_size[1]} but its image is {width}x{height}")
    try:
        ideal = pinhole(lens)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    camera = Camera(name, ideal.width_px, ideal.height_px, ideal.intrinsics, camera_from_world)
    scale_x, scale_y = width / lens.width_px, height / lens.height_px
    camera = camera.resize(max(1, round(ideal.width_px * scale_x)), max(1, round(ideal.height_px * scale_y)))
    camera = camera.with_longest_side(longest_side_px)
    size = (camera.width_px, camera.height_px)
    return View(camera, PhotoFile(path, (width, height), size, lens, header.has_alpha, mask_path))


def same_shape(a: tuple[int, int], b: tuple[int, int]) -> bool:
    """Whether one size is the other one scaled: within 1 % or, for small images, a pixel of rounding."""
    scale_x, scale_y = a[0] / b[0], a[1] / b[1]
    near = abs(scale_x / scale_y - 1) <= 0.01
    return near or abs(a[0] - b[0] * scale_y) <= 1 or abs(a[1] - b[1] * scale_x) <= 1


def find_image(path: Path) -> Path | None:
    """The image file that a path in a capture means: itself, or the same name with another (or a missing) suffix."""
    if path.suffix.lower() in SUFFIXES:
        if path.is_file():
            return path
        path = path.with_suffix("")
    for suffix in SUFFIXES:
        for spelled in (suffix, suffix.upper()):
            candidate = path.with_name(path.name + spelled)
            if candidate.is_file():
                return candidate
    return None


def list_images(folder: Path) -> list[Path]:
    """Image files directly in a folder, sorted by name; hidden files are not images."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def image_folders(root: Path) -> list[Path]:
    """``images`` and its shrunken copies ``images_2``, ``images_4``, ... that a capture has."""
    folders = [folder for folder in root.glob("images*") if folder.is_dir()]
    return sorted(f for f in folders if f.name == "images" or f.name.removeprefix("images_").isdigit())


def smallest_sufficient(folders: Sequence[tuple[Path, Path]], longest_side_px: int | None) -> Path:
    """Of folders, each given with one of its images, the one of the smallest size that is still large enough."""
    sized = sorted((max(image_size(image)), folder) for folder, image in folders)
    enough = [folder for side, folder in sized if longest_side_px is not None and side >= longest_side_px]
    return enough[0] if enough else sized[-1][1]


def missing_note(missing: Sequence[str], num_wanted: int) -> list[str]:
    """A note on frames that are skipped because their image is missing; none where none is."""
    if not missing:
        return []
    return [f"{len(missing)} of {num_wanted} frames skipped: no image file (the first: {missing[0]})"]


def assemble(
    root: Path, path: Path, kind: str, views: Iterable[View], points: Points | None, notes: Sequence[str]
) -> Capture:
    """A capture of photos on disk: views sorted, names unique, background and notes as the photos are.

    Raises:
        ValueError: no views, or two of one name.
    """
    views = tuple(sorted(views, key=lambda view: view.name))
    if not views:
        raise ValueError(f"{path}: no frames; wanted at least one posed image")
    repeated = [name for name, count in Counter(view.name for view in views).items() if count > 1]
    if repeated:
        raise ValueError(f"{path}: {len(repeated)} names occur twice (the first: {repeated[0]}); wanted unique images")
    files = [view.load for view in views if isinstance(view.load, PhotoFile)]
    num_masks = sum(file.has_mask for file in files)
    return Capture(
        name=root.resolve().name,
        path=path,
        format=kind,
        views=views,
        points=points,
        background=WHITE if num_masks else None,
        notes=(*notes, *_photo_notes(files, num_masks)),
    )


def _photo_notes(files: Sequence[PhotoFile], num_masks: int) -> list[str]:
    notes = []
    rescaled = [file for file in files if file.file_size != (file.lens.width_px, file.lens.height_px)]
    if rescaled:
        seen, said = rescaled[0].file_size, (rescaled[0].lens.width_px, rescaled[0].lens.height_px)
        notes.append(
            f"{len(rescaled)} images have another size than their camera ({seen[0]}x{seen[1]}, the camera says "
            f"{said[0]}x{said[1]}): intrinsics rescaled to the files"
        )
    bent = [file for file in files if not file.lens.is_pinhole]
    if bent:
        lens, ideal = bent[0].lens, pinhole(bent[0].lens)
        notes.append(
            f"{len(bent)} images are undistorted on load ({lens.model} {lens.width_px}x{lens.height_px}, cropped to "
            f"{ideal.width_px}x{ideal.height_px} without blank pixels)"
        )
    if 0 < num_masks < len(files):
        notes.append(f"{len(files) - num_masks} of {len(files)} images have no mask: taken as they are")
    return notes
