"""Videos as small MP4 files that every browser plays."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy import ndarray

from splatfix.files import write_whole


def write_video(path: Path, frames: Iterable[ndarray], fps: float = 24, there_and_back: bool = True) -> None:
    """Write uint8 frames ``[H, W, 3]`` as a small MP4 that every browser plays, whole or not at all.

    H.264, yuv420p, index in front; an odd width or height loses its last column or row. ``there_and_back`` appends the
    frames in reverse, so that the video loops without a jump.

    Raises:
        ValueError: no frames, or frames of different sizes.
    """
    import imageio_ffmpeg

    encoding = ["-f", "mp4", "-crf", "25", "-preset", "medium", "-movflags", "+faststart", "-threads", "2"]
    with write_whole(path) as temporary:
        writer, size, backwards = None, None, []
        try:
            for frame in frames:
                even = np.ascontiguousarray(frame[: frame.shape[0] // 2 * 2, : frame.shape[1] // 2 * 2], dtype=np.uint8)
                if writer is None:
                    size = even.shape
                    writer = imageio_ffmpeg.write_frames(
                        str(temporary),
                        (size[1], size[0]),
                        fps=fps,
                        codec="libx264",
                        pix_fmt_out="yuv420p",
                        quality=None,
                        macro_block_size=1,
                        ffmpeg_log_level="error",
                        output_params=encoding,
                    )
                    writer.send(None)
                if even.shape != size:
                    raise ValueError(f"{path}: frame of shape {frame.shape} after frames of {size}; wanted one size")
                writer.send(even)
                if there_and_back:
                    backwards.append(even)
            if writer is None:
                raise ValueError(f"{path}: no frames to write")
            for even in backwards[-2:0:-1]:
                writer.send(even)
        finally:
            if writer is not None:
                writer.close()
