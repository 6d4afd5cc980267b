"""FLUX image to image, held to the edges and the depth of the render by ControlNets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from splatfix.flawed import FlawedView
from splatfix.restoration.flux.batches import batches_of_one_size, noise_generator, stack_renders
from splatfix.restoration.flux.control import draw_edges, draw_nearness, estimate_nearness
from splatfix.restoration.flux.failures import explain_call, require_packages
from splatfix.restoration.flux.loading import load_depth_estimator, load_pipeline, require_mask_input
from splatfix.restoration.flux.options import FluxControlnetOptions
from splatfix.restoration.flux.sizes import ModelFrame
from splatfix.restoration.restorer import Repaired, blend_correction
from splatfix.shapes import Float

MULTIPLE_PX = 16  # the autoencoder halves an image three times, and a token holds 2x2 latents


class FluxControlnetRestorer:
    """Repairs with `FluxControlNetImg2ImgPipeline`; see `FluxControlnetOptions`."""

    def __init__(self, pipeline: Any, options: FluxControlnetOptions, estimator: tuple[Any, Any] | None = None) -> None:
        self.pipeline, self.options, self.estimator = pipeline, options, estimator

    @classmethod
    def open(cls, options: FluxControlnetOptions, device: torch.device) -> FluxControlnetRestorer:
        """Load the models; ValueError as `load_pipeline`, and for a model that takes a mask."""
        require_packages("cv2")
        estimator = None
        if options.depth == "monocular":  # small, so that its failures are known first
            estimator = load_depth_estimator(options.depth_model, options.loading, device)
        union = options.union_controlnet
        controlnets = (options.edge_controlnet, options.depth_controlnet) if union is None else (union,)
        name = "FluxControlNetImg2ImgPipeline"
        pipeline = load_pipeline(name, options.model, options.loading, device, controlnets)
        require_mask_input(pipeline, options.model, wanted=False)
        return cls(pipeline, options, estimator)

    @property
    def batch_views(self) -> int:
        """Number of views that go through the pipeline at a time."""
        return self.options.loading.views_per_batch

    def repair(self, views: Sequence[FlawedView], *, seed: int) -> list[Repaired]:
        """See `Restorer`. The result of a view does not depend on the other views."""
        results: dict[int, Repaired] = {}
        for indices in batches_of_one_size(views, self.batch_views):
            repaired = self._repair_batch([views[index] for index in indices], seed)
            results.update(zip(indices, repaired, strict=True))
        return [results[index] for index in range(len(views))]

    def _repair_batch(self, views: Sequence[FlawedView], seed: int) -> list[Repaired]:
        options, renders = self.options, stack_renders(views)
        if options.strength == 0 or options.blend == 0:
            return [Repaired(view.rgb.clamp(0, 1)) for view in views]
        frame = ModelFrame.choose(renders.shape[2], renders.shape[3], MULTIPLE_PX, options.size)
        images = frame.enclose(renders)
        with explain_call(options.model):
            output = self._run(images, self.control_images(views, images, frame), views, seed)
        repaired = frame.extract(output.float().to(renders.device).clamp(0, 1)).permute(0, 2, 3, 1)
        return [
            Repaired(blend_correction(view.rgb.clamp(0, 1), rgb, options.blend))
            for view, rgb in zip(views, repaired, strict=True)
        ]

    def control_images(
        self, views: Sequence[FlawedView], images: Float[Tensor, "B 3 H2 W2"], frame: ModelFrame
    ) -> list[Float[Tensor, "B 3 H2 W2"]]:
        """Edges and depth in [0, 1] at the model's size, in the order of the ControlNets."""
        options, rgb = self.options, images.permute(0, 2, 3, 1)
        edges = torch.stack([draw_edges(image, options.canny_low, options.canny_high) for image in rgb])
        if self.estimator is None:
            nearness = frame.enclose(torch.stack([draw_nearness(view.depth.float()) for view in views])[:, None])[:, 0]
        else:
            nearness = estimate_nearness(rgb, *self.estimator)
        return [image[:, None].expand(-1, 3, -1, -1) for image in (edges, nearness)]

    def _run(
        self,
        images: Float[Tensor, "B 3 H2 W2"],
        controls: list[Float[Tensor, "B 3 H2 W2"]],
        views: Sequence[FlawedView],
        seed: int,
    ) -> Float[Tensor, "B 3 H2 W2"]:
        options = self.options
        return self.pipeline(
            prompt=[options.prompt] * len(views),
            image=images,
            control_image=[2 * image - 1 for image in controls],  # the pipeline does not scale tensors
            control_mode=[options.edge_mode, options.depth_mode],
            controlnet_conditioning_scale=[options.edge_scale, options.depth_scale],
            control_guidance_start=[0.0, 0.0],
            control_guidance_end=[options.edge_end, options.depth_end],
            strength=options.strength,
            num_inference_steps=options.steps,
            guidance_scale=options.guidance,
            height=images.shape[2],
            width=images.shape[3],
            generator=[noise_generator(view, seed, options.noise) for view in views],
            output_type="pt",
        ).images
