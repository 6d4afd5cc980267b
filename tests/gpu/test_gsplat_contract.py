"""A contract test of gsplat without a GPU: its own Python over `emulated_gsplat`, against our CPU kernels.

It fails when gsplat's signature, its ``info`` or its strategies move, and when our call of them is wrong. It proves
nothing about gsplat's CUDA code: `make gpu-check` compares that with the CPU kernels on a GPU.

The last part breaks the contract in one place at a time and expects the checks to notice.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import gsplat
import pytest
import torch
from gsplat.strategy import DefaultStrategy, MCMCStrategy
from torch import Tensor

from splatfix.gaussians import Splat
from splatfix.rendering import Rendering, render
from tests.gpu import emulated_gsplat
from tests.gpu.checks import drawn
from tests.gpu.contract import (
    CONTRACT_SCENES,
    IMAGE_TOLERANCE,
    check_call,
    check_fit,
    check_images_and_gradients,
    check_info,
    check_settings,
)
from tests.gpu.emulated_gsplat import render_through_gsplat
from tests.rendering.scenes import camera, cloud, leaves

pytestmark = pytest.mark.usefixtures("one_thread")

MODES = ("classic", "antialiased")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Use one thread in torch: the tensors are small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_our_call_binds_to_gsplats_signature() -> None:
    check_call()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "scene", [pytest.param(name, marks=pytest.mark.slow) if name == "crowded" else name for name in CONTRACT_SCENES]
)
def test_same_images_and_gradients(scene: str, mode: str) -> None:
    check_images_and_gradients(*CONTRACT_SCENES[scene], mode)


@pytest.mark.parametrize("mode", MODES)
def test_same_info(mode: str) -> None:
    for scene in ("batch", "around"):
        check_info(*CONTRACT_SCENES[scene], mode)


def test_same_dropout_and_degree() -> None:
    gaussians, [view] = CONTRACT_SCENES["few"]
    keep = torch.arange(len(gaussians)) % 3 > 0

    def draw() -> Rendering:
        return render(Splat(gaussians), [view], keep=keep, sh_degree=1)

    wanted = draw()
    with render_through_gsplat():
        found = draw()
    torch.testing.assert_close(found.rgb, wanted.rgb, rtol=0, atol=IMAGE_TOLERANCE)
    assert torch.equal(found.info["radii"], wanted.info["radii"])


def test_culled_gaussians_are_poisoned_and_harm_nothing() -> None:
    gaussians, views = CONTRACT_SCENES["around"]
    with render_through_gsplat():
        info = render(Splat(gaussians), views).info
        found = drawn(gaussians, views, "classic", "cpu")
    culled = ~(info["radii"] > 0).all(-1)
    assert culled.sum() > 50
    assert all(info[name][culled].isnan().all() for name in ("means2d", "depths", "conics"))
    assert all(t.isfinite().all() for t in (*found.images.values(), *found.gradients.values()))


def test_a_gaussian_at_the_center_of_a_camera_harms_nothing() -> None:
    """It has no direction from there."""
    gaussians, [view] = CONTRACT_SCENES["few"]
    means = gaussians.means.clone()
    means[0] = torch.as_tensor(view.center).float()
    with render_through_gsplat():
        found = drawn(dataclasses.replace(gaussians, means=means), [view], "classic", "cpu")
    assert all(t.isfinite().all() for t in (*found.images.values(), *found.gradients.values()))


@pytest.mark.parametrize("through_gsplat", [True, False])
def test_without_depth_the_colors_and_gradients_are_the_same(through_gsplat: bool) -> None:
    gaussians, views = CONTRACT_SCENES["batch"]
    views = [*views, camera(20, 30)]
    found = []
    with render_through_gsplat() if through_gsplat else contextlib.nullcontext():
        for with_depth in (True, False):
            g = leaves(gaussians)
            rendering = render(Splat(g), views, with_depth=with_depth)
            (rendering.rgb.square().sum() + rendering.alpha.sum()).backward()
            found.append((rendering.rgb, rendering.alpha, g.means.grad, g.log_scales.grad, g.sh_rest.grad))
    for with_depth, without in zip(*found, strict=True):
        assert torch.equal(with_depth, without)
    assert rendering.depth.shape == rendering.alpha.shape
    assert rendering.depth[:2].isnan().all()  # beside the last image is padding


def test_absolute_gradients_of_the_means() -> None:
    """In one pixel they are the absolute gradients; over many, of signs that cancel, they are larger."""
    gaussians = cloud(50, log_scale=-1.0)
    for size, is_larger in (((1, 1), False), ((20, 20), True)):
        with render_through_gsplat():
            rendering = render(Splat(leaves(gaussians)), [camera(*size)], absgrad=True)
            means2d = rendering.info["means2d"]
            means2d.retain_grad()
            rendering.rgb.square().sum().backward()
        assert means2d.grad.any()
        torch.testing.assert_close(means2d.absgrad.maximum(means2d.grad.abs()), means2d.absgrad)
        assert bool(means2d.absgrad.sum() > 1.01 * means2d.grad.abs().sum()) == is_larger


def test_known_settings_of_the_strategies() -> None:
    check_settings()


@pytest.mark.parametrize(
    ("strategy", "max_gaussians"), [("none", 230), ("default", 230), ("default", 1000), ("mcmc", 230)]
)
def test_same_fit(strategy: str, max_gaussians: int) -> None:
    check_fit(strategy, max_gaussians)


def replace_parameter(name: str, changes: dict[str, Any]) -> inspect.Signature:
    """Change one parameter of gsplat's signature."""
    signature = inspect.signature(gsplat.rasterization)
    parameters = [p.replace(**changes) if p.name == name else p for p in signature.parameters.values()]
    return signature.replace(parameters=parameters)


