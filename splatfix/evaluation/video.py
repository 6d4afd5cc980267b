"""Videos as small MP4 files that every browser plays."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import numpy as np
from numpy import ndarray

from splatfix.files import write_whole
from splatfix.programs import StallError, describe_exit, killing, write_to_pipe

END_SECONDS = 600.0  # that ffmpeg may take after the last frame, to encode the last ones and to put the index in front


def write_video(path: Path, frames: Iterable[ndarray], fps: float = 24, there_and_back: bool = True) -> None:
    """Write uint8 frames ``[H, W, 3]`` as a small MP4 that every browser plays, whole or not at all.

    H.264, yuv420p, index in front; an odd width or height loses its last column or row. ``there_and_back`` appends the
    frames in reverse, so that the video loops without a jump.

    Raises:
        ValueError: no frames, or frames of different sizes.
        OSError: the disk is full, or ffmpeg failed.
    """
    with write_whole(path) as temporary, ExitStack() as stack:
        encode, size, backwards = None, None, []
        for frame in frames:
            even = np.ascontiguousarray(frame[: frame.shape[0] // 2 * 2, : frame.shape[1] // 2 * 2], dtype=np.uint8)
            if encode is None:
                size = even.shape
                encode = stack.enter_context(_encoding(temporary, path, size[1], size[0], fps))
            if even.shape != size:
                raise ValueError(f"{path}: frame of shape {frame.shape} after frames of {size}; wanted one size")
            encode(even.data)
            if there_and_back:
                backwards.append(even)
        if encode is None:
            raise ValueError(f"{path}: no frames to write")
        for even in backwards[-2:0:-1]:
            encode(even.data)


@contextmanager
def _encoding(
    file: Path, path: Path, width_px: int, height_px: int, fps: float
) -> Iterator[Callable[[memoryview], None]]:
    """Start ffmpeg, and yield what takes the bytes of frames. OSError, with ``path``, if it does not end well."""
    import imageio_ffmpeg

    command = [
        *(imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-f", "rawvideo", "-vcodec", "rawvideo"),
        *("-s", f"{width_px}x{height_px}", "-pix_fmt", "rgb24", "-r", f"{fps:.02f}", "-i", "-", "-an"),
        *("-vcodec", "libx264", "-pix_fmt", "yuv420p", "-v", "error", "-f", "mp4", "-crf", "25"),
        *("-preset", "medium", "-movflags", "+faststart", "-threads", "2", str(file)),
    ]
    with tempfile.TemporaryFile() as messages:  # a pipe that nobody reads would stop ffmpeg
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=messages, stderr=messages, start_new_session=True
        )
        assert process.stdin is not None
        with killing(process, "ffmpeg"):
            try:
                with process.stdin, suppress(BrokenPipeError):  # its exit code says why
                    yield partial(write_to_pipe, process.stdin.fileno())
                code = process.wait(END_SECONDS)
            except StallError as error:
                raise OSError(f"{path}: ffmpeg was stopped: {error}; check the disk") from None
            except subprocess.TimeoutExpired:
                raise OSError(
                    f"{path}: ffmpeg has not ended {END_SECONDS:g} s after the last frame, and was stopped; check the "
                    "disk"
                ) from None
        messages.seek(0)
        said = messages.read().decode(errors="replace").strip()
    if code:
        if code == -signal.SIGXFSZ:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
        if os.strerror(errno.ENOSPC) in said:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        reason = said.splitlines()[-1] if code > 0 and said else describe_exit(code)
        raise OSError(f"{path}: ffmpeg failed ({reason})")
    if not file.is_file() or file.stat().st_size == 0:
        raise OSError(f"{path}: ffmpeg has written no video")
