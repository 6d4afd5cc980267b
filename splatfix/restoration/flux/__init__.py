"""Restorers that run diffusion models through diffusers: FLUX with ControlNets, and any image-to-image pipeline.

This module is what the rest of splatfix opens them by; it imports neither diffusers nor transformers. They come with
``pip install 'splatfix[diffusion]'`` and are imported in this folder alone.
"""

from __future__ import annotations

import torch

from splatfix.restoration.flux.options import FluxControlnetOptions, FluxFillOptions, Img2imgOptions
from splatfix.restoration.restorer import Restorer


def open_controlnet(options: FluxControlnetOptions, device: torch.device) -> Restorer:
    """Load FLUX with its ControlNets; ValueError where a model or package is missing."""
    from splatfix.restoration.flux.controlnet import FluxControlnetRestorer

    return FluxControlnetRestorer.open(options, device)


def open_fill(options: FluxFillOptions, device: torch.device) -> Restorer:
    """Load FLUX Fill; ValueError where the model or a package is missing."""
    from splatfix.restoration.flux.fill import FluxFillRestorer

    return FluxFillRestorer.open(options, device)


def open_img2img(options: Img2imgOptions, device: torch.device) -> Restorer:
    """Load an image-to-image pipeline; ValueError where a model or package is missing."""
    from splatfix.restoration.flux.img2img import Img2imgRestorer

    return Img2imgRestorer.open(options, device)