@pytest.mark.parametrize(
    ("name", "changes", "error", "words"),
    [
        ("backgrounds", {"name": "background"}, TypeError, "unexpected keyword argument 'backgrounds'"),
        ("scales", {"name": "covariances"}, TypeError, "missing a required argument: 'covariances'"),
        ("eps2d", {"default": 0.1}, AssertionError, "other defaults of rasterization"),
        ("camera_model", {"name": "model"}, AssertionError, "other defaults of rasterization"),
    ],
)
def test_a_moved_signature_is_noticed(monkeypatch, name: str, changes: dict, error: type, words: str) -> None:
    def moved(**_: Any) -> None: ...

    moved.__signature__ = replace_parameter(name, changes)
    monkeypatch.setattr(gsplat, "rasterization", moved)
    with pytest.raises(error, match=words):
        check_call()


def change_arguments(monkeypatch: pytest.MonkeyPatch, change: Callable[[dict], dict]) -> None:
    """Change what our call passes to gsplat."""
    original = gsplat.rasterization
    monkeypatch.setattr(gsplat, "rasterization", lambda **arguments: original(**arguments | change(arguments)))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        pytest.param(change, error, words, id=words_of_case)
        for words_of_case, change, error, words in (
            ("low-pass", lambda _: {"eps2d": 0.29}, AssertionError, "rgb"),
            ("near plane", lambda _: {"near_plane": 3.0}, AssertionError, "rgb"),
            ("clipped radii", lambda _: {"radius_clip": 5.0}, AssertionError, "rgb"),
            ("mode", lambda _: {"rasterize_mode": "antialiased"}, AssertionError, "rgb"),
            ("depth not divided by alpha", lambda _: {"render_mode": "RGB+D"}, AssertionError, "depth"),
            ("no depth", lambda _: {"render_mode": "RGB"}, IndexError, "index 3 is out of bounds"),
            ("quaternions xyzw", lambda a: {"quats": a["quats"].roll(-1, dims=1)}, AssertionError, "rgb"),
            ("log-scales", lambda a: {"scales": a["scales"].log()}, AssertionError, "rgb"),
            ("logits", lambda a: {"opacities": a["opacities"].logit()}, AssertionError, "rgb"),
            ("colors [C, 3, N]", lambda a: {"colors": a["colors"].mT}, AssertionError, "3, 200"),
            ("no background", lambda _: {"backgrounds": None}, AssertionError, "rgb"),
            ("world from camera", lambda a: {"viewmats": a["viewmats"].inverse()}, AssertionError, "rgb"),
            ("half a pixel", lambda a: {"Ks": a["Ks"] + 0.5 * (a["Ks"] == a["Ks"][0, 0, 2])}, AssertionError, "rgb"),
            ("width", lambda a: {"width": a["width"] + 1}, AssertionError, "rgb"),
            ("packed", lambda _: {"packed": True}, AttributeError, "projection_ewa_3dgs_packed_fwd"),
            ("float64", lambda a: {"means": a["means"].double()}, AssertionError, "float64"),
            ("detached", lambda a: {"scales": a["scales"].detach()}, AssertionError, "log_scales"),
        )
    ],
)
def test_a_changed_argument_is_noticed(monkeypatch, change: Callable, error: type, words: str) -> None:
    change_arguments(monkeypatch, change)
    with pytest.raises(error, match=words):
        check_images_and_gradients(*CONTRACT_SCENES["few"], "classic")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(change, words, id=name)
        for name, change, words in (
            ("degree", lambda degree, *others: (degree - 1, *others), "rgb"),
            ("directions to the camera", lambda degree, to, *others: (degree, -to, *others), "rgb"),
            ("order of the coefficients", lambda degree, to, c: (degree, to, c.flip(2)), "rgb"),
            ("detached directions", lambda degree, to, c: (degree, to.detach(), c), "means"),
        )
    ],
)
def test_changed_colors_are_noticed(monkeypatch, change: Callable, words: str) -> None:
    original = gsplat.spherical_harmonics
    monkeypatch.setattr(gsplat, "spherical_harmonics", lambda *args, masks: original(*change(*args), masks=masks))
    with pytest.raises(AssertionError, match=words):
        check_images_and_gradients(*CONTRACT_SCENES["few"], "classic")


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        *(
            pytest.param(lambda info, key=key: info | {f"{key}_": info.pop(key)}, AssertionError, key, id=f"no {key}")
            for key in ("means2d", "radii", "depths", "conics", "opacities", "width", "n_cameras", "gaussian_ids")
        ),
        pytest.param(
            lambda i: i | {"means2d": i["means2d"].detach()}, AssertionError, "not in the graph", id="detached"
        ),
        pytest.param(lambda i: i | {"radii": i["radii"].amax(-1)}, AssertionError, "radii", id="one radius"),
        pytest.param(lambda i: i | {"radii": i["radii"].float()}, AssertionError, "float32", id="radii as floats"),
        pytest.param(lambda i: i | {"means2d": i["means2d"][0]}, AssertionError, "means2d", id="no cameras"),
        pytest.param(lambda i: i | {"width": i["width"] / 2}, AssertionError, "width", id="another unit"),
    ],
)
def test_a_changed_info_is_noticed(monkeypatch, change: Callable, error: type, words: str) -> None:
    original = gsplat.rasterization

    def rasterization(**arguments: Any) -> tuple[Tensor, Tensor, dict]:
        images, alphas, info = original(**arguments)
        return images, alphas, change(dict(info))

    monkeypatch.setattr(gsplat, "rasterization", rasterization)
    with pytest.raises(error, match=words):
        check_info(*CONTRACT_SCENES["batch"], "classic")


