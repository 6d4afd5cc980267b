"""Optional packages: what each extra of pyproject.toml is for, whether it is installed, and the line that installs it.

A module that needs an optional package imports it where it is used, without a check: `command_line` turns the
ModuleNotFoundError into one line (`explain_missing`). `require_modules` asks earlier: before hours of work, or where an
error of the import would be taken for another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Extra:
    """An extra.

    Attributes:
        serves: what one does with it.
        packages: the name in pyproject.toml of each package, by the module that is imported.
    """

    serves: str
    packages: Mapping[str, str]


EXTRAS: dict[str, Extra] = {
    "viewer": Extra(serves="view, export --format html", packages={"viser": "viser"}),
    "heic": Extra(serves="photos in HEIC", packages={"pillow_heif": "pillow-heif"}),
    "train": Extra(
        serves="generate, verify, train",
        packages={"accelerate": "accelerate", "timm": "timm", "webdataset": "webdataset"},
    ),
    "sweep": Extra(serves="sweep", packages={"optuna": "optuna", "sklearn": "scikit-learn"}),
    "tracking": Extra(serves="records in MLflow, sync", packages={"mlflow": "mlflow"}),
    "cluster": Extra(
        serves="several workers, submit, s3:// gs:// az://",
        packages={name: name for name in ("ray", "obstore", "aiohttp", "pandas", "pyarrow")},
    ),
    "diffusion": Extra(
        serves="restorers flux-controlnet, flux-fill, img2img, --initial.depth-model",
        packages={
            **{name: name for name in ("diffusers", "transformers", "sentencepiece")},
            "cv2": "opencv-python-headless",
        },
    ),
}


class MissingPackageError(ValueError):
    """Raised when an optional package is needed and not installed; one line with the remedy."""


def install_line(extra: str) -> str:
    """The command that installs an extra: of the clone that splatfix is imported from, else of the package."""
    is_clone = (Path(__file__).parents[1] / "pyproject.toml").is_file()
    return f"pip install -e '.[{extra}]'" if is_clone else f"pip install 'splatfix[{extra}]'"


def is_installed(module: str) -> bool:
    """Whether a module can be imported; it is not imported."""
    return find_spec(module) is not None


def missing_packages(extra: str) -> list[str]:
    """The packages of an extra that are not installed, by the names that pip knows; nothing is imported."""
    return [package for module, package in EXTRAS[extra].packages.items() if not is_installed(module)]


def describe_missing(module: str, user: str = "this") -> str:
    """The message for a module of an extra that is not installed. ``user`` names what needs it."""
    extra = _extra_of(module)
    assert extra is not None, f"{module} is in no extra"
    package = EXTRAS[extra].packages[module]
    return f"the package {package} is not installed, and {user} needs it: {install_line(extra)}"


def require_modules(*modules: str, user: str = "this", otherwise: str = "") -> None:
    """Refuse to continue without modules of extras. MissingPackageError if one is not installed.

    ``otherwise`` is what works without it, for the message.
    """
    for module in modules:
        if not is_installed(module):
            raise MissingPackageError(describe_missing(module, user) + (otherwise and f" ({otherwise})"))


def explain_missing(error: BaseException, user: str) -> str | None:
    """The message for the failed import of a module of an extra; None for any other error."""
    if not isinstance(error, ModuleNotFoundError) or error.name is None:
        return None
    module = error.name.partition(".")[0]
    if _extra_of(module) is None or is_installed(module):  # a part of it that this version lacks
        return None
    return describe_missing(module, user)


def _extra_of(module: str) -> str | None:
    return next((name for name, extra in EXTRAS.items() if module in extra.packages), None)
