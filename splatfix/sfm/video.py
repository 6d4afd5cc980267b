"""Pick frames from a video: sharp ones, evenly over the motion of the image rather than over time."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy import ndarray

from splatfix.files import read_json, scratch_folder, sync, write_json
from splatfix.process import progress, wait_for_killed
from splatfix.sfm.photos import MIN_PHOTOS, measure_sharpness
from splatfix.shapes import Float

PROBE_WIDTH_PX = 320
CANDIDATES_PER_FRAME = 20  # frames that are compared for each one that is picked
STILL_SHARE = 0.1  # of the mean motion, added to each step: a camera that stands still gives some frames, too
SEARCH_SHARE = 0.45  # of the way to the neighboring picks that is searched for a sharp frame
WHOLE_SHARE = 0.9  # of the frames that the header promises, below which a note says so
STALL_SECONDS = 600.0  # without a frame, while they are counted
FFMPEG_SIGNS = {  # in the log of ffmpeg, and what they mean
    "matches no streams": "there is no picture in it, only sound",
    "moov atom not found": "its index is missing: the recording or the copy was cut short",
}
END_OF_JPEG = b"\xff\xd9"  # the last bytes of a whole file
MAX_STEP = 0.25  # motion between picked frames, in image widths, above which they share too little


def pick_frames(video: Path, images: Path, folder: Path, num: int) -> tuple[list[Path], list[str]]:
    """Write some frames of a video as JPEG files, upright and in its own size; those written earlier are kept.

    Args:
        video: the file.
        images: folder for the frames.
        folder: where the choice is kept for a later run.
        num: number of frames.

    Returns:
        The files, and notes.

    Raises:
        ValueError: the file is not a video, or has fewer than three frames.
    """
    plan = folder / "frames.json"
    if plan.is_file():
        chosen, notes = (read_json(plan)[key] for key in ("frames", "notes"))
    else:
        chosen, notes = choose_frames(video, num)
        write_json(plan, {"frames": chosen, "notes": notes})
    paths = [images / f"frame_{index:06d}.jpg" for index in chosen]
    if not all(path.is_file() for path in paths):
        write_frames(video, chosen, paths, folder)
    return paths, notes


def choose_frames(video: Path, num: int) -> tuple[list[int], list[str]]:
    """Choose frames of a video, by their index; also returns notes."""
    total, notes = count_frames(video)
    every = max(1, total // (num * CANDIDATES_PER_FRAME))
    sharpness, motion = measure_frames(video, every, total)
    if len(sharpness) < MIN_PHOTOS:
        raise ValueError(
            f"{video}: {len(sharpness)} frames; wanted a video of at least {MIN_PHOTOS} frames, better of 20 seconds "
            "in which the camera moves"
        )
    picked = spread_frames(sharpness, motion, num)
    notes = [*notes, f"{len(picked)} of {total} frames were picked from {video.name}"]
    step = float(motion.sum()) / max(len(picked) - 1, 1)
    if step > MAX_STEP:
        wanted = int(np.ceil(motion.sum() / MAX_STEP)) + 1
        notes.append(f"the image moves by {step:.2f} of its width between them, which is much: --frames {wanted} helps")
    return [index * every for index in picked], notes


def count_frames(video: Path) -> tuple[int, list[str]]:
    """Count the frames of a video, with a note if they end before its header says. ValueError if it is no video."""
    promised = _read_promised(video)
    try:
        num = _decode_all(video, promised)
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"{video}: cannot be read as a video ({_find_reason(str(error))}); wanted a video that ffmpeg reads, such "
            "as .mp4 or .mov, or a folder of photos"
        ) from None
    notes = []
    if num < WHOLE_SHARE * promised:
        notes.append(f"{video.name} ends after {num} of some {promised:.0f} frames: is the file whole?")
    return num, notes


def _read_promised(video: Path) -> float:
    """How many frames the header promises; 0 if it cannot be read, since decoding tells why."""
    import imageio_ffmpeg

    reader = imageio_ffmpeg.read_frames(str(video))
    try:
        header = next(reader)
    except (OSError, RuntimeError):
        return 0.0
    finally:
        reader.close()
    promised = float(header["fps"] * header["duration"])
    return promised if np.isfinite(promised) else 0.0


def _decode_all(video: Path, promised: float) -> int:
    """Decode a video to count its frames, with a bar, since that takes minutes for a long one.

    Raises:
        RuntimeError: it cannot be decoded; with the log of ffmpeg.
        ValueError: no frame was decoded for `STALL_SECONDS`.
    """
    import imageio_ffmpeg

    with scratch_folder("video") as place:
        messages, report = place / "log", place / "report"  # pipes that nobody reads would stop ffmpeg
        command = [
            *(imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-nostats", "-i", str(video)),
            *("-map", "0:v:0", "-vf", "null", "-progress", f"file:{report}", "-f", "null", "-"),
        ]
        with messages.open("w") as file:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=file, start_new_session=True)
        moved, num = time.monotonic(), 0
        try:
            with progress(total=round(promised), description="counting frames", quiet=not promised) as bar:
                is_done = False
                while not is_done:
                    time.sleep(0.05)
                    is_done = process.poll() is not None
                    before, num = num, _read_count(report)
                    bar.update(num - before)
                    moved = time.monotonic() if num > before else moved
                    if not is_done and time.monotonic() - moved > STALL_SECONDS:
                        raise ValueError(
                            f"{video}: ffmpeg has decoded no frame for {STALL_SECONDS:.0f} s, after {num}; can its "
                            "disk be read? Copy the video to a local disk"
                        )
        finally:
            if process.poll() is None:
                process.kill()
                wait_for_killed(process, "ffmpeg")
        if process.returncode != 0 or not num:
            raise RuntimeError(messages.read_text(errors="replace"))
        return num


def _read_count(report: Path) -> int:
    """The number of frames in the latest report of ffmpeg; 0 before the first one."""
    try:
        counts = re.findall(r"frame= *(\d+)\n", report.read_text(errors="replace"))
    except FileNotFoundError:
        return 0
    return int(counts[-1]) if counts else 0


def _find_reason(log: str) -> str:
    """What the log of ffmpeg says about a file that it does not read."""
    for sign, reason in FFMPEG_SIGNS.items():
        if sign in log:
            return reason
    return (log.strip().splitlines() or [""])[-1].strip()[:100]


def measure_frames(video: Path, every: int, total: int) -> tuple[Float[ndarray, " M"], Float[ndarray, " M"]]:
    """Measure every n-th frame, small and gray: its sharpness, and the motion since the one before, in image widths."""
    import imageio_ffmpeg

    select = f"select='not(mod(n,{every}))',scale={PROBE_WIDTH_PX}:-2"
    reader = imageio_ffmpeg.read_frames(
        str(video), pix_fmt="gray", bits_per_pixel=8, output_params=["-vf", select, "-fps_mode", "passthrough"]
    )
    sharpness, motion = [], []
    before = None
    try:
        width, height = next(reader)["size"]
        with progress(total=total // every, description="looking at frames") as bar:
            for data in reader:
                gray = np.frombuffer(data, np.uint8).reshape(height, width).astype(np.float32)
                sharpness.append(measure_sharpness(gray))
                motion.append(0.0 if before is None else measure_motion(before, gray))
                before = gray
                bar.update()
    except (RuntimeError, OSError) as error:
        if len(sharpness) < MIN_PHOTOS:
            reason = " ".join(str(error).split())[:100]
            raise ValueError(f"{video}: its frames cannot be decoded ({reason}); is the file whole?") from None
    finally:
        reader.close()
    return np.array(sharpness), np.array(motion)


def measure_motion(before: Float[ndarray, "H W"], now: Float[ndarray, "H W"]) -> float:
    """Measure how far an image moved, in image widths: the mean over its quarters of the shift by phase correlation.

    Quarters move apart where the camera moves forward, which the whole image does not show.
    """
    height, width = (side // 2 for side in now.shape)
    shifts = []
    for top in (0, height):
        for left in (0, width):
            part = slice(top, top + height), slice(left, left + width)
            shifts.append(_find_shift(before[part], now[part]))
    return float(np.mean(shifts)) / now.shape[1]


def _find_shift(a: Float[ndarray, "h w"], b: Float[ndarray, "h w"]) -> float:
    """The length of the shift between two images, in pixels."""
    window = np.outer(np.hanning(a.shape[0]), np.hanning(a.shape[1]))
    spectrum = np.fft.rfft2((a - a.mean()) * window) * np.conj(np.fft.rfft2((b - b.mean()) * window))
    correlation = np.fft.irfft2(spectrum / np.maximum(np.abs(spectrum), 1e-6), a.shape)
    y, x = np.unravel_index(int(correlation.argmax()), a.shape)
    return float(np.hypot(min(y, a.shape[0] - y), min(x, a.shape[1] - x)))


def spread_frames(sharpness: Float[ndarray, " M"], motion: Float[ndarray, " M"], num: int) -> list[int]:
    """Choose ``num`` frames that are evenly spread over the motion, and each the sharpest of its surroundings."""
    if len(sharpness) <= num:
        return list(range(len(sharpness)))
    steps = motion + STILL_SHARE * max(float(motion.mean()), 1e-6)
    way = np.cumsum(steps)
    targets = np.linspace(way[0], way[-1], num)
    reach = SEARCH_SHARE * (targets[1] - targets[0])
    picked: list[int] = []
    for target in targets:
        near = np.flatnonzero(np.abs(way - target) <= reach)
        near = near[near > (picked[-1] if picked else -1)]
        if len(near):
            picked.append(int(near[sharpness[near].argmax()]))
    return picked


def write_frames(video: Path, chosen: Sequence[int], paths: Sequence[Path], folder: Path) -> None:
    """Decode a video once and write the chosen frames, each whole or not at all."""
    import imageio_ffmpeg

    select = _match_frames(chosen)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("frames-*/"):  # of a killed process
        shutil.rmtree(old, ignore_errors=True)
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="frames-") as place:
        command = [
            *(imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", "-i", str(video)),
            *("-vf", f"select='{select}'", "-fps_mode", "passthrough", "-q:v", "1", "-qmin", "1"),
            f"{place}/%06d.jpg",
        ]
        messages = folder / "ffmpeg.log"  # a pipe that nobody reads would stop ffmpeg
        with messages.open("w") as file:
            process = subprocess.Popen(command, stderr=file, start_new_session=True)
        try:
            with progress(total=len(chosen), description="writing frames") as bar:
                while process.poll() is None:
                    time.sleep(0.1)
                    bar.update(max(0, len(list(Path(place).iterdir())) - bar.n))
                bar.update(max(0, len(list(Path(place).iterdir())) - bar.n))
        finally:
            if process.poll() is None:
                process.kill()
                wait_for_killed(process, "ffmpeg")
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