def test_a_renamed_method_of_a_strategy_is_noticed(monkeypatch) -> None:
    monkeypatch.setattr(MCMCStrategy, "refine", MCMCStrategy.step_post_backward, raising=False)
    monkeypatch.delattr(MCMCStrategy, "step_post_backward")
    with pytest.raises(AssertionError, match="200 Gaussians: no growth"):
        check_fit("mcmc")


def test_another_name_in_the_state_of_a_strategy_is_noticed(monkeypatch) -> None:
    original = DefaultStrategy.initialize_state

    def initialize_state(self, scene_scale: float = 1.0) -> dict:
        state = original(self, scene_scale)
        return state | {"gradients": state.pop("grad2d")}

    monkeypatch.setattr(DefaultStrategy, "initialize_state", initialize_state)
    with pytest.raises(KeyError, match="grad2d"):
        check_fit("default")


def test_a_renamed_argument_of_a_strategy_is_noticed(monkeypatch) -> None:
    original = MCMCStrategy.step_post_backward

    def step_post_backward(self, params, optimizers, state, step, info, rate):
        return original(self, params, optimizers, state, step, info, rate)

    monkeypatch.setattr(MCMCStrategy, "step_post_backward", step_post_backward)
    with pytest.raises(TypeError, match="lr"):
        check_fit("mcmc")


@pytest.mark.slow
def test_growth_outside_of_the_method_that_we_cap_is_noticed(monkeypatch) -> None:
    grow, post = DefaultStrategy._grow_gs, DefaultStrategy.step_post_backward

    def step_post_backward(self, *arguments, **settings):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(self), "_grow_gs", grow)
            return post(self, *arguments, **settings)

    monkeypatch.setattr(DefaultStrategy, "step_post_backward", step_post_backward)
    with pytest.raises(AssertionError, match="Gaussians: no growth, or too much"):
        check_fit("default")


def test_another_relocation_is_noticed(monkeypatch) -> None:
    original = emulated_gsplat.relocation

    def relocate_larger(*arguments: Any) -> tuple[Tensor, Tensor]:
        opacities, scales = original(*arguments)
        return opacities, 1.1 * scales

    monkeypatch.setattr(emulated_gsplat, "relocation", relocate_larger)
    with pytest.raises(AssertionError, match="dB"):
        check_fit("mcmc")


def test_another_unit_of_the_image_plane_gradients_is_noticed(monkeypatch) -> None:
    original = emulated_gsplat.rasterize_to_pixels_3dgs_bwd

    def pull_back_doubled(*arguments: Any) -> tuple[Tensor | None, ...]:
        absolute, means2d, *others = original(*arguments)
        return absolute, 2 * means2d, *others

    monkeypatch.setattr(emulated_gsplat, "rasterize_to_pixels_3dgs_bwd", pull_back_doubled)
    with pytest.raises(AssertionError, match="Gaussians through gsplat"):
        check_fit("default", 1000)


def test_a_changed_setting_of_a_strategy_is_noticed(monkeypatch) -> None:
    field = next(field for field in dataclasses.fields(DefaultStrategy) if field.name == "grow_scale3d")
    monkeypatch.setattr(field, "default", 0.02)
    with pytest.raises(AssertionError, match="other settings of DefaultStrategy"):
        check_settings()
