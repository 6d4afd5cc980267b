"""Pick frames from a video: sharp ones, evenly over the motion of the image rather than over time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy import ndarray

from splatfix.files import read_json, write_json
from splatfix.process import progress
from splatfix.sfm.decoding import decode_all, read_gray_frames, write_frames
from splatfix.sfm.photos import MIN_PHOTOS, measure_sharpness
from splatfix.shapes import Float

PROBE_WIDTH_PX = 320
CANDIDATES_PER_FRAME = 20  # frames that are compared for each one that is picked
STILL_SHARE = 0.1  # of the mean motion, added to each step: a camera that stands still gives some frames, too
SEARCH_SHARE = 0.45  # of the way to the neighboring picks that is searched for a sharp frame
WHOLE_SHARE = 0.9  # of the frames that the header promises, below which a note says so
FFMPEG_SIGNS = {  # in the log of ffmpeg, and what they mean
    "matches no streams": "there is no picture in it, only sound",
    "moov atom not found": "its index is missing: the recording or the copy was cut short",
}
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
        num = decode_all(video, promised)
    except RuntimeError as error:
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


def _find_reason(log: str) -> str:
    """What the log of ffmpeg says about a file that it does not read."""
    for sign, reason in FFMPEG_SIGNS.items():
        if sign in log:
            return reason
    return (log.strip().splitlines() or [""])[-1].strip()[:100]


def measure_frames(video: Path, every: int, total: int) -> tuple[Float[ndarray, " M"], Float[ndarray, " M"]]:
    """Measure every n-th frame, small and gray: its sharpness, and the motion since the one before, in image widths."""
    sharpness, motion = [], []
    before = None
    try:
        with progress(total=total // every, description="looking at frames") as bar:
            for frame in read_gray_frames(video, every, PROBE_WIDTH_PX):
                gray = frame.astype(np.float32)
                sharpness.append(measure_sharpness(gray))
                motion.append(0.0 if before is None else measure_motion(before, gray))
                before = gray
                bar.update()
    except RuntimeError as error:
        if len(sharpness) < MIN_PHOTOS:
            reason = " ".join(str(error).split())[:100]
            raise ValueError(f"{video}: its frames cannot be decoded ({reason}); is the file whole?") from None
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
