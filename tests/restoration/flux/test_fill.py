"""FLUX Fill with tiny random models: plumbing, not pictures."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from splatfix.flawed import FlawedView
from splatfix.restoration import open_restorer, restorer_options
from splatfix.restoration.choice import RestorerChoice
from splatfix.restoration.flux.fill import FluxFillRestorer
from splatfix.restoration.restorer import Repaired
from tests.restoration.flux.runs import open_flux
from tests.test_warping import camera

CPU = torch.device("cpu")


def view_with_hole(width_px: int = 61, height_px: int = 45, name: str = "a", hole: bool = True) -> FlawedView:
    """A smooth view with a rectangular hole left of its center."""
    x = torch.linspace(0.2, 0.8, width_px)[None, :, None]
    rgb = (x * torch.tensor([1.0, 0.8, 0.6])).expand(height_px, -1, -1).clone()
    alpha = torch.ones(height_px, width_px)
    if hole:
        alpha[10:25, 8:20] = 0
    at = replace(camera(0.0, width_px=width_px, height_px=height_px), name=name)
    return FlawedView(at, rgb, alpha, torch.ones(height_px, width_px))


@pytest.fixture(scope="module")
def open_fill(tiny):
    """Opens the restorer with options; the pipeline is loaded once."""

    def opened(**options) -> FluxFillRestorer:
        chosen = {"model": tiny.fill, "steps": 2, "size": {"min_side_px": 0}, "mask": {"sigmas_px": []}, **options}
        restorer = open_restorer(RestorerChoice(name="flux-fill", options=chosen), device=CPU)
        assert isinstance(restorer, FluxFillRestorer)
        return restorer

    return opened


def repair(restorer, view: FlawedView, seed: int = 0) -> Repaired:
    [repaired] = restorer.repair([view], seed=seed)
    assert repaired.rgb.shape == view.rgb.shape and repaired.rgb.dtype == torch.float32
    return repaired


def test_unmasked_pixels_are_those_of_the_render(open_fill):
    view = view_with_hole()
    repaired = repair(open_fill(), view)
    assert torch.equal(repaired.mask, view.alpha == 0)
    assert torch.equal(repaired.rgb[~repaired.mask], view.rgb[~repaired.mask])
    assert not torch.equal(repaired.rgb[repaired.mask], view.rgb[repaired.mask])
    assert repaired.rgb.min() >= 0 and repaired.rgb.max() <= 1
    assert repaired.confidence is None


@pytest.mark.parametrize("size", [(48, 32), (33, 47), (50, 21)])
def test_sizes_that_the_model_does_not_take(open_fill, size):
    view = view_with_hole(*size)
    repaired = repair(open_fill(), view)
    assert torch.equal(repaired.rgb[~repaired.mask], view.rgb[~repaired.mask])
    enlarged = repair(open_fill(size={"min_side_px": 64}), view)
    assert torch.equal(enlarged.rgb[~enlarged.mask], view.rgb[~enlarged.mask])


def test_white_is_what_the_pipeline_repaints(open_fill):
    restorer, view = open_fill(), view_with_hole(64, 48)
    calls = []

    class Recorder:
        def __call__(self, **arguments):
            calls.append(arguments)
            return restorer.pipeline(**arguments)

    repair(FluxFillRestorer(Recorder(), restorer.options), view)
    [call] = calls
    assert torch.equal(call["mask_image"][0, 0], (view.alpha == 0).float())
    assert call["guidance_scale"] == 30 and call["num_inference_steps"] == 2
    torch.testing.assert_close(call["image"][0].permute(1, 2, 0), view.rgb)


def test_what_is_under_the_mask_is_hidden_from_the_model(open_fill):
    view = view_with_hole(64, 48)
    painted = view.rgb.clone()
    painted[view.alpha == 0] = torch.tensor([1.0, 0.0, 0.0])
    first, second = (repair(open_fill(), replace(view, rgb=rgb)) for rgb in (view.rgb, painted))
    torch.testing.assert_close(first.rgb, second.rgb, rtol=0, atol=1e-3)
    outside = view.rgb.clone()
    outside[30:, 40:] = 0
    beside = repair(open_fill(), replace(view, rgb=outside))
    assert (beside.rgb - first.rgb)[first.mask].abs().max() > 5e-3


def test_an_enlarged_mask_covers_all_pixels_that_are_pasted(open_fill):
    restorer = open_fill(size={"min_side_px": 130})
    view = view_with_hole()
    painted = view.rgb.clone()
    painted[view.alpha == 0] = torch.tensor([1.0, 0.0, 0.0])
    masks = []

    def pipeline(**arguments):
        masks.append(arguments["mask_image"])
        return restorer.pipeline(**arguments)

    repair(FluxFillRestorer(pipeline, restorer.options), replace(view, rgb=painted))
    share = torch.nn.functional.interpolate(masks[0][:, :, :130, :176], size=view.alpha.shape, mode="area")[0, 0]
    assert (share[view.alpha == 0] > 0.99).all()


def test_a_view_without_artifacts_does_not_run_the_model(open_fill):
    def pipeline(**_):
        raise AssertionError("the model was run")

    view = view_with_hole(hole=False)
    repaired = repair(FluxFillRestorer(pipeline, open_fill(confidence=0.3).options), view)
    assert torch.equal(repaired.rgb, view.rgb) and not repaired.mask.any() and (repaired.confidence == 1).all()


def test_too_large_a_mask_is_left_and_not_trusted(open_fill):
    view = view_with_hole()
    repaired = repair(open_fill(max_mask_share=0.01), view)
    assert torch.equal(repaired.rgb, view.rgb)
    assert torch.equal(repaired.confidence, (view.alpha > 0).float())


def test_trust_in_repainted_pixels_is_an_option(open_fill):
    view = view_with_hole()
    repaired = repair(open_fill(confidence=0.25), view)
    assert torch.equal(repaired.confidence, torch.where(view.alpha == 0, 0.25, 1.0))


def test_seeds_repeat_and_views_do_not_depend_on_each_other(open_fill):
    view, other, plain = view_with_hole(), view_with_hole(name="b"), view_with_hole(name="c", hole=False)
    first = repair(open_fill(), view)
    assert torch.equal(repair(open_fill(), view).rgb, first.rgb)
    assert not torch.equal(repair(open_fill(), view, seed=1).rgb, first.rgb)
    together = open_fill(loading={"views_per_batch": 2}).repair([plain, view, other], seed=0)
    torch.testing.assert_close(together[1].rgb, first.rgb, rtol=0, atol=2e-3)
    assert not torch.equal(together[2].rgb, together[1].rgb)
    assert torch.equal(together[0].rgb, plain.rgb)


def test_blend_mixes_with_the_render(open_fill):
    view = view_with_hole()
    full, half = repair(open_fill(), view), repair(open_fill(blend=0.5), view)
    torch.testing.assert_close(half.rgb, (view.rgb + full.rgb) / 2, rtol=0, atol=1e-6)
    assert torch.equal(repair(open_fill(blend=0.0), view).rgb, view.rgb)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"confidence": 2}, "confidence = 2.0: wanted 0 to 1, or null"),
        ({"strength": 0}, "strength = 0.0: wanted above 0"),
        ({"steps": 2, "strength": 0.3}, "steps = 2: wanted at least 1 step"),
        ({"mask": {"holes": "some"}}, "mask.holes"),
        ({"mask": {"sigmas_px": [0.1]}}, "mask: sigmas_px = .*from 0.5 to 100 px"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        restorer_options(RestorerChoice(name="flux-fill", options=options))


def test_a_model_of_the_other_kind_is_refused_when_it_is_opened(tiny, open_fill):
    with pytest.raises(ValueError, match=r"/flux': it takes no mask; wanted a model such as .*FLUX.1-Fill-dev$"):
        open_fill(model=tiny.flux)
    with pytest.raises(ValueError, match=r"/fill': it takes more than an image; wanted .*FLUX.1-dev or alike$"):
        open_flux(tiny, model=tiny.fill)


def test_a_missing_model_is_one_line(tmp_path):
    with pytest.raises(ValueError, match="/none") as error:
        open_restorer(RestorerChoice(name="flux-fill", options={"model": str(tmp_path / "none")}), device=CPU)
    assert "\n" not in str(error.value)
