"""Quantized loading, by the packages that are installed for it."""

from __future__ import annotations

from typing import Any

import torch

from splatfix.restoration.flux.failures import require_packages
from splatfix.restoration.flux.options import LoadingOptions


def quantization_config(loading: LoadingOptions, dtype: torch.dtype) -> Any:
    """The configuration that a pipeline's ``from_pretrained`` takes.

    Raises:
        ValueError: the package for it is not installed.
    """
    from diffusers import PipelineQuantizationConfig

    package, _, kind = loading.quantization.partition("-")
    require_packages(package, remedy=f"pip install {package}")
    if package == "torchao":
        return PipelineQuantizationConfig(quant_mapping=_torchao(loading.quantized, kind))
    settings: dict[str, Any] = {"load_in_8bit": True}
    if kind == "4bit":
        settings = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": dtype}
    return PipelineQuantizationConfig(
        quant_backend=f"bitsandbytes_{kind}", quant_kwargs=settings, components_to_quantize=list(loading.quantized)
    )


def _torchao(components: tuple[str, ...], kind: str) -> dict[str, Any]:
    """By component. Text encoders are those of transformers, which has its own class of configuration."""
    import diffusers
    import transformers
    from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig

    weights = Int8WeightOnlyConfig() if kind == "int8" else Float8WeightOnlyConfig()
    return {
        name: (transformers if name.startswith("text_encoder") else diffusers).TorchAoConfig(weights)
        for name in components
    }
