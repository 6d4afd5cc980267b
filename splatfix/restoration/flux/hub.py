"""The Hugging Face Hub: ids, its cache, and what is said before a download starts."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from splatfix.restoration.flux.failures import ModelError, describe

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Download:
    """What a user should know before a model is downloaded.

    Attributes:
        license: its name.
        size_gb: of the files that are downloaded, in 10^9 bytes; None where it is unknown.
        gated: whether the license has to be accepted on its page first.
    """

    license: str
    size_gb: float | None
    gated: bool = False

    @property
    def shown(self) -> str:
        """As a part of a sentence."""
        size = "size unknown" if self.size_gb is None else f"about {self.size_gb:.3g} GB"
        return f"license {self.license}{', gated' if self.gated else ''}, {size}"


FLUX = "FLUX.1 [dev] Non-Commercial"
KNOWN: dict[str, Download] = {  # from the model cards and file lists on the Hub; used where it cannot be asked
    "black-forest-labs/FLUX.1-dev": Download(license=FLUX, size_gb=33.7, gated=True),
    "black-forest-labs/FLUX.1-Fill-dev": Download(license=FLUX, size_gb=33.7, gated=True),
    "black-forest-labs/FLUX.1-Kontext-dev": Download(license=FLUX, size_gb=33.7, gated=True),
    "black-forest-labs/FLUX.2-klein-4B": Download(license="Apache-2.0", size_gb=16.0),
    "InstantX/FLUX.1-dev-Controlnet-Canny": Download(license=FLUX, size_gb=3.58),
    "Shakker-Labs/FLUX.1-dev-ControlNet-Depth": Download(license=FLUX, size_gb=3.19),
    "Shakker-Labs/FLUX.1-dev-ControlNet-Union-Pro": Download(license=FLUX, size_gb=6.6),
    "Shakker-Labs/FLUX.1-dev-ControlNet-Union-Pro-2.0": Download(license=FLUX, size_gb=4.28),
    "depth-anything/Depth-Anything-V2-Small-hf": Download(license="Apache-2.0", size_gb=0.0992),
    "stabilityai/sd-turbo": Download(license="Stability AI Community", size_gb=5.2),
}


def split_revision(model: str) -> tuple[str, str | None]:
    """The place and the revision of ``PLACE@REVISION``; a folder has no revision."""
    if Path(model).is_dir():
        return model, None
    place, _, revision = model.partition("@")
    return place, revision or None


def cache_folder() -> str:
    """Where the Hub's client keeps what it downloads."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return str(HF_HUB_CACHE)


def announce_download(place: str, revision: str | None, *, is_pipeline: bool) -> None:
    """Log the license and the size of a model that is about to be downloaded.

    Raises:
        ValueError: the Hub cannot be reached, or it has no such model.
    """
    download = ask_hub(place, revision, is_pipeline=is_pipeline) or KNOWN.get(place)
    shown = download.shown if download else "license and size unknown"
    log.info("downloading %s (%s) into %s", place, shown, cache_folder())


def ask_hub(place: str, revision: str | None, *, is_pipeline: bool) -> Download | None:
    """The license and the size as the Hub states them; None where it does not answer properly.

    Raises:
        ValueError: the Hub cannot be reached, or it has no such model.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        info = HfApi().model_info(place, revision=revision, files_metadata=True, timeout=20)
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise ModelError(describe(error, f"{place}@{revision}" if revision else place)) from error
    except HfHubHTTPError:  # it answers, but not this question: the download may still work
        return None
    except Exception as error:  # of whichever HTTP client it uses
        raise ModelError(describe(error, place)) from error
    return Download(
        license=_license(info.card_data), size_gb=_size_gb(info.siblings or (), is_pipeline), gated=bool(info.gated)
    )


def _license(card: Any) -> str:
    name = getattr(card, "license", None) or "not stated"
    return getattr(card, "license_name", None) or "other" if name == "other" else str(name)


def _size_gb(files: Iterable[Any], is_pipeline: bool) -> float | None:
    """Size of the weights: a pipeline's are in folders, those of a single model are not."""
    sizes = [
        file.size or 0
        for file in files
        if file.rfilename.endswith(".safetensors")
        and ("/" in file.rfilename) == is_pipeline
        and file.rfilename.split("/")[-1].count(".") == 1  # two in those of variants, such as .fp16.safetensors
    ]
    return sum(sizes) / 1e9 if sizes else None
