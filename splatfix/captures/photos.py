"""Find photos on disk, check their headers, and load them as the pinhole images of their cameras."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy import ndarray

from splatfix.cameras import Camera, measure_baseline
from splatfix.captures.capture import Capture, Photo, Points, View
from splatfix.captures.capture_files import LOCAL, CaptureFiles
from splatfix.captures.finder import has_image_suffix, is_spelled_otherwise
from splatfix.captures.lenses import Lens, compute_pinhole, describe_impossible, undistort
from splatfix.captures.options import DEFAULT_OPTIONS, MaskMeaning, PhotoOptions
from splatfix.captures.orientation import NO_TURN, Turn, choose_turn, describe_turns, have_same_aspect, tell_by_size
from splatfix.captures.validity import resize_valid
from splatfix.images import (
    OPAQUE_ALPHA,
    Header,
    check_image,
    has_few_colors,
    read_header,
    read_image,
    read_pixels,
    resize,
    to_float,
)
from splatfix.shapes import Bool, Float, Shaped

WHITE = (1.0, 1.0, 1.0)
MIN_VALID = 0.9  # of the lightest pixel of a mask; darker ones are ignored, also at the edge of what is ignored
MIN_LIGHT = 0.1  # of a pixel that is the lightest; in a darker mask there is only noise
MIN_WHITE = 0.99  # of the lightest pixel of a mask; in the masks of an object, darker ones are labels
MAX_ODD_PHOTOS = 50  # with another suffix than their names, that are decoded when a capture is opened


@dataclass(frozen=True)
class PhotoFile:
    """Loads one photo: applies its alpha and mask, undistorts it, and scales it to its camera's size.

    Alpha and mask either mark the object, which is set on white, or the pixels to ignore (`captures.masks` decides).
    It has no state, so that it can be pickled and sent to other processes.
    """

    path: Path
    file_size: tuple[int, int]
    camera_size: tuple[int, int]
    lens: Lens
    has_alpha: bool
    mask_path: Path | None = None
    files: CaptureFiles = LOCAL
    alpha_marks: MaskMeaning = "ignore"
    mask_marks: MaskMeaning = "ignore"
    turn: Turn = NO_TURN

    @property
    def paths(self) -> list[Path]:
        """The files that are read."""
        return [self.path] if self.mask_path is None else [self.path, self.mask_path]

    def __call__(self) -> Photo:
        """Read the photo. ValueError if the file is broken or has changed since the capture was opened."""
        self.files.fetch(self.paths)
        image = read_pixels(self.path, upright=self.turn.is_applied)
        height, width = image.shape[:2]
        if (width, height) != self.file_size or (image.shape[2] == 4) != self.has_alpha:
            raise ValueError(f"{self.path}: changed while in use (now {width}x{height}); open the capture again")
        photo, masks = image[..., :3], self._read_masks(image)  # pixels are converted to floats while they are resized
        if "object" in masks:
            mask = masks["object"][..., None]
            photo = np.concatenate([to_float(photo) * mask + (1 - mask), mask], axis=2)
        shrink: Callable[..., ndarray] = resize
        if "ignore" in masks and not (is_valid := self._find_valid(masks["ignore"])).all():
            shrink = partial(resize_valid, is_valid=is_valid)
        fitted = self._fit_to_camera(photo, shrink)
        object_mask = np.ascontiguousarray(fitted[..., 3]) if "object" in masks else None
        validity = None if shrink is resize else np.ascontiguousarray(fitted[..., -1])
        return Photo(np.ascontiguousarray(fitted[..., :3]), object_mask, validity)

    def _read_masks(self, image: Shaped[ndarray, "H W C"]) -> dict[MaskMeaning, Float[ndarray, "H W"]]:
        """Read what marks the object, and what marks the pixels to ignore: alpha, the mask, or both multiplied."""
        masks: dict[MaskMeaning, Float[ndarray, "H W"]] = {}
        if self.has_alpha:
            masks[self.alpha_marks] = to_float(image[..., 3])
        if self.mask_path is not None:
            height, width = image.shape[:2]
            read = _read_object_mask if self.mask_marks == "object" else _read_mask
            mask = resize(read(self.mask_path, upright=self.turn.is_applied), width, height)
            masks[self.mask_marks] = masks[self.mask_marks] * mask if self.mask_marks in masks else mask
        return masks

    def check(self) -> None:
        """Decode the files without keeping them. ValueError if one is broken, or if the mask ignores every pixel."""
        check_image(self.path)
        if self.mask_path is not None:
            mask = _read_mask(self.mask_path, upright=self.turn.is_applied)
            if self.mask_marks == "ignore":
                self._find_valid(mask)

    def _find_valid(self, mask: Float[ndarray, "H W"]) -> Bool[ndarray, "H W"]:
        """Find the pixels that a mask does not ignore. ValueError if there are none."""
        is_valid = mask > MIN_VALID * max(float(mask.max()), MIN_LIGHT)
        if not is_valid.any():
            raise ValueError(
                f"{self.mask_path or self.path}: every pixel is ignored; wanted some that are white (or opaque), or "
                "the photo left out: is the mask inverted?"
            )
        return is_valid

    def _fit_to_camera(
        self, image: Shaped[ndarray, "H W C"], shrink: Callable[..., ndarray]
    ) -> Float[ndarray, "h w D"]:
        if self.lens.is_pinhole:
            return shrink(image, *self.camera_size)
        return undistort(image, self.lens, *self.camera_size, shrink=shrink)


def _read_mask(path: Path, *, upright: bool) -> Float[ndarray, "H W"]:
    image = read_image(path, upright=upright)
    has_holes = image.shape[2] == 4 and bool((image[..., 3] < OPAQUE_ALPHA / 255).any())  # as cut-out tools write it
    mask = image[..., 3] if has_holes else image[..., :3].mean(axis=2)
    if 0 < mask.max() < 2 / 255:  # some programs write 0 and 1 instead of 0 and 255
        mask = mask / mask.max()
    return mask


def _read_object_mask(path: Path, *, upright: bool) -> Float[ndarray, "H W"]:
    """Read a mask of an object, which may be a label image: a color or a small number for each label, 0 for none."""
    mask = _read_mask(path, upright=upright)
    is_exact = path.suffix.lower() in (".png", ".bmp", ".tif", ".tiff")  # no noise of JPEG
    if is_exact and 0 < mask.max() < MIN_WHITE and has_few_colors(path):
        return (mask > 0).astype(np.float32)
    return mask


def open_photo(
    name: str,
    path: Path,
    lens: Lens,
    camera_from_world: Float[ndarray, "4 4"],
    longest_side_px: int | None,
    where: str,
    *,
    mask_path: Path | None = None,
    mask_marks: MaskMeaning = "ignore",
    files: CaptureFiles = LOCAL,
    options: PhotoOptions = DEFAULT_OPTIONS,
    header: Header | None = None,
    turn: Turn | None = None,
) -> View:
    """Make the view of a photo on disk, reading only headers.

    The intrinsics are scaled to the file if its size is that of the lens times a factor. ``header`` is given if it
    has been read, ``turn`` where the size of the lens is that of the file and cannot tell whether to turn the photo.

    Raises:
        ValueError: the file is not an image, its aspect ratio is not that of its lens or mask, or the intrinsics cannot
            be those of an image; ``where`` names the field with the lens.
    """
    header = header or read_photo_header(path, files)
    if turn is None:
        turn = choose_turn(header, tell_by_size(header, (lens.width_px, lens.height_px)), options.orientation)
    width, height = header.size(upright=turn.is_applied)
    if not have_same_aspect((width, height), (lens.width_px, lens.height_px)):
        is_turned = have_same_aspect((height, width), (lens.width_px, lens.height_px))
        remedy = "is it turned (EXIF)? wanted it as it was posed" if is_turned else "wanted the same shape"
        raise ValueError(
            f"{path}: image is {width}x{height} but its camera in {where} is {lens.width_px}x{lens.height_px}; {remedy}"
        )
    if mask_path is not None:
        mask_header = read_photo_header(mask_path, files)
        mask_size = mask_header.size(upright=turn.is_applied)
        if not have_same_aspect(mask_size, (width, height)):
            raise ValueError(f"{mask_path}: mask is {mask_size[0]}x{mask_size[1]} but its image is {width}x{height}")
    impossible = describe_impossible(lens)
    if impossible is not None:
        raise ValueError(f"{where}: {impossible}")
    try:
        ideal = compute_pinhole(lens)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    camera = Camera(name, ideal.width_px, ideal.height_px, ideal.intrinsics, camera_from_world)
    scale_x, scale_y = width / lens.width_px, height / lens.height_px
    camera = camera.resize(max(1, round(ideal.width_px * scale_x)), max(1, round(ideal.height_px * scale_y)))
    camera = camera.with_longest_side(longest_side_px)
    size = (camera.width_px, camera.height_px)
    photo = PhotoFile(
        *(path, (width, height), size, lens, header.has_alpha, mask_path, files), mask_marks=mask_marks, turn=turn
    )
    return View(camera, photo)


def read_photo_header(path: Path, files: CaptureFiles) -> Header:
    """Read the header of an image of a capture. ValueError if it is not an image."""
    files.fetch([path], headers=True)
    try:
        return read_header(path)
    except ValueError:
        files.fetch([path])  # a long header, or one at the end
        return read_header(path)


def refuse_masks(found: Mapping[str, Path], files: CaptureFiles) -> None:
    """Check that files with another suffix than their names are photos: some of them are decoded.

    Where all photos have another suffix, three stand for them; where only some have, they are all looked at, up to
    `MAX_ODD_PHOTOS`.

    Raises:
        ValueError: one of them looks like a mask.
    """
    odd = [
        (name, path)
        for name, path in found.items()
        if has_image_suffix(name) and not name.lower().endswith(path.suffix.lower())
    ]
    if len(odd) == len(found) > 3:
        odd = [odd[0], odd[len(odd) // 2], odd[-1]]
    odd = odd[:MAX_ODD_PHOTOS]
    files.fetch([path for _, path in odd])
    for name, path in odd:
        if has_few_colors(path):
            raise ValueError(
                f"{path}: a mask or label image, as it has few colors, and there is no {name}; wanted the photo"
            )


def list_images(folder: Path) -> list[Path]:
    """List the image files directly in a folder, sorted by name, without hidden files."""
    return sorted(
        path
        for path in folder.iterdir()
        if has_image_suffix(path.name) and not path.name.startswith(".") and path.is_file()
    )


def find_image_folders(root: Path) -> list[Path]:
    """Find the folder ``images`` of a capture and its downscaled copies ``images_2``, ``images_4``, ..."""
    names = {folder: folder.name.lower() for folder in root.iterdir() if folder.name.lower().startswith("images")}
    fitting = [f for f, name in names.items() if name == "images" or name.removeprefix("images_").isdigit()]
    return sorted(folder for folder in fitting if folder.is_dir())


def choose_image_folder(folders: Sequence[tuple[Path, Path]], longest_side_px: int | None, files: CaptureFiles) -> Path:
    """Choose the folder with the smallest images that are large enough; each is given with one of its images."""
    files.fetch([image for _, image in folders], headers=True)
    headers = [(read_photo_header(image, files), folder) for folder, image in folders]
    sizes = sorted((max(header.width_px, header.height_px), folder) for header, folder in headers)
    enough = [folder for side, folder in sizes if longest_side_px is not None and side >= longest_side_px]
    return enough[0] if enough else sizes[-1][1]


def describe_missing(missing: Sequence[str], num_wanted: int) -> list[str]:
    """Describe the frames that are skipped because their image is missing: a list of one note, or of none."""
    if not missing:
        return []
    return [f"{len(missing)} of {num_wanted} frames skipped: no image file (the first: {missing[0]})"]


def describe_spellings(found: Mapping[str, Path]) -> list[str]:
    """Describe the names whose files are spelled otherwise: a list of one note, or of none."""
    other = [
        name
        for name, path in found.items()
        if path.name != name.rpartition("/")[2]
        and is_spelled_otherwise(path.name if has_image_suffix(name) else path.stem, name)
    ]
    if not other:
        return []
    return [f"{len(other)} images have files of another spelling (the first: {found[other[0]].name} for {other[0]})"]


def have_same_pose(a: Camera, b: Camera, size: float) -> bool:
    """Whether two poses are equal but for rounding, among cameras that are ``size`` apart."""
    same_center = float(np.linalg.norm(a.center - b.center)) <= 1e-5 * size
    return same_center and np.allclose(a.rotation, b.rotation, atol=1e-6)


def _keep_once(views: tuple[View, ...], path: Path, notes: Sequence[str]) -> tuple[tuple[View, ...], Sequence[str]]:
    """Keep one of the views that occur again with the same pose, with a note.

    Raises:
        ValueError: two views of a name have other poses.
    """
    if len({view.name for view in views}) == len(views):
        return views, notes
    size = measure_baseline([view.camera for view in views])
    kept: dict[str, View] = {}
    for view in views:
        if not have_same_pose(kept.setdefault(view.name, view).camera, view.camera, size):
            raise ValueError(f"{path}: {view.name} occurs twice, with two poses; wanted unique images")
    return tuple(kept.values()), (*notes, f"{len(views) - len(kept)} frames occur again with the same pose: kept once")


def assemble_capture(
    root: Path, path: Path, kind: str, views: Iterable[View], points: Points | None, notes: Sequence[str]
) -> Capture:
    """Make the capture of a reader's views: sorts them, checks that names are unique, adds notes.

    Raises:
        ValueError: no views, or two with the same name.
    """
    views = tuple(sorted(views, key=lambda view: view.name))
    if not views:
        raise ValueError(f"{path}: no frames; wanted at least one posed image")
    views, notes = _keep_once(views, path, notes)
    files = [view.load for view in views if isinstance(view.load, PhotoFile)]
    return Capture(
        name=root.resolve().name,
        path=path,
        format=kind,
        views=views,
        points=points,
        notes=(*notes, *_describe_photos(files)),
    )


def _describe_photos(files: Sequence[PhotoFile]) -> list[str]:
    notes = []
    rescaled = [file for file in files if file.file_size != (file.lens.width_px, file.lens.height_px)]
    if rescaled:
        file_size, lens = rescaled[0].file_size, rescaled[0].lens
        notes.append(
            f"{len(rescaled)} images have another size than their camera ({file_size[0]}x{file_size[1]}, the camera "
            f"says {lens.width_px}x{lens.height_px}): intrinsics rescaled to the files"
        )
    distorted = [file for file in files if not file.lens.is_pinhole]
    if distorted:
        lens, ideal = distorted[0].lens, compute_pinhole(distorted[0].lens)
        notes.append(
            f"{len(distorted)} images are undistorted on load ({lens.model} {lens.width_px}x{lens.height_px}, cropped "
            f"to {ideal.width_px}x{ideal.height_px} without blank pixels)"
        )
    notes += describe_turns([file.turn for file in files])
    return notes
