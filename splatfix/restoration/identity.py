"""Which files decide what a restorer does: a run records their digest, and is not resumed with others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from splatfix import storage
from splatfix.files import hash_text
from splatfix.restoration import RestorerChoice, identify_restorer, is_name
from splatfix.restoration.checkpoint import find_checkpoint, read_training_scenes
from splatfix.restoration.hub import pin_place
from splatfix.restoration.hub_places import parse_place
from splatfix.restoration.nafnet import SHIPPED_WEIGHTS
from splatfix.runs import Input, files_input

WEIGHTS = "*.safetensors"

TRAINED_HERE = "its gain here says nothing about other captures"  # the end of a note; comparisons repeat such notes


def describe_training_overlap(restorer: str | RestorerChoice, capture: str) -> list[str]:
    """A note that a restorer was trained on a capture, by their names; none where it was not, or does not say.

    Its gain on such a capture says nothing about others.
    """
    name = RestorerChoice.of(restorer).name
    place: str | Path = SHIPPED_WEIGHTS if name == "nafnet" else name
    if (is_name(name) and name != "nafnet") or capture not in read_training_scenes(place):
        return []
    return [f"the restorer {name} was trained on {capture}: {TRAINED_HERE}"]


def restorer_input(restorer: str | RestorerChoice | None) -> dict[str, Input]:
    """The files that decide what a restorer does, as an input of the run; empty where its name and options suffice.

    They are the weights in its folder, the commit on the Hub, or what `RestorerFactory.identify` says: the program of
    ``command``.
    """
    if restorer is None:
        return {}
    choice = RestorerChoice.of(restorer)
    if is_name(choice.name):
        content = identify_restorer(choice)
        return {"restorer": Input(path=choice.name, digest=hash_text(content))} if content else {}
    if (place := parse_place(choice.name)) is not None:
        pinned = str(pin_place(place))
        return {"restorer": Input(path=pinned, digest=hash_text(pinned))}
    is_here = storage.is_local(choice.name)
    folder = Path(choice.name) if is_here else find_checkpoint(choice.name, [WEIGHTS])
    weights = sorted(folder.glob(f"**/{WEIGHTS}")) if folder.is_dir() else []
    if not weights:
        return {}
    found = files_input(folder, weights)
    return {"restorer": found if is_here else replace(found, path=choice.name)}
