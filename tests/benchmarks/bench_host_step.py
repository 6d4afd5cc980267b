"""What a step of a fit on a GPU costs the host, measured without one: gsplat's Python without its kernels.

The compiled functions are emulated (`tests.gpu.emulated_gsplat`), and answer each call with what they returned to the
first one of its kind. On so few Gaussians and pixels what is timed is Python and the launches of torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from unittest.mock import patch

import torch
from torch import Tensor

from splatfix.splats import train
from splatfix.splats.densify import DensifyConfig
from splatfix.splats.losses import TrainingView
from splatfix.splats.train import Fit, FitConfig, advance
from tests.gpu import emulated_gsplat
from tests.rendering.scenes import camera, cloud

NUM_STEPS, SIDE_PX = 20, 16
LOSSES = import_module("splatfix.rendering.ssim")  # a function of that name hides the module


@contextmanager
def answer_at_once() -> Iterator[None]:
    """Draw through gsplat, whose compiled functions return what they returned before; for fits that do not grow."""
    answers: dict[str, object] = {}

    def remember(name: str, function: Callable[..., object]) -> Callable[..., object]:
        def answer(*given: object) -> object:
            if name not in answers:
                answers[name] = function(*given)
            return answers[name]

        return answer

    names = [
        name for name in emulated_gsplat.__all__ if name.endswith(("_fwd", "_bwd")) or name.startswith("intersect")
    ]
    functions = {name: remember(name, getattr(emulated_gsplat, name)) for name in names}
    with emulated_gsplat.render_through_gsplat(), patch.multiple(emulated_gsplat, **functions):
        yield


def steps_without_growth(loss: Callable[..., Tensor], *, with_depth: bool) -> Callable[[], None]:
    """Prepare `NUM_STEPS` steps of a fit with this loss; returns what runs them."""
    photo = TrainingView(camera(SIDE_PX, SIDE_PX), torch.full((SIDE_PX, SIDE_PX, 3), 0.5))
    config = FitConfig(dropout=0.0, densify=DensifyConfig(strategy="none"))
    fit = Fit(cloud(8, degree=1), config, scene_scale=3.0, num_photos=1)
    render = train.render

    def draw(*given, **named):
        return render(*given, **{**named, "with_depth": with_depth})

    def run() -> None:
        with (
            answer_at_once(),
            patch.object(LOSSES, "choose_loss", lambda _: loss),
            patch.object(train, "render", draw),
        ):
            advance(fit, [photo], NUM_STEPS, seed=0)

    return run
