"""Photometric drift: how the color and light of repaired frames wander against the clean frames of the same views.

Each frame is described by a gain and a bias per channel, ``frame = gain * clean + bias``. A restorer that repairs
frame by frame may look right in each of them and still change its mind about the exposure from one to the next; the
spread of the gains over the sequence, and their change from frame to frame, show that.

The two images must show the same structure: where one lacks detail of the other or has it elsewhere, the slope between
them drops, and that is no drift. On the sample (six photos, 160 px), gains of a known spread 0.094 that were put on the
repaired frames come back as 0.094 against the renders that the restorer was given, but are lost against the photos,
where the fit's own flaws spread the gains by 0.2. Take photos for frames that are near to them, and else the renders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from splatfix.color_fit import MIN_PIXELS, Channels, ColorFit, fit_color, is_unclipped
from splatfix.records import parse_record
from splatfix.shapes import Bool, Float

SCHEMA = 1
REMEDY = "measure the drift again, or use the splatfix that wrote it"
NUM_REFITS = 2  # each without the pixels that the fit before predicts to be clipped
MAD_TO_SIGMA = 1.4826  # standard deviation of normal noise over its median absolute deviation


@dataclass(frozen=True, kw_only=True)
class FrameDrift:
    """The color of one frame against its clean frame: ``frame = gain * clean + bias``.

    Attributes:
        name: of the frame.
        gain: per channel, without unit; None where it could not be measured.
        bias: per channel, in [0, 1] sRGB; None where it could not be measured.
        share: share of the pixels that the fit used.
        residual: median absolute error of the frame against ``gain * clean + bias`` over these pixels.
        reason: why gain and bias are None; else None.
    """

    name: str
    gain: Channels | None
    bias: Channels | None
    share: float
    residual: float | None
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
        clean_frames: what each frame is compared with, at the same size: the photo of the view, or the render that was
            repaired (see the module).
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
    frame, weight = frame.to(clean), torch.ones_like(clean[..., 0]) if weight is None else weight.to(clean)
    if frame.shape != clean.shape or weight.shape != clean.shape[:2]:
        raise ValueError(
            f"drift: frame {name!r} is {_size(frame)}, its clean frame {_size(clean)} and its weight {_size(weight)}; "
            "wanted the same size in pixels"
        )
    finite = (clean.isfinite() & frame.isfinite()).all(dim=-1)
    clean, frame, weight = clean.nan_to_num(), frame.nan_to_num(), weight * finite
    fit, weight_of_fit = fit_color(clean, frame, weight), weight
    for _ in range(NUM_REFITS):
        unclipped_weight = weight * _is_predicted_unclipped(fit, clean, frame, weight)
        refit = fit_color(clean, frame, unclipped_weight)
        if refit.form != "gain_bias":
            break
        fit, weight_of_fit = refit, unclipped_weight
    if fit.form != "gain_bias":
        few = f"only {fit.num_pixels} pixels are neither clipped nor weighted out; wanted {MIN_PIXELS}"
        flat = "the clean frame has no contrast or is black, so that gain and bias cannot be told apart"
        reason = few if fit.num_pixels < MIN_PIXELS else flat
        return FrameDrift(name=name, gain=None, bias=None, share=0.0, residual=None, reason=reason)
    used = (weight_of_fit > 0) & is_unclipped(clean) & is_unclipped(frame)  # clipped pixels follow no gain
    residual = float((fit.apply(clean) - frame).abs().mean(dim=-1)[used].median())
    share = fit.num_pixels / weight.numel()
    return FrameDrift(name=name, gain=fit.gain, bias=fit.bias, share=share, residual=residual, reason=None)


def _is_predicted_unclipped(
    fit: ColorFit, clean: Float[Tensor, "H W 3"], frame: Float[Tensor, "H W 3"], weight: Float[Tensor, "H W"]
) -> Bool[Tensor, "H W"]:
    """Mask the pixels whose color, as a fit predicts it, is far from 0 and 1 compared with the noise.

    To choose by the color that is seen would keep, of the pixels near white, those that noise made darker.
    """
    predicted = fit.apply(clean)
    used = (weight > 0) & ((frame > 0) & (frame < 1)).all(dim=-1)
    sigma = MAD_TO_SIGMA * float((predicted - frame).abs()[used].median()) if bool(used.any()) else 0.0
    return ((predicted > 3 * sigma) & (predicted < 1 - 3 * sigma)).all(dim=-1)


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
