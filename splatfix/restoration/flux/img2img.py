"""Any image-to-image or reference-guided pipeline of diffusers."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from splatfix.flawed import FlawedView
from splatfix.restoration.artifact_mask import find_artifacts
from splatfix.restoration.flux.batches import batches_of_one_size, noise_generator, stack_renders
from splatfix.restoration.flux.failures import ModelError, explain_call, require_packages
from splatfix.restoration.flux.loading import find_pipeline_class, load_pipeline
from splatfix.restoration.flux.options import Img2imgOptions
from splatfix.restoration.flux.sizes import ModelFrame, enclose_mask, fit_to
from splatfix.restoration.restorer import Repaired, blend_correction
from splatfix.shapes import Bool, Float

log = logging.getLogger(__name__)


class Img2imgRestorer:
    """Repairs with a pipeline that the options name; see `Img2imgOptions`."""

    def __init__(self, pipeline: Any, options: Img2imgOptions) -> None:
        self.pipeline, self.options = pipeline, options
        self.known = check_arguments(type(pipeline), options)
        self._resizes = False  # whether it was logged that the pipeline chooses its own size

    @classmethod
    def open(cls, options: Img2imgOptions, device: torch.device) -> Img2imgRestorer:
        """Load the pipeline; ValueError as `load_pipeline`, and for an argument that the pipeline does not have."""
        require_packages("diffusers", "transformers")
        kind = find_pipeline_class(options.pipeline)
        if not kind.__name__.startswith("AutoPipeline"):  # which returns another class
            check_arguments(kind, options)  # before a download
        return cls(load_pipeline(options.pipeline, options.model, options.loading, device), options)

    @property
    def multiple_px(self) -> int:
        """What the sides of an image have to be a multiple of."""
        if self.options.multiple_px is not None:
            return self.options.multiple_px
        config = getattr(getattr(self.pipeline, "image_processor", None), "config", {})
        return int(config.get("vae_scale_factor", 16))

    @property
    def batch_views(self) -> int:
        """Views at a time: several only where a list of images is a batch.

        Pipelines without a strength (editing models) take a list as several references for one image.
        """
        options = self.options
        alone = "strength" not in self.known or options.reference_argument or options.mask_argument
        return 1 if alone else self.options.loading.views_per_batch

    def repair(self, views: Sequence[FlawedView], *, seed: int) -> list[Repaired]:
        """See `Restorer`. The result of a view does not depend on the other views."""
        if self.options.mask_argument is not None:
            return [self._repair_masked(view, seed) for view in views]
        results: dict[int, Repaired] = {}
        for indices in batches_of_one_size(views, self.batch_views):
            repaired = self._repair_batch([views[index] for index in indices], seed)
            results.update(zip(indices, repaired, strict=True))
        return [results[index] for index in range(len(views))]

    def _repair_masked(self, view: FlawedView, seed: int) -> Repaired:
        """Repaint the artifacts of a view; the other pixels stay as they were rendered."""
        mask, render = find_artifacts(view.rgb, view.alpha, self.options.mask), view.rgb.clamp(0, 1)
        if not mask.any():
            return Repaired(render, None, mask)
        (repaired,) = self._repair_batch([view], seed, mask)
        return Repaired(torch.where(mask[..., None], repaired.rgb, render), None, mask)

    def _repair_batch(
        self, views: Sequence[FlawedView], seed: int, mask: Bool[Tensor, "H W"] | None = None
    ) -> list[Repaired]:
        options, renders = self.options, stack_renders(views)
        if options.strength == 0 or options.blend == 0:
            return [Repaired(view.rgb.clamp(0, 1)) for view in views]
        frame = ModelFrame.choose(renders.shape[2], renders.shape[3], self.multiple_px, options.size)
        arguments = self._arguments(views, frame.enclose(renders), frame, seed)
        if mask is not None and options.mask_argument is not None:
            arguments[options.mask_argument] = to_picture(enclose_mask(mask, frame).expand(3, -1, -1))
        output = self._run(arguments)
        if len(output) != len(views):
            raise ModelError(
                f"pipeline {options.pipeline!r}: returned {len(output)} images for {len(views)} views; "
                "set loading.views_per_batch: 1"
            )
        images = self._at_model_size(output.float().to(renders.device).clamp(0, 1), frame)
        return [
            Repaired(blend_correction(view.rgb.clamp(0, 1), rgb, options.blend))
            for view, rgb in zip(views, frame.extract(images).permute(0, 2, 3, 1), strict=True)
        ]

    def _run(self, arguments: dict[str, Any]) -> Float[Tensor, "B 3 H2 W2"]:
        with explain_call(self.options.model):
            try:
                return self.pipeline(**arguments).images
            except RuntimeError as error:
                strength, steps = arguments.get("strength"), arguments.get("num_inference_steps")
                if strength is None or steps is None or int(strength * steps) >= 1:
                    raise
                raise ModelError(
                    f"strength = {strength}: with steps = {steps} this pipeline runs no step; "
                    f"wanted at least {1 / steps:.3g}, or more steps"
                ) from error

    def _arguments(
        self, views: Sequence[FlawedView], images: Float[Tensor, "B 3 H2 W2"], frame: ModelFrame, seed: int
    ) -> dict[str, Any]:
        """The arguments of a call. Images are PIL images, which every pipeline takes."""
        options, alone = self.options, len(views) == 1
        pictures: list[Any] = [to_picture(image) for image in images]
        generators = [noise_generator(view, seed, options.noise) for view in views]
        arguments = {
            "height": frame.model_height_px,
            "width": frame.model_width_px,
            "max_area": frame.model_height_px * frame.model_width_px,  # Kontext: else 1 megapixel
            "num_inference_steps": options.steps,
            "guidance_scale": options.guidance,
            "strength": options.strength,
            "prompt": options.prompt if alone or options.prompt is None else [options.prompt] * len(views),
            "generator": generators[0] if alone else generators,
            options.image_argument: pictures[0] if alone else pictures,
        }
        if options.reference_argument is not None:
            photos = [self._photo(reference.rgb) for reference in views[0].references[: options.num_references]]
            own = options.reference_argument == options.image_argument
            arguments[options.reference_argument] = [pictures[0], *photos] if own else photos
        arguments = {name: value for name, value in arguments.items() if name in self.known and value is not None}
        return {**arguments, **options.arguments, "output_type": "pt"}

    def _photo(self, rgb: Float[Tensor, "H W 3"]) -> Any:
        """A nearest photo, enlarged and padded as the render is: models have a least size of any image."""
        frame = ModelFrame.choose(rgb.shape[0], rgb.shape[1], self.multiple_px, self.options.size)
        return to_picture(frame.enclose(rgb.detach().float().clamp(0, 1).permute(2, 0, 1)[None])[0])

    def _at_model_size(self, images: Float[Tensor, "B 3 H2 W2"], frame: ModelFrame) -> Float[Tensor, "B 3 H3 W3"]:
        size = (frame.model_height_px, frame.model_width_px)
        if tuple(images.shape[2:]) != size and not self._resizes:
            self._resizes = True
            got = f"{images.shape[3]} x {images.shape[2]}"
            log.info("%s returns %s for %d x %d pixels: scaled back", self.options.pipeline, got, size[1], size[0])
        return fit_to(images, frame)


def check_arguments(cls: Any, options: Img2imgOptions) -> set[str]:
    """The names of a pipeline's arguments.

    Raises:
        ValueError: the options set one that it does not have.
    """
    known = {name for name in inspect.signature(cls.__call__).parameters if name != "self"}
    named = {"image_argument": options.image_argument, "reference_argument": options.reference_argument}
    named["mask_argument"] = options.mask_argument
    for option, name in [*named.items(), *(("arguments", name) for name in options.arguments)]:
        if name is not None and name not in known:
            listed = ", ".join(sorted(known))
            raise ModelError(f"{option} = {name!r}: {cls.__name__} has no such argument; it has {listed}")
    own = {"strength": "strength", "steps": "num_inference_steps", "guidance": "guidance_scale", "prompt": "prompt"}
    for option, name in own.items():
        value = getattr(options, option)
        if value is not None and name not in known:
            raise ModelError(f"{option} = {value!r}: {cls.__name__} has no {name}; set {option}: null")
    return known


def to_picture(image: Float[Tensor, "C H W"]) -> Any:
    """An image in [0, 1] with 8 bits."""
    from PIL import Image

    array = (image.detach().float().cpu().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return Image.fromarray(array)
