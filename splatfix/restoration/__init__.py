"""Restorers: flawed views in, repaired views out (see `Restorer`).

A restorer is a factory in `RESTORERS`, or in another distribution (see `plugins`). A trained one is a checkpoint
folder, whose kind is one of `KINDS`. Each family of networks has a folder here, with a front door in its
``__init__.py`` that imports torch alone; opening a network imports the rest.
"""

from __future__ import annotations

import difflib
import logging
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import torch

from splatfix.restoration import command, flux, nafnet
from splatfix.restoration.baselines import Bilateral, Identity, Warp
from splatfix.restoration.choice import RestorerChoice
from splatfix.restoration.hub_places import PREFIX, parse_place
from splatfix.restoration.plugins import find_plugin, plugin_names
from splatfix.restoration.restorer import CheckpointKind, Repaired, Restorer, RestorerFactory

__all__ = [
    "KINDS",
    "RESTORERS",
    "Repaired",
    "Restorer",
    "RestorerChoice",
    "RestorerFactory",
    "absolute_choice",
    "identify_restorer",
    "is_name",
    "open_restorer",
    "pin_choice",
    "restorer_options",
]

log = logging.getLogger(__name__)


def _baseline(options: Restorer, device: torch.device) -> Restorer:  # noqa: ARG001
    """A baseline holds its own options and follows the device of the views."""
    return options


RESTORERS: dict[str, RestorerFactory] = {
    "identity": RestorerFactory(options=Identity, open=_baseline),
    "classical": RestorerFactory(options=Bilateral, open=_baseline),
    "warp": RestorerFactory(options=Warp, open=_baseline),
    "nafnet": RestorerFactory(options=nafnet.NafnetOptions, open=nafnet.open_shipped),
    "flux-controlnet": RestorerFactory(options=flux.FluxControlnetOptions, open=flux.open_controlnet),
    "img2img": RestorerFactory(options=flux.Img2imgOptions, open=flux.open_img2img),
    "flux-fill": RestorerFactory(options=flux.FluxFillOptions, open=flux.open_fill),
    "command": RestorerFactory(
        options=command.CommandOptions, open=command.open_command, identify=command.identify_program
    ),
}

KINDS: dict[str, CheckpointKind] = {
    "nafnet": nafnet.KIND,
}


def open_restorer(choice: str | Path | RestorerChoice, device: torch.device | str = "auto") -> Restorer:
    """Open a restorer by name, or from a checkpoint folder, a training run or the Hugging Face Hub.

    Raises:
        ValueError: neither a known name (they are listed) nor a checkpoint of a known kind, or options that the
            restorer does not have or refuses.
    """
    choice = RestorerChoice.of(pin_choice(choice))
    options = restorer_options(choice)
    return _find_factory(choice.name).open(options, _choose(device))


def _choose(device: torch.device | str) -> torch.device:
    from splatfix.process import choose_device

    return choose_device(device, renders=False) if isinstance(device, str) else device


def restorer_options(choice: str | Path | RestorerChoice) -> Any:
    """The options of a choice as the restorer's own dataclass, defaults filled in. Opens no network.

    Raises:
        ValueError: no such restorer, an option that it does not have (all are listed), or a value that it refuses.
    """
    from splatfix.config import build_config

    choice = RestorerChoice.of(choice)
    kind = _find_factory(choice.name).options
    known = [field.name for field in fields(kind)]
    for name in choice.options:
        if name not in known:
            hint = f"known: {', '.join(known)}" if known else "it has no options"
            raise ValueError(f"restorer {choice.name!r}: unknown option {name!r}; {hint}")
    return build_config(kind, choice.options, source=f"restorer {choice.name!r}")


def identify_restorer(choice: str | Path | RestorerChoice) -> str:
    """What decides the results of a choice besides its name and options, as text; empty for nothing.

    Weights in a folder are not meant: see `identity.restorer_input`.
    """
    choice = RestorerChoice.of(choice)
    return _find_factory(choice.name).identify(restorer_options(choice))


def is_name(name: str) -> bool:
    """Whether this is the name of a restorer, also of a plugin; else it is a folder, a URL or hf:USER/NAME."""
    return name in RESTORERS or name in plugin_names()


def pin_choice(choice: str | Path | RestorerChoice) -> str | RestorerChoice:
    """The same choice for any time: of a restorer on the Hub, the commit is named; others stay as they are.

    Raises:
        ValueError: the Hub has no such restorer, or cannot be asked and the cache does not have it.
    """
    known = RestorerChoice.of(choice)
    place = None if is_name(known.name) else parse_place(known.name)
    if place is None:
        return known.short
    from splatfix.restoration.hub import pin_place

    if not known.name.startswith(PREFIX):
        log.info("%s: no such folder here; asking the Hugging Face Hub", known.name)
    return RestorerChoice(name=str(pin_place(place)), options=known.options).short


def absolute_choice(choice: str | RestorerChoice) -> str | RestorerChoice:
    """The same choice for any working directory and time: a path becomes absolute, and the Hub's commit is named.

    Errors as of `pin_choice`.
    """
    known = RestorerChoice.of(choice)
    if is_name(known.name) or not Path(known.name).is_dir():
        return pin_choice(choice)
    return RestorerChoice(name=str(Path(known.name).resolve()), options=known.options).short


def _find_factory(name: str) -> RestorerFactory:
    if (plugin := find_plugin(name, RESTORERS)) is not None:
        return plugin
    if name in RESTORERS:
        return RESTORERS[name]
    if "/" in name or "\\" in name or Path(name).exists() or parse_place(name) is not None:
        from splatfix.restoration.checkpoint import read_kind

        kind = KINDS[read_kind(name, KINDS)]
        return RestorerFactory(options=kind.options, open=partial(kind.open, name))
    known = [*RESTORERS, *plugin_names()]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}? Wanted" if near else "wanted"
    raise ValueError(
        f"restorer {name!r}: unknown; {hint} one of {', '.join(known)}, a checkpoint's folder, or hf:USER/NAME"
    )
