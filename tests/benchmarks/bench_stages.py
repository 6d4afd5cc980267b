"""Times of the stages around the kernels, each beside the way in which it was done before, in turn.

Both ways are given the same input and compared: a row of the old way has the same scene, and the row of ours says how
many times as fast it is. Other work on the machine slows both.
"""

from __future__ import annotations

import pickle
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

import splatfix  # noqa: F401  (first: it sets how OpenMP waits)

import numpy as np  # isort: skip
import torch  # isort: skip
from torch import Tensor  # isort: skip

from splatfix import metrics
from splatfix.cameras import Camera, look_at
from splatfix.captures import open_capture, splat_photos
from splatfix.gaussians import Gaussians, write_ply
from splatfix.images import resize
from splatfix.metrics import SSIM_RADIUS_PX, compute_metrics, ssim_window
from splatfix.rendering import render
from splatfix.rendering.ssim import choose_loss, l1_and_ssim_with_torch
from splatfix.restoration.nafnet.architecture import NAFNet
from splatfix.restoration.nafnet.network import NetworkConfig
from splatfix.splats import triangulate
from splatfix.splats.optimizers import create_adam
from splatfix.training.batches import Batch, ByteBatch, decode_batch
from splatfix.training.nafnet import NafnetInputs
from tests.benchmarks.bench_training import PlainNAFNet, make_step, network_of
from tests.captures import writers

OURS, BEFORE = "", ", before"
UP = np.array([0.0, -1.0, 0.0])
PARAMETER_SHAPES = {"means": (3,), "scales": (3,), "quats": (4,), "opacities": (), "sh0": (1, 3), "shN": (15, 3)}


def in_turn(scene: str, work: str, ways: dict[str, Callable[[], object]], repeats: int) -> list[dict]:
    """Rows of several ways of the same work, timed in turn after one run of each to warm up.

    Args:
        scene: of the rows.
        work: of the rows.
        ways: what to time, by what is added to ``work``; `BEFORE` is what the others are compared with.
        repeats: number of timed runs of each.
    """
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, action in ways.items():
            start = time.perf_counter()
            action()
            if turn > 0:
                times[name].append(1000 * (time.perf_counter() - start))
    medians = {name: statistics.median(seen) for name, seen in times.items()}
    rows = []
    for name, seen in times.items():
        row: dict[str, Any] = {"scene": scene, "work": work + name, "median_ms": medians[name], "min_ms": min(seen)}
        if name != BEFORE and BEFORE in medians:
            row["times_as_fast"] = medians[BEFORE] / medians[name]
        rows.append(row)
    return rows


def evaluation(width_px: int, height_px: int, repeats: int) -> list[dict]:
    """All metrics of a render; before, SSIM multiplied planes by one dense matrix for each axis."""
    random = torch.Generator().manual_seed(0)
    photo = torch.rand(height_px, width_px, 3, generator=random)
    view = (photo + 0.1 * torch.randn(photo.shape, generator=random)).clamp(0, 1)

    def ours() -> dict[str, float | None]:
        return compute_metrics(view, photo)[0]

    def before() -> dict[str, float | None]:
        with patch.object(metrics, "_filter", _filter_with_dense_matrices):
            return ours()

    np.testing.assert_allclose(*([each["psnr"], each["ssim"]] for each in (ours(), before())), atol=1e-9)
    return in_turn(f"{width_px} x {height_px}", "metrics of a view", {BEFORE: before, OURS: ours}, repeats)


def _filter_with_dense_matrices(planes: Tensor) -> Tensor:
    height, width = (_dense_window(size_px, planes.dtype) for size_px in planes.shape[1:])
    return height @ planes @ width


def _dense_window(size_px: int, dtype: torch.dtype) -> Tensor:
    position = torch.arange(size_px)
    offset = position[:, None] - position[None, :]
    weight = ssim_window()[offset.clamp(-SSIM_RADIUS_PX, SSIM_RADIUS_PX) + SSIM_RADIUS_PX]
    return torch.where(offset.abs() <= SSIM_RADIUS_PX, weight, 0.0).to(dtype)


def matching(num: int, repeats: int) -> list[dict]:
    """Descriptors of two photos: with numpy, and with the functions of torch that a GPU runs."""
    random = np.random.default_rng(0)
    a = random.random((num, 128)).astype(np.float32)
    b = random.permutation(a) + random.normal(0, 0.15, a.shape).astype(np.float32)
    a, b = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (a, b))
    ours = partial(triangulate.match_descriptors, a, b, 0.8)

    def with_torch() -> Any:
        nearest = partial(triangulate._find_two_nearest_with_torch, device="cpu")
        with patch.object(triangulate, "_find_two_nearest", nearest):
            return ours()

    np.testing.assert_array_equal(ours()[0], with_torch()[0])
    return in_turn(f"{num} descriptors", "matching", {", numpy": ours, ", torch": with_torch}, repeats)


def optimizers(repeats: int) -> list[dict]:
    """What a step of the optimizers costs the host: of so few Gaussians that nothing else counts."""

    def parameters() -> list[torch.nn.Parameter]:
        made = [torch.nn.Parameter(torch.zeros(8, *shape)) for shape in PARAMETER_SHAPES.values()]
        for value in made:
            value.grad = torch.ones_like(value)
        return made

    one = create_adam([(value, 1e-3) for value in parameters()])
    six = [create_adam([(value, 1e-3)]) for value in parameters()]
    ways = {BEFORE: lambda: [each.step() for each in six], OURS: one.step}
    return in_turn("8 Gaussians", "step of Adam", ways, 20 * repeats)


