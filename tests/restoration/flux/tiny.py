"""Tiny diffusers pipelines with random weights, written to a folder as users have them: no network, seconds to build.

Each has the structure and the scale factors of the real one (images in multiples of 16 pixels for FLUX, 8 for Stable
Diffusion) with a few channels. Layers that are initialized with zeros get random weights, so that every input matters.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

LATENTS = 4  # channels of the autoencoders
PACKED = 4 * LATENTS  # channels of a FLUX token: 2x2 latents
MASK = 4 * 8 * 8  # channels of a token of the mask: 2x2 latents of 8x8 pixels
TEXT, POOLED = 32, 16  # channels of the two text encoders
VAE = {
    "block_out_channels": (4, 4, 8, 8),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "latent_channels": LATENTS,
    "layers_per_block": 1,
    "norm_num_groups": 2,
}


@dataclass(frozen=True, kw_only=True)
class TinyModels:
    """Folders of the models.

    Attributes:
        flux: FLUX.1-dev, as a pipeline.
        fill: FLUX.1-Fill-dev, as a pipeline.
        edge: a ControlNet for edges.
        depth: a ControlNet for depth, with other numbers of blocks.
        union: one ControlNet with control modes.
        turbo: Stable Diffusion for image to image, as a pipeline.
        klein: FLUX.2 Klein, as a pipeline.
        depth_anything: a depth estimator of transformers with its image processor.
    """

    flux: str
    fill: str
    edge: str
    depth: str
    union: str
    turbo: str
    klein: str
    depth_anything: str


def write_models(folder: Path) -> TinyModels:
    """Write all of them below a folder."""
    paths = {name: str(folder / name) for name in TinyModels.__dataclass_fields__}
    write_flux(paths["flux"], paths["fill"])
    write_controlnet(paths["edge"], num_layers=2, num_single_layers=0, seed=1)
    write_controlnet(paths["depth"], num_layers=1, num_single_layers=1, seed=2)
    write_controlnet(paths["union"], num_layers=1, num_single_layers=1, seed=3, num_mode=10)
    write_turbo(paths["turbo"])
    write_klein(paths["klein"])
    write_depth_anything(paths["depth_anything"])
    return TinyModels(**paths)


def write_flux(flux: str, fill: str) -> None:
    """Write the pipelines of FLUX.1-dev and FLUX.1-Fill-dev; they share all but the transformer."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxFillPipeline, FluxPipeline

    parts = {
        "vae": tiny_vae(seed=4, shift_factor=0.1, use_quant_conv=False, use_post_quant_conv=False),
        "scheduler": FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        **tiny_clip(POOLED, seed=5),
        **tiny_t5(seed=6),
    }
    FluxPipeline(transformer=tiny_transformer(PACKED, seed=7), **parts).save_pretrained(flux)
    inputs = 2 * PACKED + MASK
    FluxFillPipeline(transformer=tiny_transformer(inputs, seed=8), **parts).save_pretrained(fill)


def tiny_transformer(in_channels: int, *, seed: int) -> nn.Module:
    """A FLUX transformer with three double and two single blocks."""
    from diffusers import FluxTransformer2DModel

    model = FluxTransformer2DModel(**_sizes(in_channels), out_channels=PACKED, num_layers=3, num_single_layers=2)
    return randomized(model, seed)


def write_controlnet(folder: str, *, num_layers: int, num_single_layers: int, seed: int, **more) -> None:
    """Write a FLUX ControlNet in the manner of InstantX and Shakker Labs (the condition goes through the VAE)."""
    from diffusers import FluxControlNetModel

    model = FluxControlNetModel(**_sizes(PACKED), num_layers=num_layers, num_single_layers=num_single_layers, **more)
    randomized(model, seed).save_pretrained(folder)


def _sizes(in_channels: int) -> dict:
    return {
        "in_channels": in_channels,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "joint_attention_dim": TEXT,
        "pooled_projection_dim": POOLED,
        "guidance_embeds": True,
        "axes_dims_rope": (4, 4, 8),
    }


def write_turbo(folder: str) -> None:
    """Write a Stable Diffusion pipeline for image to image, as SD-Turbo is: no safety checker, one step."""
    from diffusers import EulerDiscreteScheduler, StableDiffusionImg2ImgPipeline, UNet2DConditionModel

    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=LATENTS,
        out_channels=LATENTS,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        attention_head_dim=4,
        cross_attention_dim=TEXT,
    )
    pipeline = StableDiffusionImg2ImgPipeline(
        unet=randomized(unet, 9),
        vae=tiny_vae(seed=10),
        scheduler=EulerDiscreteScheduler(timestep_spacing="trailing", steps_offset=1),
        **tiny_clip(TEXT, seed=11),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)


