"""What splatfix does on a GPU, traced without one on fake CUDA tensors: where it waits, copies or computes in float64.

A fit's step must not wait for the device. Elsewhere the waits and copies are listed, so that a new one is a decision.
The strategies of growth are not traced: they count Gaussians, and so wait, every few steps.

Skipped where torch is built without CUDA, or where private parts of it have moved, but not with the version in
constraints.txt. The last part adds a wait, a copy, a float64 and a tensor on the CPU, and expects the trace to notice.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from timm.optim import create_optimizer_v2
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from splatfix.captures.capture import Capture, Photo, View
from splatfix.evaluation.measure import measure_views
from splatfix.flawed import FlawedView, render_flawed, render_references
from splatfix.gaussians import Gaussians, Splat
from splatfix.loop.config import RepairConfig
from splatfix.loop.repaired_views import make_training_views, prepare_repairs
from splatfix.pairs import build_pair
from splatfix.rendering import cuda
from splatfix.restoration.baselines import Bilateral, Warp
from splatfix.restoration.nafnet.checkpoint import CheckpointConfig
from splatfix.restoration.nafnet.network import GuidedNet
from splatfix.restoration.nafnet.restorer import NafnetRestorer
from splatfix.restoration.restorer import Repaired
from splatfix.splats import train
from splatfix.splats.densify import DensifyConfig
from splatfix.splats.initial_points import InitializationConfig
from splatfix.splats.losses import TrainingView
from splatfix.splats.scene import SparseScene, start_fit
from splatfix.splats.train import Fit, FitConfig, advance
from splatfix.splats.triangulate import match_descriptors
from splatfix.training import train as training
from splatfix.training.batches import (
    Batch,
    ByteBatch,
    Crop,
    JitterConfig,
    NetworkInputs,
    make_batch,
    random_color_change,
)
from splatfix.training.config import TrainConfig
from splatfix.training.families import family_of
from splatfix.training.learner import Learner
from splatfix.training.state import TrainingState
from splatfix.views import Split
from tests.rendering.scenes import camera, cloud
from tests.restoration.networks import SMALL, random_network
from tests.restoration.scenery import pair

pytestmark = pytest.mark.skipif(torch.version.cuda is None, reason="torch is built without CUDA")


def skip_with_another_torch(error: Exception) -> None:
    """Skip where private parts of torch differ from those of the pinned version; with that one it is an error."""
    constraints = (Path(__file__).parents[2] / "constraints.txt").read_text()
    [pinned] = re.findall(r"^torch==(\S+)$", constraints, re.MULTILINE)
    if torch.__version__.split("+")[0] == pinned:
        raise error
    pytest.skip(f"torch {torch.__version__}, not {pinned}: {error}", allow_module_level=True)


try:
    from tests.gpu.fake_cuda import use_fake_cuda
except ImportError as moved:
    skip_with_another_torch(moved)

# Events of one render: gsplat fetches the number of pairs of a tile and a Gaussian.
RENDER = {"wait: gsplat/cuda/_wrapper.py isect_tiles": 1}
# Events of the first render of a camera.
CAMERA = {
    "asynchronous copy: splatfix/cameras.py stack_cameras": 2,
    "asynchronous copy: splatfix/rendering/cuda.py _place_cameras": 1,
}
# Events of a call of `advance`: the background, and once in a process the window of SSIM.
ADVANCE = {"wait: splatfix/splats/train.py advance": 1, "wait: splatfix/metrics.py ssim_window": 1}
# Events of warping a photo: copies of the two cameras and of the size of its image.
WARP = {"wait: splatfix/warping.py reproject": 2, "wait: splatfix/warping.py sample_bilinear": 1}
# Events of a depth: whether there is any, and its median.
NEARNESS = {"wait: splatfix/conditioning.py compute_nearness": 3}


@pytest.fixture
def events() -> Iterator[Counter[str]]:
    """Fake CUDA tensors, and the events of the test so far."""
    try:
        with use_fake_cuda():
            assert (torch.ones(3).to("cuda") + 1)[torch.ones(3, device="cuda") > 0].sum().cpu() == 0.5
    except Exception as error:
        skip_with_another_torch(error)
    with use_fake_cuda() as found:
        yield found


def expect(events: Counter[str], *expected: tuple[int, dict[str, int]]) -> None:
    """Compare the events with those expected, as tables and how often each of them."""
    wanted: Counter[str] = Counter()
    for times, table in expected:
        wanted.update({place: times * count for place, count in table.items()})
    more, fewer = events - wanted, wanted - events
    assert not more, f"more than is listed: {dict(more)}"
    assert not fewer, f"fewer than is listed (shorten the list): {dict(fewer)}"


def make_fit(**settings: Any) -> tuple[Fit, list[TrainingView]]:
    """Make a fit of two photos on the device."""
    photos = [TrainingView(camera(48, 36), torch.rand(36, 48, 3).to("cuda")) for _ in range(2)]
    settings = {"densify": DensifyConfig(strategy="none"), **settings}
    config = FitConfig(steps=100, exposure_lr=1e-3, opacity_regularizer=0.1, scale_regularizer=0.1, **settings)
    return Fit(cloud(30, degree=1).to("cuda"), config, scene_scale=4.0, num_photos=2), photos


def make_flawed_view() -> FlawedView:
    """Render a view of two fits with two references: eight renders."""
    splats = [Splat(cloud(30, seed=seed).to("cuda")) for seed in range(2)]
    cameras = [camera(48, 36, name=f"photo {k}", angle_rad=0.3 * k) for k in range(3)]
    references = render_references(splats, cameras, [torch.rand(36, 48, 3).to("cuda") for _ in cameras])
    [view] = render_flawed(splats, [camera(48, 36, angle_rad=0.5)], references, 4.0)
    return view


@pytest.mark.parametrize("mode", ["classic", "antialiased"])
def test_a_step_of_a_fit_waits_only_in_gsplat(events, mode: str) -> None:
    fit, photos = make_fit(mode=mode)
    events.clear()
    advance(fit, photos, 4, seed=0)
    expect(events, (4, RENDER), (2, CAMERA), (1, ADVANCE))
    assert all(value.device.type == "cuda" for value in fit.params.values())


def test_a_step_towards_flat_minima_waits_only_in_gsplat(events) -> None:
    fit, photos = make_fit(flat_radius=0.3, flat_start=0.0)
    events.clear()
    advance(fit, photos, 4, seed=0)
    expect(events, (8, RENDER), (2, CAMERA), (1, ADVANCE))


def test_a_recorded_step_fetches_the_loss_and_checks_the_parameters(events) -> None:
    fit, photos = make_fit()
    fit.step = train.RECORD_EVERY - 1
    events.clear()
    advance(fit, photos, 1, seed=0)
    recording = {"wait: splatfix/splats/train.py advance": 1, "wait: splatfix/splats/train.py _check_finite": 6}
    expect(events, (1, RENDER), (1, CAMERA), (1, ADVANCE), (1, recording))
    assert fit.losses == [(train.RECORD_EVERY, 0.5)]


def test_a_step_on_a_repaired_view_waits_only_in_gsplat(events) -> None:
    fit, photos = make_fit()
    repaired = [replace(photos[0], weight=0.5, confidence=torch.rand(36, 48).to("cuda"))]
    events.clear()
    advance(fit, photos, 4, seed=0, repaired=repaired, repaired_probability=1.0)
    expect(events, (4, RENDER), (1, CAMERA), (1, ADVANCE))


def test_a_step_with_estimated_depth_waits_only_in_gsplat(events) -> None:
    fit, photos = make_fit()
    fit.depth_photos = (True, True)
    photos = [replace(photo, nearness=torch.rand(36, 48).to("cuda")) for photo in photos]
    events.clear()
    advance(fit, photos, 4, seed=0)
    expect(events, (4, RENDER), (2, CAMERA), (1, ADVANCE))


def test_flawed_views_wait_only_in_gsplat(events) -> None:
    splats = [Splat(cloud(30, seed=seed).to("cuda")) for seed in range(2)]
    photo = torch.rand(36, 48, 3).to("cuda")
    events.clear()
    references = render_references(splats, [camera(48, 36)], [photo])
    [view] = render_flawed(splats, [camera(48, 36, angle_rad=0.5)], references, 4.0)
    expect(events, (4, RENDER), (2, CAMERA))
    images = (view.rgb, view.alpha, view.depth, view.spread, view.references[0].depth)
    assert all(image.device.type == "cuda" for image in images)


def test_a_repaired_view_of_a_loop_stays_on_the_device(events) -> None:
    view = make_flawed_view()
    config = RepairConfig(spread_scale=0.1, color_fit="gain", quality_scale=0.1)
    events.clear()
    [prepared] = prepare_repairs([view], [Repaired(view.rgb, view.alpha)], config)
    [training_view] = make_training_views([prepared], 0.5)
    color_fit = {"wait: splatfix/restoration/color_match.py _paired_colors": 4, "wait: splatfix/color_fit.py apply": 2}
    expect(events, (4, WARP), (1, color_fit))  # two references, for the colors and for the quality
    assert training_view.rgb.device.type == training_view.confidence.device.type == "cuda"


def test_a_pair_is_copied_from_the_device_once(events) -> None:
    view, clean = make_flawed_view(), torch.rand(36, 48, 3).to("cuda")
    events.clear()
    build_pair(view, clean, scene="scene", fit="fit")
    images = {"wait: splatfix/pairs/pair.py _to_bytes": 6, "wait: splatfix/pairs/pair.py build_pair": 1}
    support = {"wait: splatfix/buffers.py _find_support": 4}  # the intrinsics, and the centers of three photos
    properties = {"wait: gsplat/cuda/_wrapper.py isect_tiles": 3, "wait: splatfix/buffers.py describe_gaussians": 1}
    buffers = (2, properties), (1, support), (3, WARP)  # of two fits and three photos
    expect(events, (1, NEARNESS), (2, WARP), (1, images), *buffers)


def test_restorers_stay_on_the_device(events) -> None:
    view = make_flawed_view()
    nafnet = NafnetRestorer(random_network(), CheckpointConfig(network=SMALL), "cuda")
    for restorer, expected in (
        (nafnet, [(1, NEARNESS), (2, WARP)]),
        (Warp(), [(1, NEARNESS), (2, WARP)]),
        (Bilateral(), []),
    ):
        events.clear()
        [repaired] = restorer.repair([view], seed=0)
        expect(events, *expected)
        assert repaired.rgb.device.type == "cuda"


def test_the_start_of_a_fit_matches_photos_on_the_device(events) -> None:
    """Stereo uploads five arrays for each photo, and for the votes its points and the two other depth maps."""
    cameras = tuple(camera(48, 36, name=f"photo {k}", angle_rad=0.1 * k) for k in range(3))
    photos = tuple(torch.rand(36, 48, 3).to("cuda") for _ in cameras)
    scene = SparseScene(cameras, photos, (None,) * 3, (None,) * 3, None, (0.0, 0.0, 0.0), 4.0)
    events.clear()
    fit = start_fit(scene, FitConfig(steps=100), InitializationConfig(sources=("stereo", "random")), seed=0)
    stereo = "wait: splatfix/splats/stereo/torch_sweep.py"
    match = {f"{stereo} compute_depth_map": 5 + 1, f"{stereo} count_votes": 3 + 1}
    photo = {"wait: splatfix/splats/scene.py _prepare_photos": 1}
    expect(events, (3, match), (3, photo), (1, {"wait: splatfix/gaussians.py tensor": 4}))
    assert fit.params["means"].device.type == "cuda"


def test_descriptors_are_matched_on_the_device(events) -> None:
    """Two arrays are uploaded, and five fetched: the nearest ones and their distances."""
    a, b = (np.random.default_rng(seed).random((30, 128)).astype(np.float32) for seed in range(2))
    match_descriptors(a, b, 0.8, "cuda")
    expect(events, (1, {"wait: splatfix/splats/triangulate.py _find_two_nearest_with_torch": 7}))


def test_an_evaluation_measures_each_render_on_the_device(events) -> None:
    """In float64. It fetches the render, and what a metric is; the photo is brought to the device once."""
    cameras = [camera(48, 36, name=f"photo {k}", angle_rad=0.3 * k) for k in range(3)]
    views = tuple(View(each, lambda: Photo(np.full((36, 48, 3), 0.25, np.float32))) for each in cameras)
    capture = Capture("made up", "nowhere", "colmap", views)
    arms = {name: Splat(cloud(30).to("cuda")) for name in ("before", "after")}
    split = Split(("photo 0", "photo 2"), ("photo 1",))
    events.clear()
    [result] = measure_views(capture, split, arms, reasons={})
    metrics = "wait: splatfix/metrics.py"
    copy = "wait: splatfix/evaluation/measure.py measure_views"
    waits = {copy: 1}  # the render to the host
    waits |= {f"{metrics} psnr": 2, f"{metrics} ssim": 1, f"{metrics} _least_squares": 3}
    in_double = [place for place in events if place.startswith("float64: splatfix/metrics.py")]
    assert in_double
    for place in in_double:
        del events[place]
    expect(events, (2, RENDER), (1, CAMERA), (2, waits), (1, {copy: 1, f"{metrics} _banded_window": 1}))
    assert result.after["psnr"] == pytest.approx(-10 * np.log10(0.5))  # of the made-up 0.5


class OneProcess(Accelerator):
    """Accelerate in one process with a GPU; without this, it would look for the GPU."""

    device = torch.device("cuda")
    num_processes = 1
    scaler = None

    def __init__(self) -> None: ...

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def reduce(self, tensor: Tensor, _: str) -> Tensor:
        return tensor

    def clip_grad_norm_(self, parameters: Iterator[Tensor], max_norm: float) -> Tensor:
        return torch.nn.utils.clip_grad_norm_(parameters, max_norm)

    def no_sync(self, _: nn.Module) -> AbstractContextManager:
        return nullcontext()


def make_learner(config: TrainConfig) -> Learner:
    """Make a learner of one process on the device."""
    network, family = GuidedNet(config.network), family_of(config.network)
    ema = ModelEmaV3(network, decay=config.ema_decay, use_warmup=True)
    ema.module.to("cuda")
    network.to("cuda")
    optimizer = create_optimizer_v2(network.parameters(), config.optimizer, lr=config.learning_rate)
    return Learner(OneProcess(), family, family.inputs(config.network), network, network, ema, optimizer, None, {})


@pytest.mark.parametrize("accumulate", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_training_of_a_restorer_waits_once_for_all_steps_that_are_fetched(events, accumulate: int) -> None:
    """Its batches are copied while the host continues: three kinds of images, and the color changes."""
    config = TrainConfig(network=SMALL, accumulate=accumulate, steps=100)
    learner = make_learner(config)
    batches = make_batches(learner, num=13)
    events.clear()
    groups = list(training._train_segment(learner, batches, 13, config, TrainingState(planned=100)))
    assert [list(group) for group in groups] == [list(range(1, 11)), [11, 12, 13]]
    copies = {"asynchronous copy: splatfix/training/batches.py to": 4}
    expect(events, (13, copies), (2, {"wait: splatfix/training/train.py _fetch_figures": 1}))


def make_batches(learner: Learner, num: int) -> Iterator[ByteBatch]:
    """Make batches as the loader does for a GPU."""
    crops = [Crop(pair(seed), random_color_change(JitterConfig(), np.random.default_rng(seed))) for seed in (0, 1)]
    return (make_batch(crops, learner.inputs).pin_memory() for _ in range(num))


def wait_for_a_value(gaussians: Any, dropout: float) -> Any:
    gaussians.opacities.mean().item()
    return ORIGINAL["compensate_dropout"](gaussians, dropout)


def select_by_a_mask(gaussians: Any, dropout: float) -> Any:
    assert len(gaussians.means[gaussians.opacities > 0.5])
    return ORIGINAL["compensate_dropout"](gaussians, dropout)


def assign_by_a_mask(gaussians: Any, dropout: float) -> Any:
    opacities = gaussians.opacities.detach().clone()
    opacities[opacities > 0.5] = torch.zeros((), device="cuda")
    return ORIGINAL["compensate_dropout"](gaussians, dropout)


def copy_to_the_cpu(rgb: Tensor, target: Tensor, *settings: Any) -> Tensor:
    target.cpu()
    return ORIGINAL["photometric_loss"](rgb, target, *settings)


def take_the_loss_in_float64(rgb: Tensor, target: Tensor, *settings: Any) -> Tensor:
    return ORIGINAL["photometric_loss"](rgb.double(), target, *settings).float()


def copy_cameras_without_pinned_memory(cameras: Any, device: Any) -> tuple[Tensor, ...]:
    return tuple(t.to(device, non_blocking=True) for t in ORIGINAL["stack_cameras"](cameras))


def invert_the_poses(gaussians: Gaussians, centers: Tensor, sh_degree: int) -> Tensor:
    torch.eye(4, device="cuda").inverse()
    return ORIGINAL["_evaluate_colors"](gaussians, centers, sh_degree)


ORIGINAL: dict[str, Callable] = {
    "compensate_dropout": train.compensate_dropout,
    "photometric_loss": train.photometric_loss,
    "stack_cameras": cuda.stack_cameras,
    "_evaluate_colors": cuda._evaluate_colors,
    "jitter_colors": training.jitter_colors,
}


@pytest.mark.parametrize(
    ("module", "name", "broken", "words"),
    [
        (train, "compensate_dropout", wait_for_a_value, "more than is listed: .*wait"),
        (train, "compensate_dropout", select_by_a_mask, "more than is listed: .*wait"),
        (train, "compensate_dropout", assign_by_a_mask, "more than is listed: .*wait"),
        (train, "photometric_loss", copy_to_the_cpu, "more than is listed: .*wait"),
        (train, "photometric_loss", take_the_loss_in_float64, "more than is listed: .*float64"),
        (cuda, "stack_cameras", copy_cameras_without_pinned_memory, "more than is listed: .*wait"),
        (cuda, "_place_cameras", cuda._place_cameras.__wrapped__, "more than is listed: .*asynchronous copy"),
        (cuda, "_evaluate_colors", invert_the_poses, "more than is listed: .*wait"),
    ],
)
def test_a_broken_step_is_noticed(monkeypatch, events, module: Any, name: str, broken: Callable, words: str) -> None:
    monkeypatch.setattr(module, name, broken)
    with pytest.raises(AssertionError, match=words):
        test_a_step_of_a_fit_waits_only_in_gsplat(events, "classic")


@pytest.mark.usefixtures("events")
def test_a_tensor_on_another_device_is_noticed() -> None:
    fit, photos = make_fit()
    with pytest.raises(RuntimeError, match="same device"):
        advance(fit, [replace(photo, rgb=torch.rand(36, 48, 3)) for photo in photos], 1, seed=0)


def wait_for_the_colors(batch: Batch, inputs: NetworkInputs) -> Batch:
    batch.colors.amax().item()
    return ORIGINAL["jitter_colors"](batch, inputs)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("owner", "name", "broken", "place"),
    [
        (training, "jitter_colors", wait_for_the_colors, "training/train.py _backward"),
        (ByteBatch, "pin_memory", lambda batch: batch, "training/batches.py to"),
    ],
)
def test_a_broken_training_is_noticed(monkeypatch, events, owner: Any, name: str, broken: Any, place: str) -> None:
    monkeypatch.setattr(owner, name, broken)
    with pytest.raises(AssertionError, match=f"more than is listed: .*wait: splatfix/{place}"):
        test_training_of_a_restorer_waits_once_for_all_steps_that_are_fetched(events, 1)


def test_a_list_with_an_event_that_no_longer_happens_is_noticed() -> None:
    with pytest.raises(AssertionError, match="fewer than is listed"):
        expect(Counter(), (1, RENDER))
