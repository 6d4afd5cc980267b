"""Cross-view consistency: whether repaired views show one and the same scene.

A repaired view is warped into its neighbor by the depth of the fit, and compared with the neighbor where both see the
same surface. Depth is not exact and surfaces shine, so even photos disagree: the error is therefore given over the
error of the clean views at the same pixels, with the same depth. A ratio of 1 is as consistent as photos are.

Compare ratios with each other, above all with that of the unrepaired renders, and beside the sharpness (SSIM, LPIPS) of
the frames. The ratio rewards blur, since a smooth image differs little from its warped neighbor. And renders agree with
the depth of their own fit, wrong as it may be, better than photos do: on the sample (six photos, 160 px, 500 steps) the
ratio is 0.27 for the renders, 0.29 after nafnet, 0.32 after warp.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from splatfix.cameras import Camera, pairwise_separations
from splatfix.flawed import Reference
from splatfix.metrics import psnr_from_mse
from splatfix.records import parse_record
from splatfix.shapes import Bool, Float
from splatfix.warping import warp_reference

SCHEMA = 1
REMEDY = "measure the consistency again, or use the splatfix that wrote it"
MIN_VALIDITY = 0.5  # of a warped pixel that counts
MIN_PIXELS = 32  # that a pair must have in common
MIN_ERROR = 1e-4  # of clean views; below it is rounding, and a ratio to it says nothing
TRIMMED_SHARE = 0.1  # of the pixels with the largest errors, which the trimmed error leaves out


@dataclass(frozen=True, kw_only=True)
class PairError:
    """How much two views disagree over the pixels that both see, in [0, 1] sRGB.

    Attributes:
        psnr: in dB; None where they agree exactly.
        mean_absolute: mean over the pixels and channels.
        trimmed: the same without the tenth of the pixels with the largest errors: a few wrong depths do not count.
    """

    psnr: float | None
    mean_absolute: float
    trimmed: float


@dataclass(frozen=True, kw_only=True)
class PairConsistency:
    """The consistency of one view with a neighbor that is warped into it.

    Attributes:
        view: name of the view.
        neighbor: name of the view that is warped into it.
        overlap: share of the view's pixels that the neighbor sees too.
        repaired: error of the repaired views; None without overlap.
        clean: error of the clean views at the same pixels; None without overlap or clean views.
        ratio: mean absolute error of the repaired views over that of the clean ones; None where one is missing.
        trimmed_ratio: the same of the trimmed errors.
        reason: why one of these is None; else None.
    """

    view: str
    neighbor: str
    overlap: float
    repaired: PairError | None
    clean: PairError | None
    ratio: float | None
    trimmed_ratio: float | None
    reason: str | None


@dataclass(frozen=True, kw_only=True)
class Consistency:
    """The consistency of a set of repaired views.

    Attributes:
        schema: of the record.
        pairs: each view with its neighbor.
        error: mean over the pairs of the repaired views' mean absolute error; None without any pair that overlaps.
        clean_error: the same of the clean views, over the pairs that have one.
        ratio: mean of the pairs' ratios; pairs without a ratio are left out.
        trimmed_ratio: mean of the pairs' trimmed ratios.
        reasons: why a figure is None, by field.
    """

    schema: int = SCHEMA
    pairs: tuple[PairConsistency, ...]
    error: float | None
    clean_error: float | None
    ratio: float | None
    trimmed_ratio: float | None
    reasons: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """The consistency as a JSON object."""
        return asdict(self)

    @staticmethod
    def from_json(tree: Any, source: str = "consistency") -> Consistency:
        """Read parsed JSON. ValueError in one line for another schema and for a missing or ill-typed field."""
        return parse_record(Consistency, tree, source=source, remedy=REMEDY, schema=SCHEMA)


def measure_consistency(
    frames: Sequence[Float[Tensor, "_ _ 3"]],
    cameras: Sequence[Camera],
    depths: Sequence[Float[Tensor, "_ _"]],
    alphas: Sequence[Float[Tensor, "_ _"]],
    clean_frames: Sequence[Float[Tensor, "_ _ 3"]] | None = None,
    *,
    clean_validities: Sequence[Float[Tensor, "_ _"] | None] | None = None,
    pairs: Sequence[tuple[int, int]] | None = None,
) -> Consistency:
    """Measure the consistency of repaired views with their neighbors.

    Args:
        frames: the repaired images, ``[H, W, 3]`` in [0, 1].
        cameras: of the frames.
        depths: of the fit at these cameras, along the axis in world units, ``[H, W]``; 0 where nothing is.
        alphas: opacity of the fit, ``[H, W]``.
        clean_frames: the photo of each view, or its render by a dense fit; None where there is none: no ratios then.
        clean_validities: of the clean frames, 0 where a photo is ignored, ``[H, W]``; ratios leave such pixels out.
        pairs: indices of a view and of the neighbor that is warped into it; by default `nearest_pairs`. For frames
            along a path, pass consecutive ones.

    Raises:
        ValueError: sequences of different lengths, or an image whose size is not its camera's.
    """
    _check_sizes(cameras, frames=frames, depths=depths, alphas=alphas, clean_frames=clean_frames)
    pairs = nearest_pairs(cameras, depths, alphas) if pairs is None else pairs
    sources = list(map(Reference, cameras, frames, depths, alphas))
    cleans = None
    if clean_frames is not None:
        clean_validities = clean_validities or [None] * len(clean_frames)
        cleans = list(map(Reference, cameras, clean_frames, depths, alphas, clean_validities))
    results = tuple(
        _measure_pair(sources[i], sources[j], None if cleans is None else (cleans[i], cleans[j])) for i, j in pairs
    )
    return summarize_consistency(results)


def nearest_pairs(
    cameras: Sequence[Camera], depths: Sequence[Float[Tensor, "_ _"]], alphas: Sequence[Float[Tensor, "_ _"]]
) -> list[tuple[int, int]]:
    """Pair each view with the nearest other one by `cameras.separation`, at the median depth of opaque pixels."""
    if len(cameras) < 2:
        return []
    opaque = [depth[(alpha > 0.5) & (depth > 0)] for depth, alpha in zip(depths, alphas, strict=True)]
    values = torch.cat(opaque)
    distances = pairwise_separations(cameras, float(values.median()) if len(values) else 1.0)
    np.fill_diagonal(distances, np.inf)
    return [(i, int(distances[i].argmin())) for i in range(len(cameras))]


def summarize_consistency(pairs: Sequence[PairConsistency]) -> Consistency:
    """Compute the means from the pairs."""
    means = Consistency(
        pairs=tuple(pairs),
        error=_mean([pair.repaired.mean_absolute for pair in pairs if pair.repaired is not None]),
        clean_error=_mean([pair.clean.mean_absolute for pair in pairs if pair.clean is not None]),
        ratio=_mean([pair.ratio for pair in pairs if pair.ratio is not None]),
        trimmed_ratio=_mean([pair.trimmed_ratio for pair in pairs if pair.trimmed_ratio is not None]),
        reasons={},
    )
    reason = f"in none of {len(pairs)} pairs: {pairs[0].reason}" if pairs else "fewer than two views"
    fields = ("error", "clean_error", "ratio", "trimmed_ratio")
    return replace(means, reasons={field: reason for field in fields if getattr(means, field) is None})


def _measure_pair(view: Reference, neighbor: Reference, clean: tuple[Reference, Reference] | None) -> PairConsistency:
    warped, validity = warp_reference(view.camera, view.depth, view.alpha, neighbor)
    seen = validity > MIN_VALIDITY
    num_seen = int(seen.sum())
    overlap = num_seen / seen.numel()
    repaired = clean_error = reason = None
    ratio = trimmed_ratio = None
    if num_seen < MIN_PIXELS:
        reason = f"no overlap: the neighbor sees {num_seen} pixels of the view; wanted at least {MIN_PIXELS}"
    else:
        repaired = _pair_error(view.rgb, warped, seen)
    if repaired is not None and clean is None:
        reason = "there are no clean views"
    elif repaired is not None and clean is not None:
        clean_warped, clean_validity = warp_reference(view.camera, view.depth, view.alpha, clean[1])
        known = seen & (clean_validity > MIN_VALIDITY)
        if clean[0].validity is not None:
            known &= clean[0].validity > MIN_VALIDITY
        num_known = int(known.sum())
        clean_error = _pair_error(clean[0].rgb, clean_warped, known) if num_known >= MIN_PIXELS else None
        if clean_error is None:
            reason = f"the photos are ignored in all but {num_known} of the pixels that both see; wanted {MIN_PIXELS}"
        elif clean_error.trimmed >= MIN_ERROR:
            compared = repaired if num_known == num_seen else _pair_error(view.rgb, warped, known)
            ratio = compared.mean_absolute / clean_error.mean_absolute
            trimmed_ratio = compared.trimmed / clean_error.trimmed
        else:
            reason = f"the clean views agree to {MIN_ERROR}, and no ratio to such an error says anything"
    return PairConsistency(
        view=view.camera.name,
        neighbor=neighbor.camera.name,
        overlap=overlap,
        repaired=repaired,
        clean=clean_error,
        ratio=ratio,
        trimmed_ratio=trimmed_ratio,
        reason=reason,
    )


def _pair_error(a: Float[Tensor, "H W 3"], b: Float[Tensor, "H W 3"], seen: Bool[Tensor, "H W"]) -> PairError:
    difference = (a.double() - b.to(a).double())[seen]  # [P, 3]
    mse = float(difference.square().mean())
    absolute = difference.abs().mean(-1).sort().values
    num_kept = max(1, round(len(absolute) * (1 - TRIMMED_SHARE)))
    return PairError(
        psnr=psnr_from_mse(mse) if mse > 0 else None,
        mean_absolute=float(absolute.mean()),
        trimmed=float(absolute[:num_kept].mean()),
    )


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _check_sizes(cameras: Sequence[Camera], **images: Sequence[Tensor] | None) -> None:
    for kind, sequence in images.items():
        if sequence is None:
            continue
        if len(sequence) != len(cameras):
            raise ValueError(f"consistency: {len(cameras)} cameras, but {len(sequence)} {kind}; wanted one per camera")
        for camera, image in zip(cameras, sequence, strict=True):
            if tuple(image.shape[:2]) != (camera.height_px, camera.width_px):
                raise ValueError(
                    f"consistency: {kind} of {camera.name!r}: {image.shape[1]} x {image.shape[0]} pixels; wanted "
                    f"{camera.width_px} x {camera.height_px}, as its camera has"
                )