def write_klein(folder: str) -> None:
    """Write a FLUX.2 Klein pipeline; its prompt is read from the layers 1 and 2 of a Qwen 3 text encoder."""
    from diffusers import (
        AutoencoderKLFlux2,
        FlowMatchEulerDiscreteScheduler,
        Flux2KleinPipeline,
        Flux2Transformer2DModel,
    )
    from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3ForCausalLM

    transformer = Flux2Transformer2DModel(
        in_channels=PACKED,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=2 * TEXT,
        timestep_guidance_channels=16,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=False,
    )
    characters = ["<|endoftext|>", *"abcdefghijklmnopqrstuvwxyz,.", "\u0120"]  # the last is a space
    tokenizer = Qwen2Tokenizer(vocab={token: index for index, token in enumerate(characters)}, merges=[])
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    config = Qwen3Config(
        vocab_size=len(characters),
        hidden_size=TEXT,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        eos_token_id=0,
        pad_token_id=0,
    )
    torch.manual_seed(13)
    pipeline = Flux2KleinPipeline(
        transformer=randomized(transformer, 14),
        vae=randomized(AutoencoderKLFlux2(**VAE), 15),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        text_encoder=Qwen3ForCausalLM(config).eval(),
        tokenizer=tokenizer,
        is_distilled=True,
    )
    pipeline.save_pretrained(folder)


def write_depth_anything(folder: str) -> None:
    """Write a Depth Anything V2 estimator (a small DINOv2 with its head) and its image processor."""
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config, DPTImageProcessor

    backbone = Dinov2Config(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
        out_features=["stage1", "stage2"],
        reshape_hidden_states=False,
        apply_layernorm=True,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=16,
        reassemble_factors=[2, 1],
        neck_hidden_sizes=[8, 8],
        fusion_hidden_size=8,
        head_in_index=-1,
        head_hidden_size=8,
        depth_estimation_type="relative",
    )
    model = randomized(DepthAnythingForDepthEstimation(config), 12)
    nn.init.ones_(model.head.conv3.bias)  # its output passes a ReLU
    model.save_pretrained(folder)
    processor = DPTImageProcessor(
        size={"height": 56, "width": 56}, keep_aspect_ratio=True, ensure_multiple_of=14, resample=3
    )
    processor.save_pretrained(folder)


def tiny_vae(*, seed: int, **more) -> nn.Module:
    """An autoencoder that halves the image three times."""
    from diffusers import AutoencoderKL

    model = AutoencoderKL(**VAE, scaling_factor=0.3611, **more)
    randomized(model, seed)
    last = model.encoder.conv_out if model.quant_conv is None else model.quant_conv
    with torch.no_grad():  # log variances of the latents: almost none, as in trained autoencoders
        last.weight[LATENTS:] = 0
        last.bias[LATENTS:] = -12
    return model


def tiny_clip(hidden: int, *, seed: int) -> dict:
    """A CLIP text encoder and a tokenizer of single characters, by their names in a pipeline."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    ends = ["<|startoftext|>", "<|endoftext|>"]
    characters = [character + end for character in "abcdefghijklmnopqrstuvwxyz,." for end in ("", "</w>")]
    vocabulary = {token: index for index, token in enumerate([*ends, *characters])}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)
    config = CLIPTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=hidden,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        projection_dim=hidden,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    torch.manual_seed(seed)
    return {"text_encoder": CLIPTextModel(config).eval(), "tokenizer": tokenizer}


def tiny_t5(*, seed: int) -> dict:
    """A T5 text encoder and a tokenizer of single characters, by their names in a pipeline."""
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces = [*special, ("▁", -2.0), *((character, -3.0) for character in "abcdefghijklmnopqrstuvwxyz,.")]
    tokenizer = T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=64)
    config = T5Config(
        vocab_size=len(pieces), d_model=TEXT, d_kv=8, d_ff=32, num_layers=1, num_heads=2, feed_forward_proj="gated-gelu"
    )
    torch.manual_seed(seed)
    return {"text_encoder_2": T5EncoderModel(config).eval(), "tokenizer_2": tokenizer}


def randomized(model: nn.Module, seed: int) -> nn.Module:
    """The model with random weights from a seed, also where its layers start with zeros; in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                fan_in = parameter[0].numel()
                parameter.normal_(0, fan_in**-0.5, generator=generator)
            elif name.endswith("bias"):
                parameter.normal_(0, 0.02, generator=generator)
    return model.eval()