def host_step(repeats: int) -> list[dict]:
    """The host's work for steps of a fit on a GPU; before, a step drew depth and computed its loss with torch.

    The loss is one call here; on CUDA it is that of Triton's kernels. Nothing where gsplat is not installed.
    """
    if find_spec("gsplat") is None:
        return []
    from tests.benchmarks.bench_host_step import NUM_STEPS, steps_without_growth

    ways = {
        BEFORE: steps_without_growth(l1_and_ssim_with_torch, with_depth=True),
        OURS: steps_without_growth(choose_loss(torch.device("cpu")), with_depth=False),
    }
    return in_turn("8 Gaussians", f"{NUM_STEPS} steps on the host", ways, repeats)


def restorer_step(batch_size: int, patch_px: int, repeats: int) -> list[dict]:
    """A training step of the restorer, from the batch as another process sends it; before, that was floats in NCHW."""
    config = NetworkConfig()
    inputs = NafnetInputs(config)
    random = torch.Generator().manual_seed(0)
    shape = (batch_size, patch_px, patch_px)

    def make_bytes(channels: int) -> Tensor:
        return torch.randint(0, 256, (*shape, channels), generator=random, dtype=torch.uint8)

    colors = torch.zeros(batch_size, 8)
    num_planes = config.in_channels + bool(config.depth)  # the depth has two bytes
    batch = ByteBatch(make_bytes(num_planes), make_bytes(3), torch.full((*shape, 1), 255, dtype=torch.uint8), colors)
    decoded = Batch(*(each.contiguous() for each in decode_batch(batch, inputs)))
    sent_bytes, sent_floats = (pickle.dumps([each.numpy() for each in parts]) for parts in (batch, decoded))
    ours = make_step(network_of(config, NAFNet), bfloat16=False, channels_last=True)
    plain = make_step(network_of(config, PlainNAFNet), bfloat16=False, channels_last=False)

    def from_bytes() -> None:
        received = ByteBatch(*map(torch.from_numpy, pickle.loads(sent_bytes)))
        ours(*decode_batch(received, inputs)[:3])

    def from_floats() -> None:
        plain(*Batch(*map(torch.from_numpy, pickle.loads(sent_floats)))[:3])

    scene = f"{batch_size} x {patch_px} px"
    rows = in_turn(scene, "restorer step", {BEFORE: from_floats, OURS: from_bytes}, repeats)
    for row, sent in zip(rows, (sent_floats, sent_bytes), strict=True):
        row["note"] = f"{len(sent) / 1e6:.1f} MB from process to process"
    return rows


def reference_splat(size_px: int, num_views: int, gaussians: Gaussians, repeats: int) -> list[dict]:
    """The photos of a reference splat, loaded a second time as the stages of a run do; before, each load drew them."""
    with tempfile.TemporaryDirectory(prefix="splatfix-bench-") as folder, _few_views(num_views, size_px):
        root = writers.write_splat(Path(folder) / "splat")
        write_ply(root / "point_cloud.ply", gaussians)
        capture = open_capture(root, longest_side_px=size_px)
        loads: Sequence[Any] = [view.load for view in capture.views]

        def ours() -> list[np.ndarray]:
            return [load().rgb for load in loads]

        def before() -> list[np.ndarray]:
            splat, _ = splat_photos.read_latest(loads[0].ply)
            with torch.no_grad():
                drawn = [render(splat, [load.render_camera]).rgb[0].clamp(0, 1).numpy() for load in loads]
            return [
                resize(rgb, load.camera.width_px, load.camera.height_px) for rgb, load in zip(drawn, loads, strict=True)
            ]

        def draw_in_batches() -> None:
            with patch.object(splat_photos, "_DRAWN", splat_photos._DrawnPhotos()):
                splat_photos.draw(loads)

        np.testing.assert_array_equal(ours(), before())
        ways = {BEFORE: before, ", first load": draw_in_batches, OURS: ours}
        return in_turn(f"{size_px} px, {num_views} views", "photos of a splat", ways, repeats)


@contextmanager
def _few_views(num: int, size_px: int) -> Iterator[None]:
    """Let `writers` write so many cameras of this size, around the origin."""
    height = size_px * 3 // 4
    intrinsics = np.array([[1.2 * size_px, 0, size_px / 2], [0, 1.2 * size_px, height / 2], [0, 0, 1]])
    made = [
        Camera(
            f"{k:03d}.png",
            size_px,
            height,
            intrinsics,
            look_at(4 * np.array([np.cos(k), -0.3, np.sin(k)]), np.zeros(3), UP),
        )
        for k in range(num)
    ]
    focal_px = 1.2 * size_px
    with (
        patch.object(writers, "cameras", lambda: made),
        patch.object(writers, "WIDTH", size_px),
        patch.object(writers, "HEIGHT", height),
        patch.object(writers, "FOCAL", focal_px),
    ):
        yield


def stages(repeats: int, *, small: bool = False) -> list[dict]:
    """The rows of all stages; ``small`` ones are for tests."""
    random = torch.Generator().manual_seed(0)
    num = 200 if small else 20_000
    means = torch.randn(num, 3, generator=random) * 0.6
    gaussians = Gaussians(
        means=means,
        log_scales=torch.full((num, 3), -3.5),
        quats=torch.tensor([1.0, 0, 0, 0]).expand(num, 4).contiguous(),
        opacity_logits=torch.zeros(num),
        sh0=torch.rand(num, 1, 3, generator=random),
        sh_rest=torch.zeros(num, 15, 3),
    )
    return [
        *evaluation(*((48, 40) if small else (1600, 1200)), repeats),
        *matching(64 if small else 4096, repeats),
        *optimizers(repeats),
        *host_step(repeats),
        *restorer_step(*((1, 32) if small else (4, 128)), repeats),
        *reference_splat(*((24, 3) if small else (320, 12)), gaussians, repeats),
    ]
