"""Drift of constructed sequences: known gains and biases come back, whatever noise, occluders and clipping add."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from splatfix.evaluation.drift import Drift, measure_drift

GAINS = np.array([[1.0, 1.0, 1.0], [1.1, 1.0, 0.9], [0.8, 0.85, 0.9], [1.05, 1.2, 1.3]])
BIASES = np.array([[0.0, 0.0, 0.0], [0.02, -0.03, 0.05], [0.1, 0.05, 0.0], [-0.05, 0.0, -0.1]])


def clean_image(seed: int, low: float = 0.15, high: float = 0.75) -> torch.Tensor:
    coarse = torch.rand(1, 3, 9, 12, generator=torch.Generator().manual_seed(seed))
    image = torch.nn.functional.interpolate(coarse, size=(48, 64), mode="bilinear")[0].permute(1, 2, 0)
    return low + (high - low) * image


def drifting(cleans: list[torch.Tensor], noise: float = 0.0) -> list[torch.Tensor]:
    """The clean images under the known gains and biases, in 8 bits."""
    generator = torch.Generator().manual_seed(9)
    frames = []
    for clean, gain, bias in zip(cleans, GAINS, BIASES, strict=True):
        frame = torch.tensor(gain) * clean + torch.tensor(bias)
        frame = frame + noise * torch.randn(frame.shape, generator=generator)
        frames.append(((frame.clamp(0, 1) * 255).round() / 255).float())
    return frames


def check(drift: Drift, tolerance: float = 0.01) -> None:
    np.testing.assert_allclose([frame.gain for frame in drift.frames], GAINS, rtol=tolerance)
    np.testing.assert_allclose([frame.bias for frame in drift.frames], BIASES, atol=tolerance)
    np.testing.assert_allclose(drift.mean_gain, GAINS.mean(0), rtol=tolerance)
    np.testing.assert_allclose(drift.gain_spread, GAINS.std(0), atol=tolerance)
    np.testing.assert_allclose(drift.bias_spread, BIASES.std(0), atol=tolerance)
    np.testing.assert_allclose(drift.gain_change, np.abs(np.diff(GAINS, axis=0)).mean(0), atol=tolerance)
    np.testing.assert_allclose(drift.bias_change, np.abs(np.diff(BIASES, axis=0)).mean(0), atol=tolerance)
    assert drift.reasons == {}


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_known_gains_come_back(noise):
    cleans = [clean_image(seed) for seed in range(4)]
    check(measure_drift(drifting(cleans, noise), cleans))


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.04])
def test_clipped_pixels_do_not_change_the_gain(noise):
    cleans = [clean_image(seed, low=-0.3, high=1.4).clamp(0, 1) for seed in range(4)]
    frames = drifting(cleans, noise)
    assert max(float(((frame == 1) | (frame == 0)).float().mean()) for frame in frames) > 0.1
    drift = measure_drift(frames, cleans)
    check(drift)
    assert max(frame.share for frame in drift.frames) < 0.95


def test_the_residual_leaves_out_clipped_pixels_so_that_the_exact_image_has_the_smaller_one():
    """A brightened object on white: most of the frame is clipped, and no gain explains clipped pixels."""
    clean = clean_image(3)
    clean[:, 20:] = 1.0
    frame, shifted = (1.1 * clean).clamp(0, 1), clean.roll(2, dims=0)
    exact, moved = measure_drift([frame, frame], [clean, shifted]).frames
    assert exact.gain == pytest.approx((1.1,) * 3, abs=1e-4)
    assert moved.gain is not None and max(moved.gain) < 1.0
    assert exact.residual == pytest.approx(0.0, abs=1e-5)
    assert moved.residual is not None and moved.residual > 0.03


def test_bad_pixels_with_weight_0_do_not_count():
    cleans = [clean_image(seed) for seed in range(4)]
    frames, weights = drifting(cleans), []
    for frame in frames:
        weight = torch.ones(frame.shape[:2])
        weight[:, :40] = 0
        frame[:, :40] = torch.rand(frame[:, :40].shape, generator=torch.Generator().manual_seed(3))
        frame[0, 0] = torch.nan
        weights.append(weight)
    check(measure_drift(frames, cleans, weights))
    assert all(0.3 < frame.share <= 24 / 64 for frame in measure_drift(frames, cleans, weights).frames)


def test_an_occluder_that_nobody_masked_is_an_outlier():
    cleans = [clean_image(seed) for seed in range(4)]
    frames = drifting(cleans, 0.01)
    for frame in frames:
        frame[10:30, 15:40] = torch.tensor([0.9, 0.1, 0.2])
    check(measure_drift(frames, cleans))


def test_measuring_changes_no_input():
    clean = clean_image(0).double()
    clean[0, 0] = torch.inf
    before = clean.clone()
    measure_drift([clean], [clean])
    assert torch.equal(before, clean)


def test_frames_without_a_gain_say_why():
    gray, clean = torch.full((48, 64, 3), 0.5), clean_image(0)
    cleans = [clean, gray, torch.ones(48, 64, 3), clean]
    drift = measure_drift([clean, gray, clean, 0.5 * clean], cleans, names=["a", "b", "c", "d"])
    assert [frame.name for frame in drift.frames] == ["a", "b", "c", "d"]
    assert [frame.gain is None for frame in drift.frames] == [False, True, True, False]
    assert "no contrast" in drift.frames[1].reason and "clipped" in drift.frames[2].reason
    assert drift.gain_spread == pytest.approx((0.25,) * 3, abs=1e-3)
    assert drift.gain_change is None and drift.reasons["gain_change"] == "no two consecutive frames have a gain"
    empty = measure_drift([gray], [gray])
    assert empty.mean_gain is None and set(empty.reasons) == {
        f"{kind}_{what}" for kind, what in [("mean", "gain"), ("mean", "bias")]
    } | {f"{what}_{kind}" for what in ("gain", "bias") for kind in ("spread", "change")}
    assert "0 of 1 frames" in empty.reasons["gain_spread"]


def test_an_unrelated_frame_has_no_exact_fit_but_a_finite_one():
    frame = measure_drift([clean_image(5)], [clean_image(6)]).frames[0]
    assert frame.gain is None or np.isfinite(frame.gain).all()


def test_json_round_trip_and_errors():
    cleans = [clean_image(seed) for seed in range(4)]
    drift = measure_drift(drifting(cleans), cleans)
    tree = json.loads(json.dumps(drift.to_json()))
    assert Drift.from_json(tree) == drift
    tree["frames"][1]["gain"][0] = "x"
    with pytest.raises(ValueError, match=r"^drift: frames\.1\.gain\.0 = 'x': wanted a valid number"):
        Drift.from_json(tree)
    with pytest.raises(ValueError, match="schema = 2"):
        Drift.from_json({**tree, "schema": 2})


def test_sizes_and_counts_are_checked():
    clean = clean_image(0)
    with pytest.raises(ValueError, match=r"frame '0' is 63 x 48, its clean frame 64 x 48"):
        measure_drift([clean[:, :-1]], [clean])
    with pytest.raises(ValueError, match="2 frames, but 1 clean frames"):
        measure_drift([clean, clean], [clean])
