"""Names and groups of scenes: equal in every run into an output, and one group for captures of the same photos."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from splatfix.messages import without_secrets
from splatfix.pairs.index import Index
from splatfix.pairs.sources import Source

log = logging.getLogger(__name__)


def keep_scene_names(sources: Sequence[Source], index: Index) -> list[Source]:
    """Give captures that already have fits in the output the scene names and groups of those fits.

    Raises:
        ValueError: the name of a scene belongs to another capture in the output, or its fits are in another group.
    """
    known: dict[str, tuple[str, str]] = {}  # scene and group by capture
    capture_by_scene: dict[str, str] = {}
    for fit in index.values():
        capture, scene = fit.record.get("capture"), fit.record.get("scene")
        if capture is not None and scene is not None:
            capture = without_secrets(capture)
            known[capture] = scene, fit.record.get("group", scene)
            capture_by_scene[scene] = capture
    named = []
    for source in sources:
        place = without_secrets(source.url)
        scene, group = known.get(place, (source.name, source.group))
        other = capture_by_scene.get(scene, place)
        if other != place:
            raise ValueError(
                f"{source.url}: the pairs in {index.url} already have a scene {scene!r}, from {other}; give this "
                "capture another name in a .yaml list"
            )
        wanted = group if source.group == source.name else source.group  # equal to the name: no group was requested
        if wanted != group:
            raise ValueError(
                f"{source.url}: its pairs in {index.url} are in the group {group!r}, now it is {wanted!r}; choose "
                "another --out, or give groups to the training instead (data.groups)"
            )
        named.append(replace(source, name=scene, group=group))
    return named


class DuplicateCheck:
    """Warns of captures that hold the same photos but are in different groups, once for each set of photos.

    Such photos would be trained on and validated on.
    """

    def __init__(self) -> None:
        self._scenes: dict[str, tuple[str, str]] = {}  # scene and group by fingerprint of the photos
        self._reported: set[str] = set()  # fingerprints

    def add(self, record: Mapping[str, Any]) -> None:
        """Compare the capture of a fit with those of earlier fits, by the record of the fit."""
        fingerprint, scene, group = record.get("fingerprint"), record.get("scene"), record.get("group")
        if not fingerprint or scene is None or group is None:
            return
        known_scene, known_group = self._scenes.setdefault(fingerprint, (scene, group))
        if known_group != group and fingerprint not in self._reported:
            self._reported.add(fingerprint)
            log.warning(
                "%s and %s hold the same photos, but are in the groups %s and %s: give them one group (groups:)",
                *(known_scene, scene, known_group, group),
            )
