"""Where a fit starts: the structure of the photos is looked for once, whatever the number of fits."""

from __future__ import annotations

import torch

from splatfix.captures import open_capture
from splatfix.sample import sample_path
from splatfix.splats import scene as module
from splatfix.splats.initial_points import InitializationConfig
from splatfix.splats.scene import load_scene, start_fit
from splatfix.splats.train import FitConfig


def test_fits_of_the_same_photos_share_the_survey(monkeypatch) -> None:
    calls, real = [], module.survey_photos
    monkeypatch.setattr(module, "survey_photos", lambda *args, **named: calls.append(1) or real(*args, **named))
    capture = open_capture(sample_path(), longest_side_px=48)
    names = capture.names[::9]
    scene, initial = load_scene(capture, names, torch.device("cpu")), InitializationConfig(num_random=50)

    def means(seed: int, of=scene, how=initial) -> torch.Tensor:
        return start_fit(of, FitConfig(), how, seed=seed).gaussians().means.detach()

    first, second = means(0), means(1)
    assert len(calls) == 1 and not torch.equal(first, second)
    torch.testing.assert_close(means(0), first, rtol=0, atol=0)
    again = load_scene(capture, names, torch.device("cpu"))
    torch.testing.assert_close(means(1, of=again), second, rtol=0, atol=0)
    assert len(calls) == 2
    means(0, of=again, how=InitializationConfig(num_random=60))
    assert len(calls) == 3
