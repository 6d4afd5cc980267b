"""FLUX.1 Fill under an artifact mask: masked pixels are repainted, all others stay as they were rendered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from splatfix.flawed import FlawedView
from splatfix.restoration.artifact_mask import find_artifacts
from splatfix.restoration.flux.batches import batches_of_one_size, noise_generator, stack_renders
from splatfix.restoration.flux.failures import explain_call
from splatfix.restoration.flux.loading import load_pipeline, require_mask_input
from splatfix.restoration.flux.options import FluxFillOptions
from splatfix.restoration.flux.sizes import ModelFrame, enclose_mask
from splatfix.restoration.restorer import Repaired, blend_correction
from splatfix.shapes import Bool, Float

MULTIPLE_PX = 16  # the autoencoder halves an image three times, and a token holds 2x2 latents


class FluxFillRestorer:
    """Repairs with `FluxFillPipeline`; see `FluxFillOptions`."""

    def __init__(self, pipeline: Any, options: FluxFillOptions) -> None:
        self.pipeline, self.options = pipeline, options

    @classmethod
    def open(cls, options: FluxFillOptions, device: torch.device) -> FluxFillRestorer:
        """Load the pipeline; ValueError as `load_pipeline`, and for a model that takes no mask."""
        pipeline = load_pipeline("FluxFillPipeline", options.model, options.loading, device)
        require_mask_input(pipeline, options.model, wanted=True)
        return cls(pipeline, options)

    @property
    def batch_views(self) -> int:
        """Views at a time."""
        return self.options.loading.views_per_batch

    def repair(self, views: Sequence[FlawedView], *, seed: int) -> list[Repaired]:
        """See `Restorer`. The result of a view does not depend on the other views."""
        masks = [find_artifacts(view.rgb, view.alpha, self.options.mask) for view in views]
        results = {index: self._result(views[index], masks[index], views[index].rgb) for index in range(len(views))}
        wanted = [index for index, mask in enumerate(masks) if self._is_repainted(mask)]
        for batch in batches_of_one_size([views[index] for index in wanted], self.batch_views):
            indices = [wanted[place] for place in batch]
            repainted = self._repaint([views[index] for index in indices], [masks[index] for index in indices], seed)
            for index, rgb in zip(indices, repainted, strict=True):
                results[index] = self._result(views[index], masks[index], rgb)
        return [results[index] for index in range(len(views))]

    def _is_repainted(self, mask: Bool[Tensor, "H W"]) -> bool:
        """Whether the model runs on a view: its mask is neither empty nor too large."""
        share = float(mask.float().mean())
        return 0 < share <= self.options.max_mask_share and self.options.blend > 0

    def _result(self, view: FlawedView, mask: Bool[Tensor, "H W"], rgb: Float[Tensor, "H W 3"]) -> Repaired:
        """Paste the render over the pixels outside the mask. A mask that was too large is not trusted inside it."""
        render, trust = view.rgb.clamp(0, 1), self.options.confidence
        pasted = torch.where(mask[..., None], blend_correction(render, rgb, self.options.blend), render)
        if mask.any() and not self._is_repainted(mask) and self.options.blend > 0:
            trust = 0.0
        confidence = None if trust is None else torch.where(mask, trust, 1.0)
        return Repaired(pasted, confidence, mask)

    def _repaint(
        self, views: Sequence[FlawedView], masks: Sequence[Bool[Tensor, "H W"]], seed: int
    ) -> Float[Tensor, "B H W 3"]:
        """What the model paints, at the size of the views."""
        options, renders = self.options, stack_renders(views)
        frame = ModelFrame.choose(renders.shape[2], renders.shape[3], MULTIPLE_PX, options.size)
        images = frame.enclose(renders)
        whites = torch.stack([enclose_mask(mask, frame) for mask in masks])
        with explain_call(options.model):
            output = self.pipeline(
                prompt=[options.prompt] * len(views),
                image=images,
                mask_image=whites,  # the pipeline repaints what is white
                strength=options.strength,
                num_inference_steps=options.steps,
                guidance_scale=options.guidance,
                height=images.shape[2],
                width=images.shape[3],
                generator=[noise_generator(view, seed, options.noise) for view in views],
                output_type="pt",
            ).images
        return frame.extract(output.float().to(renders.device).clamp(0, 1)).permute(0, 2, 3, 1)
