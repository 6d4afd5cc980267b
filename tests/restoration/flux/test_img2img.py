"""Image-to-image pipelines by their class, through the code of diffusers, on tiny random models."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from splatfix.flawed import FlawedView
from splatfix.restoration import RestorerChoice, open_restorer
from tests.restoration.flux.tiny import TinyModels
from tests.restoration.scenery import flawed_view


def open_with(**options: Any) -> Any:
    chosen = {"size": {"min_side_px": 64}, **options}
    return open_restorer(RestorerChoice(name="img2img", options=chosen), torch.device("cpu"))


def klein(tiny: TinyModels, **more: Any) -> dict[str, Any]:
    """Options as for FLUX.2 Klein: a list of the render and the photos, no strength."""
    arguments = {"text_encoder_out_layers": [1, 2]}
    return {
        **{"model": tiny.klein, "pipeline": "Flux2KleinPipeline", "strength": None, "steps": 2, "guidance": 1.0},
        **{"reference_argument": "image", "num_references": 2, "arguments": arguments, **more},
    }


def repair(views: list[FlawedView], seed: int = 0, **options: Any) -> list[torch.Tensor]:
    return [result.rgb for result in open_with(**options).repair(views, seed=seed)]


def differ(a: torch.Tensor, b: torch.Tensor) -> bool:
    return float((a - b).abs().max()) > 1e-3


@pytest.fixture(scope="module")
def views() -> list[FlawedView]:
    return [flawed_view(seed, 53, 41) for seed in range(3)]


def test_seeds_repeat_and_a_view_does_not_depend_on_its_batch(tiny, views):
    restorer = open_with(model=tiny.turbo, loading={"views_per_batch": 2})
    assert restorer.batch_views == 2
    together = [result.rgb for result in restorer.repair(views, seed=0)]
    for view, rgb in zip(views, together, strict=True):
        alone = repair([view], model=tiny.turbo)[0]
        assert alone.shape == view.rgb.shape
        torch.testing.assert_close(alone, rgb, atol=1e-4, rtol=0)
    assert differ(together[0], repair(views[:1], seed=1, model=tiny.turbo)[0])


def test_no_strength_and_no_blend_keep_the_render(tiny, views):
    for option in ("strength", "blend"):
        assert torch.equal(repair(views[:1], model=tiny.turbo, **{option: 0.0})[0], views[0].rgb.clamp(0, 1))


def test_a_reference_guided_pipeline_sees_the_nearest_photos(tiny, views):
    view = views[0]
    first = repair([view], **klein(tiny))[0]
    assert torch.equal(first, repair([view], **klein(tiny))[0])
    nearest, second = view.references
    changed = replace(view, references=(nearest, replace(second, rgb=1 - second.rgb)))
    assert differ(first, repair([changed], **klein(tiny))[0])
    one = klein(tiny, num_references=1)
    assert torch.equal(repair([view], **one)[0], repair([changed], **one)[0])
    assert differ(repair([replace(view, references=())], **one)[0], repair([view], **one)[0])


def test_an_editing_pipeline_takes_one_view_at_a_time(tiny, views):
    restorer = open_with(**klein(tiny, loading={"views_per_batch": 4}))
    assert restorer.batch_views == 1
    together = [result.rgb for result in restorer.repair(views[:2], seed=0)]
    assert torch.equal(together[1], repair(views[1:2], **klein(tiny))[0])


def test_kontext_edits_the_render_by_its_prompt(tiny, views):
    kontext = {
        **{"model": tiny.flux, "pipeline": "FluxKontextPipeline", "strength": None, "steps": 2, "guidance": 2.5},
        "arguments": {"_auto_resize": False},
    }
    first = repair(views[:1], prompt="remove the floaters", **kontext)[0]
    assert first.shape == views[0].rgb.shape
    assert differ(first, repair(views[:1], prompt="a photo", **kontext)[0])


def test_an_inpainting_pipeline_changes_masked_pixels_alone(tiny, views):
    """The mask is the alpha hole of the view: white is repainted, the rest pasted back exactly."""
    alpha = torch.ones_like(views[0].alpha)
    alpha[8:20, 10:24] = 0
    view = replace(views[0], alpha=alpha)
    inpaint = {
        **{"model": tiny.flux, "pipeline": "FluxKontextInpaintPipeline", "strength": 1.0, "steps": 2, "guidance": 2.5},
        **{"mask_argument": "mask_image", "mask": {"sigmas_px": []}, "arguments": {"_auto_resize": False}},
    }
    (result,) = open_with(**inpaint).repair([view], seed=0)
    hole = alpha == 0
    assert torch.equal(result.mask, hole)
    assert torch.equal(result.rgb[~hole], view.rgb.clamp(0, 1)[~hole])
    assert (result.rgb[hole] - view.rgb.clamp(0, 1)[hole]).abs().mean() > 0.01
    seeing = open_with(**inpaint, reference_argument="image_reference").repair([view], seed=0)[0]
    assert differ(seeing.rgb, result.rgb)
    (covered,) = open_with(**inpaint).repair([replace(view, alpha=torch.ones_like(alpha))], seed=0)
    assert torch.equal(covered.rgb, view.rgb.clamp(0, 1))
    assert open_with(**inpaint).batch_views == 1


def test_an_automatic_class_finds_the_pipeline_of_a_model(tiny, views):
    chosen = {"model": tiny.turbo, "pipeline": "AutoPipelineForImage2Image"}
    torch.testing.assert_close(repair(views[:1], **chosen)[0], repair(views[:1], model=tiny.turbo)[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pipeline": "Flux2KlienPipeline"}, r"no such class; near names: Flux2KleinPipeline"),
        (
            {"pipeline": "Flux2KleinPipeline"},
            r"0.25: Flux2KleinPipeline has no strength; set strength: null",
        ),
        ({"image_argument": "picture"}, r"image_argument = 'picture': .* has no such argument; it has .*image"),
        ({"arguments": {"magic": 1}}, r"arguments = 'magic': .* has no such argument"),
    ],
)
def test_arguments_that_the_pipeline_does_not_have_are_refused_before_a_download(options, message):
    with pytest.raises(ValueError, match=message):
        open_with(model="nobody/nothing", **options)


def test_what_a_pipeline_refuses_is_one_line(tiny, views):
    with pytest.raises(ValueError, match=r"its pipeline failed: Image too small.*; check its options") as caught:
        repair(views[:1], **{**klein(tiny), "size": {"min_side_px": 0}})
    assert "\n" not in str(caught.value)


def test_a_strength_that_runs_no_step_is_one_line(tiny, views):
    with pytest.raises(ValueError, match=r"strength = 0.2: with steps = 4 this pipeline runs no step; .* least 0.25"):
        repair(views[:1], model=tiny.turbo, strength=0.2)
