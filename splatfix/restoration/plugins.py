"""Restorers of other distributions, found by their entry points in the group ``splatfix.restorers``.

A distribution declares one in its ``pyproject.toml``; the value is a `RestorerFactory`::

    [project.entry-points."splatfix.restorers"]
    sharpen = "sharpen_restorer:SHARPEN"

A plugin is imported when its restorer is asked for, so a broken one affects no other restorer.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import is_dataclass
from importlib.metadata import entry_points
from typing import Any

from splatfix.restoration.restorer import RestorerFactory

GROUP = "splatfix.restorers"


def plugin_names() -> list[str]:
    """The names of all installed plugins, sorted; none is imported."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def find_plugin(name: str, built_in: Collection[str]) -> RestorerFactory | None:
    """The factory that a plugin declares under a name; None if there is no such plugin.

    Raises:
        ValueError: the name is built in or declared twice, the plugin cannot be imported, or its value is not a
            `RestorerFactory`; one line names the distributions.
    """
    points = sorted(entry_points(group=GROUP, name=name), key=_distribution)
    if not points:
        return None
    sources = " and ".join(_distribution(point) for point in points)
    if name in built_in:
        raise ValueError(
            f"restorer {name!r}: built into splatfix, but {sources} declares the same name; uninstall it, "
            "or have it declare another name"
        )
    if len(points) > 1:
        raise ValueError(f"restorer {name!r}: declared by {sources}; uninstall all but one of them")
    return _load(points[0])


def _load(point: Any) -> RestorerFactory:
    try:
        factory = point.load()
    except Exception as error:  # third-party code may raise anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(
            f"restorer {point.name!r}: {point.value} of {_distribution(point)} cannot be imported ({reason})"
        ) from error
    if not isinstance(factory, RestorerFactory) or not is_dataclass(factory.options):
        raise ValueError(
            f"restorer {point.name!r}: {point.value} of {_distribution(point)} is {factory!r}; "
            "wanted a splatfix.restoration.RestorerFactory with a dataclass of options"
        )
    return factory


def _distribution(point: Any) -> str:  # Any: the backport importlib_metadata, once imported, puts its own type in place
    if point.dist is None:
        return "an unknown distribution"
    return f"the distribution {point.dist.name} {point.dist.version}"
