"""Failures of model libraries and of the Hugging Face Hub, each as one line with its remedy."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import torch

from splatfix.extras import describe_missing
from splatfix.restoration.hub_errors import causes_by_type, describe_refusal, shorten

MEMORY_REMEDY = (
    "set loading.offload: model (or sequential), loading.quantization, a smaller loading.views_per_batch, "
    "loading.vae_tiling: true, or a smaller size.max_side_px"
)


class ModelError(ValueError):
    """A model that cannot be loaded or run; one line with the remedy."""


def require_packages(*names: str, remedy: str | None = None, user: str = "this restorer") -> None:
    """Refuse to continue without packages; ValueError with how to install them: ``remedy``, or their extra.

    ``user`` names what needs them.
    """
    for name in names:
        if find_spec(name) is None and remedy is None:
            raise ModelError(describe_missing(name, user))
        if find_spec(name) is None:
            raise ModelError(f"the package {name} is not installed, and {user} needs it: {remedy}")


@contextmanager
def explain(model: str) -> Iterator[None]:
    """Raise any failure to load a model as a `ModelError` that names it."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:  # safetensors and the Hub's client derive some of theirs from Exception
        raise ModelError(describe(error, model)) from error


@contextmanager
def explain_call(model: str) -> Iterator[None]:
    """Raise a lack of GPU memory, and arguments that a pipeline refuses, as a `ModelError`; the rest stays as it is."""
    try:
        yield
    except ModelError:
        raise
    except torch.OutOfMemoryError as error:
        raise ModelError(describe(error, model)) from error
    except (ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"model {model!r}: its pipeline failed: {shorten(error)}; check its options") from error


def describe(error: BaseException, model: str) -> str:
    """One line: what is wrong with a model and what to do."""
    place, causes = model.partition("@")[0], causes_by_type(error)
    refused = describe_refusal(error, "model", model, lambda reason: no_network(place, reason))
    if refused is not None:
        return refused
    if "OutOfMemoryError" in causes:
        return f"model {model!r}: not enough GPU memory; {MEMORY_REMEDY}"
    if "SafetensorError" in causes:
        return f"model {model!r}: a weights file is broken ({shorten(error)}); delete it and download it again"
    package = _missing_package(causes)
    if package is not None:
        return f"model {model!r}: the package {package} is not installed; pip install {package}"
    if "LocalEntryNotFoundError" in causes:
        return no_network(place, "loading.local_files_only forbids downloads; set it to false")
    wanted = f"; wanted {WANTED}" if {"OSError", "ValueError"} & causes.keys() else ""
    return f"model {model!r}: cannot be loaded: {shorten(error)}{wanted}"


WANTED = "an id of the Hub or a folder as save_pretrained writes it, with its weights as .safetensors"


def no_network(place: str, reason: str) -> str:
    """The message for a model that is not on this machine and cannot be downloaded."""
    from splatfix.restoration.flux.hub import KNOWN, cache_folder

    known = f" ({KNOWN[place].shown})" if place in KNOWN else ""
    return (
        f"model {place!r}{known}: not in the cache {cache_folder()}, and {reason}, or copy a folder that "
        f"`hf download {place} --local-dir FOLDER` wrote elsewhere and give its path"
    )


def _missing_package(causes: dict[str, BaseException]) -> str | None:
    missing = causes.get("PackageNotFoundError") or causes.get("ModuleNotFoundError")
    if isinstance(missing, importlib.metadata.PackageNotFoundError):
        return str(missing.name)
    return missing.name if isinstance(missing, ModuleNotFoundError) else None
