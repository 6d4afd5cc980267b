"""Several ControlNets against the pipeline of diffusers and against their sum."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.restoration.flux.tiny import PACKED, POOLED, TEXT, TinyModels

pytest.importorskip("diffusers")


def load(folder: str) -> Any:
    from diffusers import FluxControlNetModel

    return FluxControlNetModel.from_pretrained(folder)


def aligned(*folders: str, num_blocks: int = 3, num_single_blocks: int = 2) -> Any:
    from splatfix.restoration.flux.controlnets import AlignedControlNets

    networks = AlignedControlNets([load(folder) for folder in folders])
    networks.num_blocks, networks.num_single_blocks = num_blocks, num_single_blocks
    return networks


def random_inputs(num_images: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.zeros(6, 3)
    ids[:, 2] = torch.arange(6)
    return {
        "hidden_states": torch.randn(2, 6, PACKED, generator=generator),
        "controlnet_cond": [torch.randn(2, 6, PACKED, generator=generator) for _ in range(num_images)],
        "encoder_hidden_states": torch.randn(2, 5, TEXT, generator=generator),
        "pooled_projections": torch.randn(2, POOLED, generator=generator),
        "timestep": torch.tensor([0.5, 0.5]),
        "guidance": torch.tensor([3.5, 3.5]),
        "img_ids": ids,
        "txt_ids": torch.zeros(5, 3),
    }


@torch.no_grad()
def test_as_many_blocks_as_each_other_give_the_sum_of_diffusers(tiny: TinyModels) -> None:
    from diffusers import FluxMultiControlNetModel

    inputs = random_inputs(2)
    modes = torch.full((2, 1), -1)
    theirs = FluxMultiControlNetModel([load(tiny.depth), load(tiny.depth)])
    double, single = theirs(**inputs, controlnet_mode=modes, conditioning_scale=[0.6, 0.3], return_dict=False)
    ours = aligned(tiny.depth, tiny.depth)(**inputs, controlnet_mode=modes, conditioning_scale=[0.6, 0.3])
    assert all(torch.allclose(part, double[0], atol=1e-5) for part in ours[0])
    assert all(torch.allclose(part, single[0], atol=1e-5) for part in ours[1])


@torch.no_grad()
def test_networks_of_different_depth_keep_all_their_blocks(tiny: TinyModels) -> None:
    inputs, modes = random_inputs(2), torch.full((2, 1), -1)
    alone = [
        load(folder)(**inputs | {"controlnet_cond": image}, conditioning_scale=scale, return_dict=False)
        for folder, image, scale in zip((tiny.edge, tiny.depth), inputs["controlnet_cond"], (0.6, 0.3), strict=True)
    ]
    double, single = aligned(tiny.edge, tiny.depth)(**inputs, controlnet_mode=modes, conditioning_scale=[0.6, 0.3])
    of_edge, of_depth = alone[0][0], alone[1][0][0]  # two double blocks, and one
    for block, index in enumerate((0, 0, 1)):  # three blocks of the transformer take two residuals in this order
        assert torch.allclose(double[block], of_edge[index] + of_depth, atol=1e-5)
    assert all(torch.equal(part, alone[1][1][0]) for part in single)  # edges have none: those of depth are kept


@torch.no_grad()
def test_one_network_alone_changes_the_image_as_in_the_pipeline_of_diffusers(tiny: TinyModels) -> None:
    from diffusers import FluxControlNetImg2ImgPipeline

    def run(controlnet: Any, image: Any, scale: Any) -> torch.Tensor:
        pipeline = FluxControlNetImg2ImgPipeline.from_pretrained(tiny.flux, controlnet=controlnet)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline(
            prompt="a photo",
            image=torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(1)),
            control_image=image,
            control_mode=None if isinstance(scale, float) else [0],
            controlnet_conditioning_scale=scale,
            height=32,
            width=48,
            strength=0.5,
            num_inference_steps=4,
            generator=torch.Generator().manual_seed(2),
            output_type="pt",
        ).images

    image = torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(3)) * 2 - 1
    assert torch.allclose(run(aligned(tiny.edge), [image], [0.7]), run(load(tiny.edge), image, 0.7), atol=1e-5)


@torch.no_grad()
def test_a_network_of_weight_zero_is_left_out(tiny: TinyModels) -> None:
    inputs, modes = random_inputs(2), torch.full((2, 1), -1)
    double, single = aligned(tiny.edge, tiny.depth)(**inputs, controlnet_mode=modes, conditioning_scale=[1.0, 0.0])
    assert double is not None and single is None
    assert aligned(tiny.edge)(**random_inputs(1), controlnet_mode=modes[:1], conditioning_scale=[0.0]) == (None, None)
