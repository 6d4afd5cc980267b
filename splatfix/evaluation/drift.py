"""Photometric drift: how the color and light of repaired frames wander against the clean frames of the same views.

Each frame is described by a gain and a bias per channel, ``frame = gain * clean + bias``. A restorer that repairs
frame by frame may look right in each of them and still change its mind about the exposure from one to the next; the
spread of the gains over the sequence, and their change from frame to frame, show that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from splatfix.records import parse_record
from splatfix.shapes import Float

SCHEMA = 1
REMEDY = "measure the drift again, or use the splatfix that wrote it"
MIN_PIXELS = 32  # of full weight, for a gain and a bias
MIN_CONTRAST = 0.005  # standard deviation of the clean values below which gain and bias cannot be told apart
CLIPPED = 1.5 / 255  # values this near to 0 or 1 are, or were before they were stored, clipped
TUKEY = 4.685  # cutoff of the biweight in standard deviations: 95 % efficiency for normal noise
MAD_TO_SIGMA = 1.4826  # standard deviation of normal noise over its median absolute deviation
MIN_SIGMA = 0.5 / 255  # noise of images in 8 bits
NUM_ITERATIONS = 30

Channels = tuple[float, float, float]  # red, green, blue


@dataclass(frozen=True, kw_only=True)
class FrameDrift:
    """The color of one frame against its clean frame: ``frame = gain * clean + bias``.

    Attributes:
        name: of the frame.
        gain: per channel, without unit; None where it could not be measured.
        bias: per channel, in [0, 1] sRGB; None where it could not be measured.
        share: share of the pixels that the fit used, the smallest over the channels.
        reason: why gain and bias are None; else None.
    """

    name: str
    gain: Channels | None
    bias: Channels | None
    share: float
    reason: str | None


@dataclass(frozen=True, kw_only=True)
class Drift:
    """The drift of a sequence of frames. Frames without a gain are left out of all figures.

    Attributes:
        schema: of the record.
        frames: in the order of the sequence.
        mean_gain: mean over the frames, per channel.
        mean_bias: mean over the frames, per channel.
        gain_spread: standard deviation of the gains over the sequence, per channel.
        bias_spread: standard deviation of the biases over the sequence, per channel.
        gain_change: mean absolute difference of the gains of consecutive frames, per channel.
        bias_change: mean absolute difference of the biases of consecutive frames, per channel.
        reasons: why a figure is None, by field.
    """

    schema: int = SCHEMA
    frames: tuple[FrameDrift, ...]
    mean_gain: Channels | None
    mean_bias: Channels | None
    gain_spread: Channels | None
    bias_spread: Channels | None
    gain_change: Channels | None
    bias_change: Channels | None
    reasons: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """The drift as a JSON object."""
        return asdict(self)

    @staticmethod
    def from_json(tree: Any, source: str = "drift") -> Drift:
        """Read parsed JSON. ValueError in one line for another schema and for a missing or ill-typed field."""
        return parse_record(Drift, tree, source=source, remedy=REMEDY, schema=SCHEMA)


def measure_drift(
    frames: Sequence[Float[Tensor, "_ _ 3"]],
    clean_frames: Sequence[Float[Tensor, "_ _ 3"]],
    weights: Sequence[Float[Tensor, "_ _"] | None] | None = None,
    *,
    names: Sequence[str] | None = None,
) -> Drift:
    """Measure gain and bias of each frame, their spread, and their change along the sequence.

    Args:
        frames: the repaired images in the order of the sequence, ``[H, W, 3]`` in [0, 1].
        clean_frames: the photo of each view, or its render where there is no photo, at the same size.
        weights: weight of each pixel in [0, 1], ``[H, W]``, 0 where the two show different things; None weighs all
            pixels of a frame (or of all frames) alike.
        names: of the frames; by default their numbers from 0.

    Raises:
        ValueError: sequences of different lengths, or images of different sizes.
    """
    names = [str(number) for number in range(len(frames))] if names is None else list(names)
    weights = [None] * len(frames) if weights is None else weights
    counts = [len(clean_frames), len(weights), len(names)]
    if any(count != len(frames) for count in counts):
        raise ValueError(
            f"drift: {len(frames)} frames, but {counts[0]} clean frames, {counts[1]} weights and {counts[2]} names; "
            "wanted one of each per frame"
        )
    return summarize_drift(tuple(map(_measure_frame, names, frames, clean_frames, weights)))


def summarize_drift(frames: Sequence[FrameDrift]) -> Drift:
    """Compute the figures of a sequence from those of its frames."""
    gains, biases = [frame.gain for frame in frames], [frame.bias for frame in frames]
    num_known = sum(gain is not None for gain in gains)
    reasons: dict[str, str] = {}
    if num_known == 0:
        reasons |= dict.fromkeys(("mean_gain", "mean_bias"), "no frame has a gain")
    if num_known < 2:
        reason = f"{num_known} of {len(frames)} frames have a gain; wanted at least two"
        reasons |= dict.fromkeys(("gain_spread", "bias_spread"), reason)
    if (gain_change := _mean_change(gains)) is None:
        reasons |= dict.fromkeys(("gain_change", "bias_change"), "no two consecutive frames have a gain")
    return Drift(
        frames=tuple(frames),
        mean_gain=_mean(gains),
        mean_bias=_mean(biases),
        gain_spread=_spread(gains),
        bias_spread=_spread(biases),
        gain_change=gain_change,
        bias_change=_mean_change(biases),
        reasons=reasons,
    )


def _measure_frame(
    name: str,
    frame: Float[Tensor, "_ _ 3"],
    clean: Float[Tensor, "_ _ 3"],
    weight: Float[Tensor, "_ _"] | None,
) -> FrameDrift:
    weight = torch.ones(clean.shape[:2]) if weight is None else weight
    if frame.shape != clean.shape or weight.shape != clean.shape[:2]:
        raise ValueError(
            f"drift: frame {name!r} is {_size(frame)}, its clean frame {_size(clean)} and its weight {_size(weight)}; "
            "wanted the same size in pixels"
        )
    source, target, weight_ = (_flat(image) for image in (clean, frame, weight))
    lines = [_fit_line(source[:, c], target[:, c], weight_[:, 0]) for c in range(3)]
    for line in lines:
        if isinstance(line, str):
            return FrameDrift(name=name, gain=None, bias=None, share=0.0, reason=line)
    gain, bias, share = zip(*lines, strict=True)
    return FrameDrift(name=name, gain=gain, bias=bias, share=min(share), reason=None)


def _fit_line(
    source: Float[np.ndarray, " P"], target: Float[np.ndarray, " P"], weight: Float[np.ndarray, " P"]
) -> tuple[float, float, float] | str:
    """Fit ``target = gain * source + bias``: gain, bias and the share of pixels used, or why there is none.

    Iteratively reweighted least squares: first with the weights of least absolute deviations, then with Tukey's
    biweight (Beaton and Tukey 1974) at the residuals' median absolute deviation. Clipped pixels would pull the gain
    towards 0. They are recognized by the value that the fit predicts for them: choosing by the value that is seen would
    keep, of the pixels near white, those that noise made darker.
    """
    given = (weight > 0) & np.isfinite(source) & np.isfinite(target) & _unclipped(source, 0.0)
    source, target, weight = (np.where(given, values, 0) for values in (source, target, weight))
    usable = given & _unclipped(target, 0.0)
    if weight[usable].sum() < MIN_PIXELS:
        return f"fewer than {MIN_PIXELS} pixels are neither clipped nor weighted out"
    gain, bias, robust = 1.0, 0.0, weight * usable
    for iteration in range(NUM_ITERATIONS):
        total = robust.sum()
        mean_source, mean_target = (robust @ source) / total, (robust @ target) / total
        variance = robust @ (source - mean_source) ** 2 / total
        if variance < MIN_CONTRAST**2:
            return f"the clean frame has no contrast (standard deviation below {MIN_CONTRAST}) where it is not clipped"
        before = gain, bias
        gain = float(robust @ ((source - mean_source) * (target - mean_target)) / total / variance)
        bias = float(mean_target - gain * mean_source)
        predicted = gain * source + bias
        distance = np.abs(target - predicted)
        sigma = max(MIN_SIGMA, MAD_TO_SIGMA * float(np.median(distance[usable])))
        if iteration < NUM_ITERATIONS // 3:
            robust = weight * usable / np.maximum(distance, sigma)
            continue
        tukey = np.clip(1 - (distance / (TUKEY * sigma)) ** 2, 0, None) ** 2
        predictable = given & _unclipped(predicted, 3 * sigma)
        if weight[predictable].sum() >= MIN_PIXELS:
            usable = predictable
        robust = weight * usable * tukey
        if robust.sum() < MIN_PIXELS / 2:
            return "frame and clean frame have too little in common for a gain"
        if max(abs(gain - before[0]), abs(bias - before[1])) < 1e-7:
            break
    return gain, bias, float((robust > 0).mean())


def _unclipped(values: np.ndarray, margin: float) -> np.ndarray:
    return (values > CLIPPED + margin) & (values < 1 - CLIPPED - margin)


def _flat(image: Tensor) -> np.ndarray:
    return image.detach().double().cpu().numpy().reshape(image.shape[0] * image.shape[1], -1)


def _size(image: Tensor) -> str:
    return f"{image.shape[1]} x {image.shape[0]}"


def _mean(values: Sequence[Channels | None]) -> Channels | None:
    known = [value for value in values if value is not None]
    return _channels(np.mean(known, axis=0)) if known else None


def _spread(values: Sequence[Channels | None]) -> Channels | None:
    known = [value for value in values if value is not None]
    return _channels(np.std(known, axis=0)) if len(known) > 1 else None


def _mean_change(values: Sequence[Channels | None]) -> Channels | None:
    steps = [np.subtract(b, a) for a, b in pairwise(values) if a is not None and b is not None]
    return _channels(np.abs(steps).mean(axis=0)) if steps else None


def _channels(values: np.ndarray) -> Channels:
    red, green, blue = values.tolist()
    return red, green, blue
