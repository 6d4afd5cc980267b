"""Decode videos with ffmpeg: count frames, read them small and gray, or write them. A stalled video is given up."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy import ndarray

from splatfix.files import scratch_folder, sync
from splatfix.process import progress
from splatfix.programs import StallError, describe_exit, killing, read_from_pipe, wait_while_working
from splatfix.shapes import UInt8

END_OF_JPEG = b"\xff\xd9"  # the last bytes of a whole file
PGM_HEADER = re.compile(rb"P5\s(\d+)\s(\d+)\s255\s")
READ_BYTES = 1 << 16


def decode_all(video: Path, promised: float) -> int:
    """Decode a video to count its frames, with a bar of those ``promised``, since that takes minutes for a long one.

    Raises:
        RuntimeError: it cannot be decoded; with the log of ffmpeg.
        OSError: ffmpeg was killed, or did nothing more.
    """
    counts = [0]
    with scratch_folder("video") as place:
        report = place / "report"
        arguments = ["-nostats", "-i", str(video), "-map", "0:v:0", "-vf", "null"]
        arguments += ["-progress", f"file:{report}", "-f", "null", "-"]
        with (
            progress(total=round(promised), description="counting frames", quiet=not promised) as bar,
            _running(video, arguments, place / "log") as process,
        ):

            def count() -> int:
                counts.append(_read_count(report))
                return counts[-1]

            wait_while_working(process, count, bar.update)
        if process.returncode != 0 or not counts[-1]:
            raise RuntimeError((place / "log").read_text(errors="replace"))
    return counts[-1]


def _read_count(report: Path) -> int:
    """The number of frames in the latest report of ffmpeg; 0 before the first one."""
    try:
        counts = re.findall(r"frame= *(\d+)\n", report.read_text(errors="replace"))
    except FileNotFoundError:
        return 0
    return int(counts[-1]) if counts else 0


def read_gray_frames(video: Path, every: int, width_px: int) -> Iterator[UInt8[ndarray, "H W"]]:
    """Yield every n-th frame of a video, gray and scaled to a width.

    Raises:
        RuntimeError: the rest cannot be decoded; with the log of ffmpeg.
        OSError: ffmpeg was killed, or did nothing more.
    """
    arguments = ["-v", "error", "-i", str(video), "-vf", f"select='not(mod(n,{every}))',scale={width_px}:-2"]
    arguments += ["-fps_mode", "passthrough", "-f", "image2pipe", "-pix_fmt", "gray", "-vcodec", "pgm", "-"]
    with scratch_folder("video") as place:
        with _running(video, arguments, place / "log", subprocess.PIPE) as process:
            assert process.stdout is not None
            with process.stdout as pipe:
                yield from _split_pgm(lambda: read_from_pipe(pipe.fileno(), READ_BYTES))
                wait_while_working(process, lambda: 0, lambda _: None)
        if process.returncode != 0:
            raise RuntimeError((place / "log").read_text(errors="replace"))


def _split_pgm(read: Callable[[], bytes]) -> Iterator[UInt8[ndarray, "H W"]]:
    """Yield the images of a stream of PGM files; an unfinished last one is left out."""
    data = bytearray()
    while chunk := read():
        data += chunk
        while header := PGM_HEADER.match(data):
            width, height = int(header[1]), int(header[2])
            end = header.end() + width * height
            if len(data) < end:
                break
            yield np.frombuffer(bytes(data[header.end() : end]), np.uint8).reshape(height, width)
            del data[:end]


def write_frames(video: Path, chosen: Sequence[int], paths: Sequence[Path], folder: Path) -> None:
    """Decode a video once and write the chosen frames as JPEG files, each whole or not at all.

    Args:
        video: the file.
        chosen: indices of frames, ascending.
        paths: a file for each.
        folder: where the files are until they are whole, and the log of ffmpeg.

    Raises:
        ValueError: it has fewer frames.
        OSError: the disk is full, or ffmpeg was killed or did nothing more.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("frames-*/"):  # of a killed process
        shutil.rmtree(old, ignore_errors=True)
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    messages = folder / "ffmpeg.log"
    with tempfile.TemporaryDirectory(dir=folder, prefix="frames-") as place:
        arguments = ["-v", "error", "-i", str(video), "-vf", f"select='{_match_frames(chosen)}'"]
        arguments += ["-fps_mode", "passthrough", "-q:v", "1", "-qmin", "1", f"{place}/%06d.jpg"]
        with (
            progress(total=len(chosen), description="writing frames") as bar,
            _running(video, arguments, messages) as process,
        ):
            wait_while_working(process, lambda: len(os.listdir(place)), bar.update)
        written = sorted(Path(place).iterdir())
        if not all(source.read_bytes().endswith(END_OF_JPEG) for source in written):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(paths[0].parent))
        if len(written) < len(chosen):
            reason = (messages.read_text(errors="replace").strip().splitlines() or ["it ends early"])[-1][:100]
            raise ValueError(f"{video}: {len(written)} of {len(chosen)} frames can be decoded ({reason}); is it whole?")
        for source, target in zip(written, paths, strict=True):
            sync(source)
            source.replace(target)


def _match_frames(chosen: Sequence[int]) -> str:
    """An expression of ffmpeg that is true for the chosen frames: a balanced sum, since it nests 100 deep at most."""
    if len(chosen) == 1:
        return f"eq(n,{chosen[0]})"
    half = len(chosen) // 2
    return f"({_match_frames(chosen[:half])}+{_match_frames(chosen[half:])})"


@contextmanager
def _running(
    video: Path, arguments: Sequence[str], log: Path, stdout: int = subprocess.DEVNULL
) -> Iterator[subprocess.Popen]:
    """Run ffmpeg within the block; its messages go to a file, since a pipe that nobody reads would stop it.

    Raises:
        OSError: a stall in the block, or ffmpeg was killed.
    """
    import imageio_ffmpeg

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", *arguments]
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=stdout, stderr=file, start_new_session=True)
    try:
        with killing(process, "ffmpeg"):
            yield process
            if process.returncode is not None and process.returncode < 0:
                end = describe_exit(process.returncode)
                raise OSError(f"{video}: ffmpeg was ended by {end}; run the command again")
    except StallError as error:
        raise OSError(
            f"{video}: ffmpeg was stopped: {error}; can its disk be read? Copy the video to a local disk"
        ) from None
