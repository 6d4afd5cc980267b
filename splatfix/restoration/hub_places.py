"""Names of restorers on the Hugging Face Hub: ``hf:USER/NAME`` or ``hf:USER/NAME@REVISION``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

PREFIX = "hf:"
WANTED = "hf:USER/NAME or hf:USER/NAME@REVISION"
_NAME = r"[A-Za-z0-9](?:[\w.-]{0,94}[\w])?"
_PLACE = re.compile(rf"(?P<repo>{_NAME}/{_NAME})(?:@(?P<revision>[^\s@~^:?*\[\\]+))?")
COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubPlace:
    """A repository on the Hub, and which version of it is meant.

    Attributes:
        repo: its id, ``USER/NAME``.
        revision: a branch, tag or commit; None for the main branch.
    """

    repo: str
    revision: str | None = None

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a commit, which never changes."""
        return self.revision is not None and COMMIT.fullmatch(self.revision) is not None

    @property
    def name(self) -> str:
        """The name without its user."""
        return self.repo.split("/")[1]

    def __str__(self) -> str:
        return PREFIX + self.repo + ("" if self.revision is None else f"@{self.revision}")


def parse_place(text: str) -> HubPlace | None:
    """The place on the Hub that a restorer's name means; None for a folder, a URL or another name.

    A bare ``USER/NAME`` is one, too, where there is no folder ``USER`` here.

    Raises:
        ValueError: it begins with ``hf:`` and is not as wanted.
    """
    if not text.startswith(PREFIX):
        bare = re.fullmatch(r"[\w-]+/[\w.-]+", text) is not None and not Path(text).parent.exists()
        return HubPlace(text) if bare and _PLACE.fullmatch(text) else None
    match = _PLACE.fullmatch(text.removeprefix(PREFIX))
    if match is None or ".." in (match["revision"] or ""):
        raise ValueError(f"restorer {text!r}: wanted {WANTED}, such as hf:octocat/restorer@main")
    return HubPlace(match["repo"], match["revision"])
