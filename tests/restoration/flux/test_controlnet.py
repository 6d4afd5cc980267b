"""FLUX with ControlNets: real code of diffusers on tiny random models."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from splatfix.restoration.flux.batches import noise_generator
from splatfix.restoration.flux.sizes import ModelFrame
from tests.restoration.flux.runs import open_flux, views
from tests.restoration.flux.tiny import TinyModels

pytest.importorskip("diffusers")


def difference(first: list, second: list) -> float:
    """Mean absolute difference of repaired views."""
    return float(torch.stack([(a.rgb - b.rgb).abs().mean() for a, b in zip(first, second, strict=True)]).mean())


def test_repairs_repeat_with_their_seed_and_keep_the_size(tiny: TinyModels) -> None:
    restorer, [view] = open_flux(tiny), views(1)
    [first] = restorer.repair([view], seed=1)
    assert first.rgb.shape == view.rgb.shape and first.rgb.dtype == torch.float32 and first.confidence is None
    assert first.rgb.min() >= 0 and first.rgb.max() <= 1 and first.rgb.isfinite().all()
    assert torch.equal(first.rgb, restorer.repair([view], seed=1)[0].rgb)
    assert difference([first], restorer.repair([view], seed=2)) > 1e-3


def test_a_view_does_not_depend_on_its_batch(tiny: TinyModels) -> None:
    mixed = [*views(2), *views(1, width_px=33), *[replace(view, rgb=view.rgb.flip(0)) for view in views(1)]]
    alone = open_flux(tiny).repair(mixed, seed=1)
    together = open_flux(tiny, loading={"views_per_batch": 3}).repair(mixed, seed=1)
    for view, a, b in zip(mixed, alone, together, strict=True):
        assert a.rgb.shape == view.rgb.shape
        assert torch.allclose(a.rgb, b.rgb, atol=1e-4)
    assert difference(together[:1], together[1:2]) > 1e-3


def test_noise_is_per_view_or_shared() -> None:
    first, second = views(2)

    def draw(view: Any, seed: int, noise: Any) -> torch.Tensor:
        return torch.randn(4, generator=noise_generator(view, seed, noise))

    assert torch.equal(draw(first, 1, "per-view"), draw(first, 1, "per-view"))
    assert not torch.equal(draw(first, 1, "per-view"), draw(second, 1, "per-view"))
    assert torch.equal(draw(first, 1, "shared"), draw(second, 1, "shared"))
    assert not torch.equal(draw(first, 1, "shared"), draw(first, 2, "shared"))


@pytest.mark.parametrize("union", [False, True])
def test_each_control_image_changes_the_result_unless_its_weight_is_0(tiny: TinyModels, union: bool) -> None:
    [view] = views(1)
    nearer_left = replace(view, depth=view.depth * torch.linspace(0.5, 2, view.depth.shape[1]))
    models = {"union_controlnet": tiny.union} if union else {}

    def repaired(view: Any = view, **options: Any) -> list:
        return open_flux(tiny, depth="rendered", **models, **options).repair([view], seed=1)

    low = {"canny_low": 5.0, "canny_high": 10.0}  # more edges
    assert difference(repaired(), repaired(**low)) > 1e-4
    assert difference(repaired(), repaired(nearer_left)) > 1e-4
    assert difference(repaired(edge_scale=0), repaired(edge_scale=0, **low)) == 0
    assert difference(repaired(depth_scale=0), repaired(nearer_left, depth_scale=0)) == 0


def test_each_control_image_reaches_its_own_network(tiny: TinyModels) -> None:
    restorer, [view] = open_flux(tiny), views(1)
    pipeline = restorer.pipeline
    seen: list[torch.Tensor] = []

    def note(_net: Any, _args: Any, inputs: dict[str, Any]) -> None:
        seen.append(inputs["controlnet_cond"])

    hooks = [net.register_forward_pre_hook(note, with_kwargs=True) for net in pipeline.controlnet.nets]
    restorer.repair([view], seed=1)
    for hook in hooks:
        hook.remove()
    frame = ModelFrame.choose(*view.rgb.shape[:2], 16, restorer.options.size)
    images = frame.enclose(view.rgb.clamp(0, 1).permute(2, 0, 1)[None])
    controls = restorer.control_images([view], images, frame)
    generator = noise_generator(view, 1, "per-view")
    for image, latents in zip(controls, seen[:2], strict=True):
        with torch.no_grad():
            encoded = pipeline.vae.encode(2 * image - 1).latent_dist.sample(generator)
        encoded = (encoded - pipeline.vae.config.shift_factor) * pipeline.vae.config.scaling_factor
        packed = pipeline._pack_latents(encoded, *encoded.shape)
        assert torch.allclose(packed, latents, atol=1e-5)


def test_controls_end_where_they_are_told_to(tiny: TinyModels) -> None:
    [view] = views(1)
    never = open_flux(tiny, edge_end=0.0, depth_end=0.0).repair([view], seed=1)
    without = open_flux(tiny, edge_scale=0.0, depth_scale=0.0).repair([view], seed=1)
    half = open_flux(tiny, edge_end=0.5, depth_end=0.5).repair([view], seed=1)
    assert difference(never, without) == 0
    assert difference(half, without) > 1e-4


def test_modes_of_a_union_matter_and_several_views_go_through_it(tiny: TinyModels) -> None:
    several, options = views(2), {"union_controlnet": tiny.union, "loading": {"views_per_batch": 2}}
    first = open_flux(tiny, **options).repair(several, seed=1)
    assert difference(first, open_flux(tiny, **options, edge_mode=3).repair(several, seed=1)) > 1e-4
    alone = open_flux(tiny, union_controlnet=tiny.union).repair(several, seed=1)
    assert difference(first, alone) < 1e-4


def test_low_strength_keeps_the_render_as_the_autoencoder_shows_it(tiny: TinyModels) -> None:
    [view] = views(1)
    restorer = open_flux(tiny)
    frame = ModelFrame.choose(*view.rgb.shape[:2], 16, restorer.options.size)
    enclosed = frame.enclose(view.rgb.clamp(0, 1).permute(2, 0, 1)[None])
    with torch.no_grad():
        latents = restorer.pipeline.vae.encode(2 * enclosed - 1).latent_dist.mode()
        decoded = restorer.pipeline.vae.decode(latents).sample / 2 + 0.5
    shown = frame.extract(decoded.clamp(0, 1))[0].permute(1, 2, 0)

    def distance(strength: float, steps: int) -> float:
        [repaired] = open_flux(tiny, strength=strength, steps=steps).repair([view], seed=1)
        return float((repaired.rgb - shown).abs().mean())

    distances = [distance(strength, steps) for strength, steps in ((0.001, 1000), (0.01, 100), (0.5, 4))]
    assert distances == sorted(distances)
    assert distances[0] < 0.02 and distances[2] > 0.1


def test_strength_0_is_the_render_and_blend_a_share_of_the_correction(tiny: TinyModels) -> None:
    [view] = views(1)
    render = view.rgb.clamp(0, 1)
    assert torch.equal(open_flux(tiny, strength=0).repair([view], seed=1)[0].rgb, render)
    [full], [half] = (open_flux(tiny, blend=blend).repair([view], seed=1) for blend in (1, 0.5))
    assert torch.allclose(half.rgb, (render + full.rgb) / 2, atol=1e-6)


def test_small_views_are_enlarged_for_the_model(tiny: TinyModels) -> None:
    restorer, [view] = open_flux(tiny, size={"min_side_px": 64}), views(1)
    shapes = []
    hook = restorer.pipeline.vae.encoder.register_forward_pre_hook(lambda _module, args: shapes.append(args[0].shape))
    [repaired] = restorer.repair([view], seed=1)
    hook.remove()
    assert set(shapes) == {(1, 3, 64, 80)}
    assert repaired.rgb.shape == view.rgb.shape
