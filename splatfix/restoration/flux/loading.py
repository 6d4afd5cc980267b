"""Loading of diffusion models, through the ``from_pretrained`` of their libraries alone.

Weights are safetensors (or GGUF, if asked for), code from a model's repository is never run, and every failure is one
line with its remedy. A model is first looked for on this machine; before a download starts, its license and size are
logged.
"""

from __future__ import annotations

import gc
import inspect
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from splatfix.process import quiet
from splatfix.restoration.flux.failures import ModelError, explain, require_packages
from splatfix.restoration.flux.hub import announce_download, split_revision
from splatfix.restoration.flux.options import LoadingOptions
from splatfix.restoration.hub_locks import watch_hub_locks

_kept: dict[tuple[Any, ...], Any] = {}  # the last pipeline, by the arguments that it was loaded with


def load_pipeline(
    pipeline: str, model: str, loading: LoadingOptions, device: torch.device, controlnets: tuple[str, ...] = ()
) -> Any:
    """Load a pipeline, ready to be called; the last one is kept, so that the same arguments load nothing again.

    It is let go before another one is loaded: two of them may not fit into the memory.

    Args:
        pipeline: its class in diffusers.
        model: folder or id (``@REVISION``) of the pipeline.
        loading: how.
        device: where it runs.
        controlnets: folders or ids of FLUX ControlNets, for a pipeline with such.

    Raises:
        ValueError: a package, a model or the network is missing, or a model cannot be read; one line with the remedy.
    """
    require_packages("diffusers", "transformers")
    loading = replace(loading, views_per_batch=1)  # does not change what is loaded
    key = (pipeline, model, loading, device, controlnets)
    if key not in _kept:
        _kept.clear()
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        with explain(model):
            _kept[key] = _load_pipeline(*key)
    return _kept[key]


def load_depth_estimator(
    model: str, loading: LoadingOptions, device: torch.device, *, user: str = "this restorer"
) -> tuple[Any, Any]:
    """Load a monocular depth estimator: its image processor and its network, in float32; kept as `load_pipeline`.

    ``user`` names what needs it, for the message where a package is missing.
    """
    require_packages("transformers", user=user)
    with explain(model):
        return _load_depth_estimator(model, loading.local_files_only, device)


def choose_dtype(loading: LoadingOptions, device: torch.device) -> torch.dtype:
    """The dtype of the weights on a device."""
    if loading.dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return getattr(torch, loading.dtype)


def find_pipeline_class(name: str) -> Any:
    """A pipeline's class in diffusers; ValueError where there is none (near names are listed)."""
    import diffusers

    found = getattr(diffusers, name, None)
    if not inspect.isclass(found) or not hasattr(found, "from_pretrained"):
        names = [known for known in dir(diffusers) if "Pipeline" in known]
        near = ", ".join(get_close_matches(name, names, n=3)) or "such as StableDiffusionImg2ImgPipeline"
        raise ModelError(
            f"pipeline = {name!r}: diffusers {diffusers.__version__} has no such class; near names: {near}"
        )
    return found


def _load_pipeline(
    pipeline: str, model: str, loading: LoadingOptions, device: torch.device, controlnets: tuple[str, ...]
) -> Any:
    cls, dtype = find_pipeline_class(pipeline), choose_dtype(loading, device)
    parts: dict[str, Any] = {}
    if controlnets:
        parts["controlnet"] = _load_controlnets(controlnets, loading, dtype)
    if loading.gguf is not None:
        parts["transformer"] = _load_gguf(cls, model, loading, dtype)
    if loading.quantization != "none":
        from splatfix.restoration.flux.quantization import quantization_config

        parts["quantization_config"] = quantization_config(loading, dtype)

    def load(place: str, **more: Any) -> Any:
        return cls.from_pretrained(place, dtype=dtype, variant=loading.variant, **parts, **more)

    loaded = _from_pretrained(load, model, loading.local_files_only, is_pipeline=True)
    if controlnets:
        loaded.controlnet.align_with(loaded.transformer)
    return _prepared(loaded, loading, device)


def _load_controlnets(models: tuple[str, ...], loading: LoadingOptions, dtype: torch.dtype) -> Any:
    from diffusers import FluxControlNetModel

    from splatfix.restoration.flux.controlnets import AlignedControlNets

    networks = []
    for model in models:
        with explain(model):

            def load(place: str, **more: Any) -> Any:
                return FluxControlNetModel.from_pretrained(place, dtype=dtype, **more)

            networks.append(_from_pretrained(load, model, loading.local_files_only))
    if len({network.input_hint_block is None for network in networks}) > 1:
        raise ModelError(f"ControlNets {', '.join(models)}: of two families that take different images; wanted one")
    return AlignedControlNets(networks)


