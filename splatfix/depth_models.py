"""Estimate the depth of each photo of a scene with a monocular model of transformers.

The models are loaded as those of restorers are (`restoration.flux.loading`): from a folder or from the Hub's cache; a
download is announced. What becomes of the estimates is in `splats.monocular` and `splats.losses`.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import replace
from typing import Any

import torch

from splatfix.restoration.flux.control import estimate_nearness
from splatfix.restoration.flux.loading import load_depth_estimator
from splatfix.restoration.flux.options import LoadingOptions
from splatfix.splats.scene import SparseScene

log = logging.getLogger(__name__)


def estimate_depths(scene: SparseScene, model: str | None) -> SparseScene:
    """Add the estimate of a model for each photo to a scene, on the device of the photos.

    The estimate is inverse depth up to scale and shift, from 0 to 1 in each photo. It depends on this photo alone, so
    that photos that are left out have no influence. On the CPU the same photos give the same estimates.

    Args:
        scene: as `splats.scene.load_scene` returns it.
        model: folder or id (``@REVISION``) of a relative depth estimator of transformers; None changes nothing.

    Raises:
        ValueError: a package, the model or the network is missing, or it is no such model; one line with the remedy.
    """
    if model is None:
        return scene
    device = scene.photos[0].device
    processor, network = load_depth_estimator(model, LoadingOptions(), device, user="initial.depth_model")
    if getattr(network.config, "depth_estimation_type", "relative") != "relative":
        raise ValueError(
            f"initial.depth_model = {model!r}: estimates metric depth; wanted a model of relative (inverse) depth, "
            "such as depth-anything/Depth-Anything-V2-Small-hf"
        )
    log.info("estimating the depth of %d photos with %s", len(scene.photos), model)
    nearness = tuple(estimate_nearness(photo[None], processor, network)[0] for photo in scene.photos)
    return replace(scene, nearness=nearness, nearness_from=hash_model(processor, network))


def hash_model(processor: Any, network: torch.nn.Module) -> str:
    """Hash the weights of a model and how it takes images, wherever they were read from."""
    digest = hashlib.sha256(json.dumps(processor.to_dict(), sort_keys=True, default=str).encode())
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
