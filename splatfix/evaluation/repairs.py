"""``repairs.json``: what the loop did to each repaired view before it trained on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from splatfix.color_fit import Channels, ColorForm
from splatfix.evaluation.results import REMEDY
from splatfix.files import read_json, write_json
from splatfix.records import parse_record

REPAIRS = "repairs.json"
SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class ColorCorrection:
    """The color map of a repaired view: ``trained on = gain * repaired + bias``, the gain for gray.

    Attributes:
        form: of the map (`splatfix.color_fit.ColorFit`); ``identity`` where there was too little to fit.
        gain: per channel, without unit.
        bias: per channel, in [0, 1] sRGB.
        inlier_share: share of the reliable pixels that the map explains, in [0, 1].
    """

    form: ColorForm
    gain: Channels
    bias: Channels
    inlier_share: float


@dataclass(frozen=True, kw_only=True)
class RepairRecord:
    """One repaired view.

    Attributes:
        round: its round, from 1.
        name: of its camera.
        color: the map of its colors; None without ``repair.color_fit``.
        confidence: mean trust in its pixels, in [0, 1].
    """

    round: int
    name: str
    color: ColorCorrection | None
    confidence: float


@dataclass(frozen=True, kw_only=True)
class Repairs:
    """The whole of ``repairs.json``."""

    schema: int
    views: tuple[RepairRecord, ...]


def write_repairs(folder: Path, records: Sequence[RepairRecord]) -> None:
    """Write ``repairs.json`` into a run folder."""
    write_json(Path(folder) / REPAIRS, asdict(Repairs(schema=SCHEMA, views=tuple(records))))


def read_repairs(folder: Path) -> tuple[RepairRecord, ...]:
    """Read ``repairs.json`` of a run folder; nothing where it does not exist. ValueError where it is broken."""
    path = Path(folder) / REPAIRS
    if not path.is_file():
        return ()
    return parse_record(Repairs, read_json(path), source=str(path), remedy=REMEDY, schema=SCHEMA).views
