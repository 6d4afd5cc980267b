"""What is posed: a folder of photos, or a video; and whether a path is one of these."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from splatfix.captures import ARCHIVES, UNPACK, find_owner, has_other_poses, is_capture, is_procedural, is_remote
from splatfix.files import hash_text
from splatfix.images import SUFFIXES
from splatfix.runs import Input
from splatfix.sfm.photos import (
    VIDEO_SUFFIXES,
    SourcePhoto,
    check_count,
    find_photo_files,
    find_video_files,
    gather_photos,
)
from splatfix.sfm.video import count_frames


@dataclass(frozen=True, kw_only=True)
class Source:
    """What is posed: a folder of photos, or a video."""

    path: Path
    photos: tuple[SourcePhoto, ...] = ()
    video: Path | None = None
    notes: tuple[str, ...] = ()

    def identify(self) -> Input:
        """The source as the input of a run."""
        if self.video is not None:
            with self.video.open("rb") as file:  # in parts: videos are large
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        else:
            digest = hash_text("\n".join(f"{photo.name} {photo.digest}" for photo in self.photos))
        return Input(path=str(self.path.resolve()), digest=digest[:16])


def needs_poses(path: Path | str) -> bool:
    """Whether a path is a video, or a folder of photos or with a video, that has no poses in any format."""
    if is_remote(path):
        return False
    path = Path(path)
    if not path.exists():
        return False
    if path.is_file():
        return path.suffix.lower() in VIDEO_SUFFIXES
    if is_capture(path) or has_other_poses(path):
        return False
    if any(is_capture(each) for each in path.iterdir() if each.is_dir()) or find_owner(path) is not None:
        return False
    return bool(find_photo_files(path) or find_video_files(path))


def count_photos(path: Path | str) -> int | None:
    """The number of photos in a folder that has no poses; None for a video, of which frames are chosen.

    Raises:
        ValueError: too few photos to estimate poses from.
    """
    path = Path(path)
    if not path.is_dir():
        return None
    num = len(find_photo_files(path))
    if num:
        check_count(path, num)
    return num or None


def open_source(path: Path | str) -> Source:
    """Find the photos or the video at a path; a URL is recognized as a string only, since a ``Path`` merges slashes.

    Raises:
        ValueError: there is nothing to pose, or it has poses already.
    """
    if is_procedural(path):
        raise ValueError(f"{path}: a procedural scene has cameras already; fit it as it is")
    if is_remote(path):
        raise ValueError(f"{path}: is a URL; wanted a folder of photos or a video on this machine: download it first")
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder; wanted a folder of photos, or a video")
    if path.is_file():
        if path.suffix.lower() in SUFFIXES:
            check_count(path, 1)
        if path.suffix.lower() in ARCHIVES:
            raise ValueError(f"{path}: {UNPACK}")
        count_frames(path)
        return Source(path=path, video=path)
    if is_capture(path):
        raise ValueError(
            f"{path}: is a capture with poses already; pass it to splatfix loop, or its folder of images here"
        )
    videos = find_video_files(path)
    if find_photo_files(path) or not videos:
        photos, notes = gather_photos(path)
        notes += [f"{video.name} is a video beside photos: not used" for video in videos]
        return Source(path=path, photos=tuple(photos), notes=tuple(notes))
    if len(videos) > 1:
        raise ValueError(f"{path}: {len(videos)} videos and no photos; pass one of them, such as {videos[0]}")
    count_frames(videos[0])
    return Source(path=path, video=videos[0])
