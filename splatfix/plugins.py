"""Extensions of other distributions, found by their entry points.

A plugin is imported when it is asked for by name, so a broken one affects nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any


@dataclass(frozen=True, kw_only=True)
class PluginGroup:
    """A kind of plugin.

    Attributes:
        group: of the entry points.
        noun: what one of them is called in messages.
        accepts: whether a value that a plugin declares is one of this kind.
        wanted: what such a value is, for messages.
    """

    group: str
    noun: str
    accepts: Callable[[Any], bool]
    wanted: str

    def names(self) -> list[str]:
        """The names of all installed plugins, sorted; none is imported."""
        return sorted({point.name for point in entry_points(group=self.group)})

    def find(self, name: str, built_in: Collection[str]) -> Any:
        """The value that a plugin declares under a name; None if there is no such plugin.

        Raises:
            ValueError: the name is built in or declared twice, the plugin cannot be imported, or its value is of
                another kind; one line names the distributions.
        """
        points = sorted(entry_points(group=self.group, name=name), key=_distribution)
        if not points:
            return None
        sources = " and ".join(_distribution(point) for point in points)
        if name in built_in:
            raise ValueError(
                f"{self.noun} {name!r}: built into splatfix, but {sources} declares the same name; uninstall it, "
                "or have it declare another name"
            )
        if len(points) > 1:
            raise ValueError(f"{self.noun} {name!r}: declared by {sources}; uninstall all but one of them")
        return self._load(points[0])

    def _load(self, point: Any) -> Any:
        place = f"{self.noun} {point.name!r}: {point.value} of {_distribution(point)}"
        try:
            value = point.load()
        except Exception as error:  # third-party code may raise anything
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise ValueError(f"{place} cannot be imported ({reason})") from error
        if not self.accepts(value):
            raise ValueError(f"{place} is {value!r}; wanted {self.wanted}")
        return value


def _distribution(point: Any) -> str:  # Any: the backport importlib_metadata, once imported, puts its own type in place
    if point.dist is None:
        return "an unknown distribution"
    return f"the distribution {point.dist.name} {point.dist.version}"
