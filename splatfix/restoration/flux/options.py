"""Options of the restorers that run diffusion models. Imports no model library.

A model is a folder, or an id of the Hugging Face Hub, with ``@REVISION`` after it for another than the newest.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from splatfix.restoration.artifact_mask import MaskOptions

Quantization = Literal["none", "bitsandbytes-4bit", "bitsandbytes-8bit", "torchao-int8", "torchao-float8"]

PROMPT = "a sharp, clean, detailed photograph"
OWN_ARGUMENTS = ("prompt", "strength", "num_inference_steps", "guidance_scale", "generator", "output_type")


def require_option(condition: bool, field: str, value: Any, wanted: str) -> None:
    """`config.require`, imported when options are made: networks and what they import need no pydantic."""
    from splatfix.config import require

    require(condition, field, value, wanted)


@dataclass(frozen=True, kw_only=True)
class LoadingOptions:
    """How a pipeline is loaded, and how much memory it may take. None of it is meant to change the images much.

    Attributes:
        dtype: of the weights; auto is bfloat16 on CUDA and float32 elsewhere.
        offload: what moves to the GPU only when it runs: nothing, whole models, or single layers (slow, least memory).
            Ignored on the CPU.
        quantization: of the models in ``quantized``; needs the package of that name.
        quantized: components of the pipeline that are quantized.
        variant: of the files, where a model has several, such as fp16.
        gguf: a ``.gguf`` file with the pipeline's transformer, in place of its own; a path or a URL of the Hub.
        attention_slicing: attention in slices: less memory, slower.
        vae_slicing: the autoencoder takes the images of a batch one by one.
        vae_tiling: the autoencoder takes large images in tiles; seams are blended.
        views_per_batch: views that go through the pipeline at a time.
        local_files_only: never download; a model that is not in the cache is an error.
    """

    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    offload: Literal["none", "model", "sequential"] = "none"
    quantization: Quantization = "none"
    quantized: tuple[str, ...] = ("transformer", "text_encoder_2")
    variant: str | None = None
    gguf: str | None = None
    attention_slicing: bool = False
    vae_slicing: bool = False
    vae_tiling: bool = False
    views_per_batch: int = 1
    local_files_only: bool = False

    def __post_init__(self) -> None:
        require_option(
            self.views_per_batch >= 1, "loading.views_per_batch", self.views_per_batch, "a whole number of at least 1"
        )
        require_option(
            self.gguf is None or self.quantization == "none",
            "loading.quantization",
            self.quantization,
            "none beside loading.gguf, whose weights are quantized already",
        )


@dataclass(frozen=True, kw_only=True)
class SizeOptions:
    """At which size a model sees a view. The result always has the size of the view.

    Attributes:
        min_side_px: views with a shorter side are enlarged to this one before, and reduced after; 0 never does. FLUX.1
            is made for 0.1 to 2 megapixels (its announcement); its union ControlNets were trained at 512 px.
        max_side_px: views with a longer side are reduced before, and enlarged after; None never does.
    """

    min_side_px: int = 512
    max_side_px: int | None = None

    def __post_init__(self) -> None:
        require_option(self.min_side_px >= 0, "size.min_side_px", self.min_side_px, "at least 0 pixels")
        require_option(
            self.max_side_px is None or self.max_side_px >= max(self.min_side_px, 16),
            "size.max_side_px",
            self.max_side_px,
            "null, or at least 16 pixels and size.min_side_px",
        )


@dataclass(frozen=True, kw_only=True)
class FluxControlnetOptions:
    """FLUX.1 image to image, held to the edges and the depth of the render by two ControlNets (or a union of them).

    Defaults: guidance and steps as the model cards of FLUX.1-dev and InstantX's ControlNet run them; the scale of the
    edges from InstantX's card (0.6), that of the depth from Shakker Labs' (0.3 to 0.7), the ends from Shakker Labs'
    Union-Pro-2.0 (0.8). The strength adds about as much noise at 512 px as Difix3D+ (Wu et al., CVPR 2025) found best
    for renders with artifacts (timestep 200 of 1000 of Stable Diffusion).

    Attributes:
        model: FLUX.1, as a pipeline.
        edge_controlnet, depth_controlnet: the ControlNets.
        union_controlnet: one ControlNet for both images, in place of the two.
        edge_mode, depth_mode: control modes of a union model that has such (Union-Pro: 0 is canny, 2 depth); a union
            model without modes ignores them.
        strength: share of the diffusion that is run again, in [0, 1]: 0 keeps the render, 1 starts from noise.
        blend: share of the correction that is applied, in [0, 1].
        steps: of the whole diffusion; ``strength`` times as many are run.
        guidance: of the distilled classifier-free guidance.
        prompt: what the images show, in words.
        edge_scale, depth_scale: weight of each ControlNet.
        edge_end, depth_end: share of the steps after which each ControlNet is left out, in [0, 1].
        canny_low, canny_high: thresholds of the Canny detector, 0 to 255.
        depth: of the depth image: ``monocular`` estimates it from the render; ``rendered`` takes that of the fit.
        depth_model: the monocular estimator (a relative depth model of transformers).
        noise: ``per-view`` seeds each view by its name, ``shared`` gives all views the same noise.
        loading, size: see `LoadingOptions` and `SizeOptions`.
    """

    model: str = "black-forest-labs/FLUX.1-dev"
    edge_controlnet: str = "InstantX/FLUX.1-dev-Controlnet-Canny"
    depth_controlnet: str = "Shakker-Labs/FLUX.1-dev-ControlNet-Depth"
    union_controlnet: str | None = None
    edge_mode: int = 0
    depth_mode: int = 2
    strength: float = 0.25
    blend: float = 1.0
    steps: int = 28
    guidance: float = 3.5
    prompt: str = PROMPT
    edge_scale: float = 0.6
    depth_scale: float = 0.5
    edge_end: float = 0.8
    depth_end: float = 0.8
    canny_low: float = 100.0
    canny_high: float = 200.0
    depth: Literal["monocular", "rendered"] = "monocular"
    depth_model: str = "depth-anything/Depth-Anything-V2-Small-hf"
    noise: Literal["per-view", "shared"] = "per-view"
    loading: LoadingOptions = field(default_factory=LoadingOptions)
    size: SizeOptions = field(default_factory=SizeOptions)

    def __post_init__(self) -> None:
        for name in ("strength", "blend", "edge_end", "depth_end"):
            require_option(0 <= getattr(self, name) <= 1, name, getattr(self, name), "0 to 1")
        for name in ("edge_scale", "depth_scale", "guidance"):
            require_option(getattr(self, name) >= 0, name, getattr(self, name), "a number of at least 0")
        require_option(self.steps >= 1, "steps", self.steps, "a whole number of at least 1")
        for name in ("edge_mode", "depth_mode"):
            require_option(getattr(self, name) >= 0, name, getattr(self, name), "a whole number of at least 0")
        require_option(
            0 <= self.canny_low <= self.canny_high <= 255,
            "canny_low",
            self.canny_low,
            f"0 to canny_high ({self.canny_high}), and canny_high at most 255",
        )


@dataclass(frozen=True, kw_only=True)
class Img2imgOptions:
    """Any image-to-image or reference-guided pipeline of diffusers.

    The defaults run SD-Turbo once, at timestep 249, the lowest of the four that it was distilled at (Sauer et al.
    2023); Difix3D+ (Wu et al., CVPR 2025) is built on the same model at timestep 200.

    Attributes:
        model: of any kind that diffusers has, as a pipeline.
        pipeline: its class in diffusers, such as ``Flux2KleinPipeline``.
        strength, steps, guidance: passed as ``strength``, ``num_inference_steps`` and ``guidance_scale``; null where
            the pipeline has no such argument, or for its default.
        blend: share of the correction that is applied, in [0, 1].
        prompt: what the images show or what to do with them, in words; null for a pipeline without prompts.
        image_argument: the argument that takes the render.
        reference_argument: the argument that takes the nearest photos. The same as ``image_argument``: a list of the
            render and the photos. Null: the pipeline sees no photos.
        num_references: photos at most.
        mask_argument: the argument that takes the artifact mask, white where to repaint, such as ``mask_image`` of
            ``FluxKontextInpaintPipeline``. All other pixels then stay as they were rendered. Null: no mask.
        mask: which pixels that are; see `MaskOptions`.
        arguments: further arguments of the pipeline, by name.
        multiple_px: sides are padded to a multiple of this; null takes what the pipeline's image processor says.
        noise: ``per-view`` seeds each view by its name, ``shared`` gives all views the same noise.
        loading, size: see `LoadingOptions` and `SizeOptions`.
    """

    model: str = "stabilityai/sd-turbo"
    pipeline: str = "StableDiffusionImg2ImgPipeline"
    strength: float | None = 0.25
    steps: int | None = 4
    guidance: float | None = 0.0
    blend: float = 1.0
    prompt: str | None = PROMPT
    image_argument: str = "image"
    reference_argument: str | None = None
    num_references: int = 1
    mask_argument: str | None = None
    mask: MaskOptions = field(default_factory=MaskOptions)
    arguments: dict[str, Any] = field(default_factory=dict)
    multiple_px: int | None = None
    noise: Literal["per-view", "shared"] = "per-view"
    loading: LoadingOptions = field(default_factory=LoadingOptions)
    size: SizeOptions = field(default_factory=SizeOptions)

    def __post_init__(self) -> None:
        require_option(self.strength is None or 0 <= self.strength <= 1, "strength", self.strength, "0 to 1, or null")
        require_option(0 <= self.blend <= 1, "blend", self.blend, "0 to 1")
        require_option(self.steps is None or self.steps >= 1, "steps", self.steps, "at least 1, or null")
        require_option(
            self.guidance is None or self.guidance >= 0, "guidance", self.guidance, "a number of at least 0, or null"
        )
        require_option(self.num_references >= 1, "num_references", self.num_references, "at least 1")
        require_option(self.multiple_px is None or self.multiple_px >= 1, "multiple_px", self.multiple_px, "at least 1")
        require_option(self.pipeline.isidentifier(), "pipeline", self.pipeline, "the name of a class of diffusers")
        own = [self.image_argument, self.reference_argument, self.mask_argument, *OWN_ARGUMENTS]
        for name in self.arguments:
            require_option(
                name not in own, f"arguments.{name}", self.arguments[name], "no argument that is set already"
            )


@dataclass(frozen=True, kw_only=True)
class FluxFillOptions:
    """FLUX.1 Fill under an artifact mask. Guidance, steps and strength are those of its model card.

    Attributes:
        model: FLUX.1 Fill, as a pipeline.
        mask: which pixels are repainted; see `MaskOptions`.
        max_mask_share: views of which a larger share is masked stay as rendered, without any trust in the masked
            pixels: the model invents structure where little is left to go by.
        confidence: trust in repainted pixels, in [0, 1]; null says nothing of any pixel.
        strength: 1 repaints from noise; less starts from the render under the mask.
        blend: share of the correction that is applied, in [0, 1].
        steps: of the diffusion.
        guidance: of the distilled classifier-free guidance.
        prompt: what the images show, in words.
        noise: ``per-view`` seeds each view by its name, ``shared`` gives all views the same noise.
        loading, size: see `LoadingOptions` and `SizeOptions`.
    """

    model: str = "black-forest-labs/FLUX.1-Fill-dev"
    mask: MaskOptions = field(default_factory=MaskOptions)
    max_mask_share: float = 0.5
    confidence: float | None = None
    strength: float = 1.0
    blend: float = 1.0
    steps: int = 50
    guidance: float = 30.0
    prompt: str = PROMPT
    noise: Literal["per-view", "shared"] = "per-view"
    loading: LoadingOptions = field(default_factory=LoadingOptions)
    size: SizeOptions = field(default_factory=SizeOptions)

    def __post_init__(self) -> None:
        for name in ("max_mask_share", "blend"):
            require_option(0 <= getattr(self, name) <= 1, name, getattr(self, name), "0 to 1")
        trust = self.confidence
        require_option(trust is None or 0 <= trust <= 1, "confidence", trust, "0 to 1, or null")
        require_option(0 < self.strength <= 1, "strength", self.strength, "above 0, at most 1")
        require_option(self.guidance >= 0, "guidance", self.guidance, "a number of at least 0")
        require_option(
            self.steps * self.strength >= 1, "steps", self.steps, f"at least 1 step at a strength of {self.strength}"
        )
