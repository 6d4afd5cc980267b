"""Messages for users: one line of bounded length, without control characters and without credentials."""

from __future__ import annotations

import math
import re
from typing import Any

MAX_CHARACTERS = 500  # of a message
KEPT_END = 140  # characters at the end of a message that is cut, since errors end with the remedy
CUT = " [...] "

_USER_INFO = re.compile(  # user:password@, where a number after the colon is a port, or user@
    r"""(?<=://)(?:[^/?#\s@:"'<>]{0,500}:(?!\d+(?:[/?#]|$))[^\s"'<>]{0,500}?|[^/?#\s@"'<>]{0,500})@"""
    r"""(?=[^@/?#]{0,500}(?:[/?#\s"'<>]|$))"""
)
_SECRET_FIELD = re.compile(
    r"(?<=[?&;#])([\w.%-]*(?:token|sig|key|secret|pass|pwd|credential|auth)[\w.%-]*)=[^&#\s;\"'<>]*", re.IGNORECASE
)


def readable(text: str, max_characters: int = MAX_CHARACTERS) -> str:
    """Make a text of any origin safe to show in one line of at most so many characters.

    Control characters, line breaks and other characters that are not printable are escaped, as they come from names
    and contents of files and would control the terminal. Credentials in URLs are hidden, and the middle is cut.
    """
    text = without_secrets(text)
    if len(text) > 2 * max_characters:
        text = text[:max_characters] + text[-max_characters:]
    escaped = "".join(each if each.isprintable() else _escape(each) for each in text)
    if len(escaped) <= max_characters:
        return escaped
    return escaped[: max_characters - KEPT_END - len(CUT)] + CUT + escaped[-KEPT_END:]


def readable_lines(text: str, max_characters: int = MAX_CHARACTERS) -> str:
    """Make each line of a text `readable`."""
    return "\n".join(readable(line, max_characters) for line in text.split("\n"))


def rough_duration(seconds: float) -> str:
    """Format an estimated duration, rounded: ``under 1 s``, ``40 s``, ``6 min``, ``1 h 10 min``, ``3 days``."""
    if seconds < 1:
        return "under 1 s"
    if seconds < 90:
        return f"{round(seconds) if seconds < 20 else 5 * round(seconds / 5)} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        hours, rest = divmod(5 * round(minutes / 5), 60)
        return f"{hours} h {rest} min" if rest else f"{hours} h"
    return f"{minutes / 60 / 24:.1f} days"


def format_bytes(num: float) -> str:
    """Format a number of bytes: ``820 bytes``, ``3.2 MB``, ``1.5 GB``."""
    if num < 1000:
        return f"{num:.0f} bytes"
    power = min(int(math.log10(num) // 3), 4)
    value = num / 1000**power
    return f"{value:.{0 if value >= 100 else 1}f} {('', 'kB', 'MB', 'GB', 'TB')[power]}"


def without_secrets(text: str) -> str:
    """Remove user names and passwords from the URLs in a text, and the values of query fields that hold credentials.

    A store gets the URL as the user gave it; what is written to files or shown has passed through here.
    """
    if "://" not in text:
        return text
    return _SECRET_FIELD.sub(r"\1=***", _USER_INFO.sub("", text))


def hide_secrets(tree: Any) -> Any:
    """Copy nested lists and mappings, with the credentials in their texts removed (`without_secrets`)."""
    if isinstance(tree, dict):
        return {key: hide_secrets(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [hide_secrets(value) for value in tree]
    return without_secrets(tree) if isinstance(tree, str) else tree


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
