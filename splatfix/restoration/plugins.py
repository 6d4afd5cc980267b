"""Restorers of other distributions, found by their entry points in the group ``splatfix.restorers``.

A distribution declares one in its ``pyproject.toml``; the value is a `RestorerFactory`::

    [project.entry-points."splatfix.restorers"]
    sharpen = "sharpen_restorer:SHARPEN"
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import is_dataclass

from splatfix.plugins import PluginGroup
from splatfix.restoration.restorer import RestorerFactory

GROUP = PluginGroup(
    group="splatfix.restorers",
    noun="restorer",
    accepts=lambda value: isinstance(value, RestorerFactory) and is_dataclass(value.options),
    wanted="a splatfix.restoration.RestorerFactory with a dataclass of options",
)


def plugin_names() -> list[str]:
    """The names of all installed plugins, sorted; none is imported."""
    return GROUP.names()


def find_plugin(name: str, built_in: Collection[str]) -> RestorerFactory | None:
    """The factory that a plugin declares under a name; None if there is none. Errors as of `PluginGroup.find`."""
    return GROUP.find(name, built_in)
