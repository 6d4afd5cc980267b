"""What callers of ``render`` rely on: batches, masks, padding, degenerate input, determinism, errors."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numba
import pytest
import torch

from splatfix.gaussians import Gaussians, Splat
from splatfix.rendering import Rendering, render
from tests.rendering.scenes import camera, cloud, leaves

IMAGES = ("rgb", "alpha", "depth")


def images(drawn: Rendering) -> list[torch.Tensor]:
    return [getattr(drawn, name) for name in IMAGES]


def gradients(gaussians: Gaussians, drawn: Rendering) -> dict[str, torch.Tensor]:
    """Gradients of an arbitrary smooth loss over all three images."""
    loss = drawn.rgb.square().sum() + drawn.alpha.sin().sum() + 0.1 * drawn.depth.square().sum()
    names = list(vars(gaussians))
    found = torch.autograd.grad(loss, [getattr(gaussians, n) for n in names], allow_unused=True)
    return {n: torch.zeros(()) if g is None else g for n, g in zip(names, found, strict=True)}


def test_batch_of_different_sizes_equals_single_views() -> None:
    views = [camera(50, 30), camera(17, 48, angle_rad=-0.5), camera(50, 30, angle_rad=1.0)]
    gaussians = leaves(cloud(200, degree=2))
    drawn = render(Splat(gaussians, background=[1, 0.5, 0]), views)
    assert drawn.rgb.shape == (3, 48, 50, 3)
    assert drawn.sizes == ((50, 30), (17, 48), (50, 30))
    total = None
    for i, view in enumerate(views):
        alone = render(Splat(gaussians, background=[1, 0.5, 0]), [view])
        for ours, single in zip(images(drawn.view(i)), images(alone), strict=True):
            assert torch.equal(ours, single)
        found = gradients(gaussians, alone)
        total = found if total is None else {n: total[n] + g for n, g in found.items()}
    padding = torch.ones(3, 48, 50, dtype=torch.bool)
    for i, (w, h) in enumerate(drawn.sizes):
        padding[i, :h, :w] = False
    for image in images(drawn):
        assert not image[padding].any()
    for name, gradient in gradients(gaussians, drawn).items():
        torch.testing.assert_close(gradient, total[name], rtol=1e-4, atol=1e-5)


def test_view_counts_from_the_end() -> None:
    drawn = render(Splat(cloud(5)), [camera(20, 10), camera(10, 20)])
    assert drawn.view(-1).rgb.shape == (1, 20, 10, 3)
    with pytest.raises(IndexError):
        drawn.view(2)


def test_keep_is_the_same_as_leaving_out() -> None:
    gaussians, view = leaves(cloud(100)), camera(40, 40)
    keep = torch.arange(100) % 3 > 0
    masked = render(Splat(gaussians), [view], keep=keep)
    smaller = render(Splat(gaussians[keep]), [view])
    for ours, expected in zip(images(masked), images(smaller), strict=True):
        assert torch.equal(ours, expected)
    for name, gradient in gradients(gaussians, masked).items():
        assert not gradient[~keep].any(), name
    assert not masked.info["radii"][:, ~keep].any()


def test_info_is_what_gsplats_strategies_read() -> None:
    gaussians = leaves(cloud(30))
    drawn = render(Splat(gaussians), [camera(40, 30), camera(20, 20)])
    info = drawn.info
    assert (info["width"], info["height"], info["n_cameras"], info["gaussian_ids"]) == (40, 30, 2, None)
    assert info["means2d"].shape == info["radii"].shape == (2, 30, 2)
    assert info["radii"].dtype == torch.int32
    info["means2d"].retain_grad()
    drawn.rgb.sum().backward()
    assert info["means2d"].grad.abs().sum() > 0


def test_background_has_a_gradient() -> None:
    background = torch.tensor([0.1, 0.2, 0.3], requires_grad=True)
    drawn = render(Splat(cloud(20), background=background), [camera(20, 20), camera(10, 30)])
    drawn.rgb[..., 1].sum().backward()
    left = sum((1 - drawn.view(i).alpha).sum() for i in range(2))
    torch.testing.assert_close(background.grad, torch.stack([left * 0, left, left * 0]))


def test_no_gradients_wanted() -> None:
    drawn = render(Splat(cloud(20)), [camera(20, 20)])
    assert not drawn.rgb.requires_grad


DEGENERATE = {
    "none": cloud(0),
    "behind": replace(cloud(20), means=torch.tensor([0.0, 0, -40]) + cloud(20).means),
    "at the camera": replace(cloud(3), means=torch.tensor(camera(20, 20).center).float().expand(3, 3)),
    "off screen": replace(cloud(20), means=torch.tensor([900.0, 0, 0]) + cloud(20).means),
    "huge": replace(cloud(20), log_scales=torch.full((20, 3), 15.0)),
    "beyond huge": replace(cloud(20), log_scales=torch.full((20, 3), 200.0)),
    "no extent": replace(cloud(20), log_scales=torch.full((20, 3), -200.0)),
    "needles": replace(cloud(20), log_scales=torch.tensor([4.0, -12.0, -12.0]).expand(20, 3)),
    "zero rotation": replace(cloud(20), quats=torch.zeros(20, 4)),
    "opaque": replace(cloud(20), opacity_logits=torch.full((20,), 1e4)),
    "invisible": replace(cloud(20), opacity_logits=torch.full((20,), -1e4)),
    "not numbers": replace(cloud(20), means=torch.full((20, 3), torch.nan)),
    "infinite scales": replace(cloud(20), log_scales=torch.full((20, 3), torch.inf)),
}


@pytest.mark.parametrize("mode", ["classic", "antialiased"])
@pytest.mark.parametrize("case", DEGENERATE)
def test_degenerate_gaussians(case: str, mode: str) -> None:
    """Images and gradients stay finite; ordinary Gaussians beside the odd ones are still drawn."""
    odd, plain = DEGENERATE[case], cloud(10, seed=4)
    for gaussians in (odd, odd.concatenate(plain)):
        gaussians = leaves(gaussians)
        drawn = render(Splat(gaussians, mode, [0.3, 0.3, 0.3]), [camera(37, 21)])
        for image in images(drawn):
            assert image.isfinite().all()
        assert (drawn.alpha >= 0).all()
        assert (drawn.alpha <= 1).all()
        for name, gradient in gradients(gaussians, drawn).items():
            assert gradient.isfinite().all(), name
    if case in ("none", "behind", "off screen", "invisible", "not numbers"):
        alone = render(Splat(odd, mode, [0.3, 0.3, 0.3]), [camera(37, 21)])
        assert (alone.rgb == 0.3).all()
        assert not alone.alpha.any()
        assert not alone.depth.any()
        assert torch.equal(drawn.rgb, render(Splat(plain, mode, [0.3, 0.3, 0.3]), [camera(37, 21)]).rgb)


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (17, 1), (3, 33)])
def test_any_image_size(size: tuple[int, int]) -> None:
    gaussians = leaves(cloud(50, log_scale=-1.0))
    drawn = render(Splat(gaussians), [camera(*size)])
    assert drawn.rgb.shape == (1, size[1], size[0], 3)
    assert drawn.alpha.max() > 0
    assert all(g.isfinite().all() for g in gradients(gaussians, drawn).values())


def test_deterministic_for_a_number_of_threads() -> None:
    gaussians, view = leaves(cloud(3000, log_scale=-3.0)), camera(120, 90)
    before = numba.get_num_threads()
    results = {}
    try:
        for threads in (1, before):
            numba.set_num_threads(threads)
            runs = [render(Splat(gaussians), [view]) for _ in range(2)]
            for first, second in zip(*(images(run) for run in runs), strict=True):
                assert torch.equal(first, second)
            pair = [gradients(gaussians, run) for run in runs]
            assert all(torch.equal(pair[0][n], pair[1][n]) for n in pair[0])
            results[threads] = (images(runs[0]), pair[0])
    finally:
        numba.set_num_threads(before)
    for first, second in zip(results[1][0], results[before][0], strict=True):
        assert torch.equal(first, second)  # images do not depend on the number of threads at all
    for name, gradient in results[1][1].items():
        torch.testing.assert_close(gradient, results[before][1][name], rtol=1e-3, atol=1e-4)


def test_equal_depths_are_drawn_in_order() -> None:
    """Two Gaussians at one place: the first in the list lies in front."""
    pair = cloud(1, degree=0, log_scale=0.0, opacity=3.0)[torch.tensor([0, 0])]
    pair = replace(pair, means=torch.zeros(2, 3), sh0=torch.tensor([[[3.0, 0, 0]], [[0, 3.0, 0]]]))
    middle = render(Splat(pair), [camera(20, 20)]).rgb[0, 10, 10]
    assert middle[0] > middle[1]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"cameras": []}, "no cameras"),
        ({"mode": "soft"}, "mode = 'soft'; wanted 'classic' or 'antialiased'"),
        ({"backend": "metal"}, "backend = 'metal'; wanted 'auto', 'cuda' or 'cpu'"),
        ({"backend": "cuda"}, "the Gaussians are on cpu"),
        ({"sh_degree": 4}, "the Gaussians store degree 0 to 3"),
        ({"background": [0.0, 1.0]}, "background has shape"),
        ({"keep": torch.ones(4)}, "keep is torch.float32"),
        ({"absgrad": True}, "absgrad"),
    ],
)
def test_errors_say_what_was_wanted(arguments: dict, words: str) -> None:
    drawn = {name: arguments.pop(name) for name in ("mode", "background") if name in arguments}
    with pytest.raises(ValueError, match=words):
        render(Splat(cloud(4), **drawn), arguments.pop("cameras", [camera(10, 10)]), **arguments)


def test_imports_without_gsplat() -> None:
    """gsplat is for CUDA alone."""
    code = "import sys; sys.modules['gsplat'] = None; from splatfix.rendering import render, ssim"
    subprocess.run([sys.executable, "-c", code], check=True)