def _load_gguf(cls: Any, model: str, loading: LoadingOptions, dtype: torch.dtype) -> Any:
    """The transformer of a pipeline from a GGUF file; its architecture from the pipeline's configuration."""
    import diffusers

    assert loading.gguf is not None
    require_packages("gguf", remedy="pip install gguf")
    kinds = [getattr(kind, "__name__", "") for kind in cls.__init__.__annotations__.values()]
    names = [str(kind) for kind in cls.__init__.__annotations__.values()] + kinds
    name = next((name.rsplit(".", 1)[-1].rstrip("'>") for name in names if "Transformer2DModel" in name), None)
    if name is None:
        raise ModelError(f"loading.gguf = {loading.gguf!r}: {cls.__name__} has no transformer; set loading.gguf: null")
    if "://" not in loading.gguf and not Path(loading.gguf).is_file():
        raise ModelError(f"loading.gguf = {loading.gguf!r}: no such file; wanted a .gguf file, or its URL on the Hub")
    config = diffusers.GGUFQuantizationConfig(compute_dtype=dtype)
    place, revision = split_revision(model)
    more = {"config": place, "subfolder": "transformer", "revision": revision}
    with explain(loading.gguf), _quiet_libraries():
        return getattr(diffusers, name).from_single_file(loading.gguf, quantization_config=config, dtype=dtype, **more)


@lru_cache(maxsize=1)
def _load_depth_estimator(model: str, local_files_only: bool, device: torch.device) -> tuple[Any, Any]:
    from transformers import AutoImageProcessor, AutoModelForDepthEstimation

    def load(place: str, **more: Any) -> tuple[Any, Any]:
        network = AutoModelForDepthEstimation.from_pretrained(place, dtype=torch.float32, **more)
        more.pop("use_safetensors")
        return AutoImageProcessor.from_pretrained(place, **more), network

    processor, network = _from_pretrained(load, model, local_files_only)
    return processor, network.eval().to(device)


def _from_pretrained(load: Callable[..., Any], model: str, local_files_only: bool, *, is_pipeline: bool = False) -> Any:
    """Load from a folder or the Hub's cache; else download, after the license and the size were logged."""
    place, revision = split_revision(model)
    always = {"use_safetensors": True, "trust_remote_code": False, "revision": revision}
    with _quiet_libraries():
        if Path(place).is_dir():
            return load(place, **always)
        if place.startswith((".", "/", "~")) or place.count("/") != 1:
            raise ModelError(f"model {place!r}: no such folder; wanted one, or an id of the Hub such as OWNER/NAME")
        try:
            with quiet("diffusers", "transformers", "huggingface_hub", level=100):
                return load(place, local_files_only=True, **always)
        except OSError:
            if local_files_only:
                raise
        announce_download(place, revision, is_pipeline=is_pipeline)
        watch_hub_locks()
        return load(place, **always)


def require_mask_input(pipeline: Any, model: str, *, wanted: bool) -> None:
    """Refuse a FLUX model that takes a mask where none is given, or takes none where one is.

    Both are pipelines with the same components, so they load; the first view that runs would end in torch's words.

    Raises:
        ModelError: the model is of the other kind.
    """
    taken, given = pipeline.transformer.config.in_channels, pipeline.transformer.out_channels
    if wanted and taken <= given:
        raise ModelError(f"model {model!r}: it takes no mask; wanted a model such as black-forest-labs/FLUX.1-Fill-dev")
    if not wanted and taken > given:
        raise ModelError(f"model {model!r}: it takes more than an image; wanted black-forest-labs/FLUX.1-dev or alike")


def _prepared(pipeline: Any, loading: LoadingOptions, device: torch.device) -> Any:
    """The pipeline on its device, with the savings of memory that were asked for."""
    pipeline.set_progress_bar_config(disable=True)
    if loading.attention_slicing:
        pipeline.enable_attention_slicing()
    vae: Any = getattr(pipeline, "vae", None)
    if loading.vae_slicing and hasattr(vae, "enable_slicing"):
        vae.enable_slicing()
    if loading.vae_tiling and hasattr(vae, "enable_tiling"):
        vae.enable_tiling()
    if device.type == "cpu" or loading.offload == "none":
        return pipeline.to(device)
    if loading.offload == "model":
        pipeline.enable_model_cpu_offload(device=device)
    else:
        pipeline.enable_sequential_cpu_offload(device=device)
    return pipeline


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """No progress bars and no warnings of deprecation while weights are read; those of downloads stay as they are."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    modules = [sys.modules[f"{name}.utils.logging"] for name in ("diffusers", "transformers") if name in sys.modules]
    shown = [module for module in modules if module.is_progress_bar_enabled()]
    set_downloads = disable_progress_bars if are_progress_bars_disabled() else enable_progress_bars
    for module in shown:
        module.disable_progress_bar()
    set_downloads()  # transformers switches them too
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the libraries' calls of each other
            yield
    finally:
        for module in shown:
            module.enable_progress_bar()
        set_downloads()
