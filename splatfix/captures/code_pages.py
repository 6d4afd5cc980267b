"""Restore image names that a model stores in the code page of the system on which it was made.

Names are read as UTF-8 with ``surrogateescape``, so that the bytes of others are kept. The code page is the one in
which the names are those of files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

CODE_PAGES = ("gb18030", "cp932", "big5", "cp949", "cp1252", "cp1250", "cp1251", "cp437", "mac_roman", "latin-1")


def is_utf8(name: str) -> bool:
    """Whether a name was UTF-8 in its file."""
    return name.isascii() or not any("\udc80" <= letter <= "\udcff" for letter in name)


def restore_names(names: Iterable[str], exists: Callable[[str], bool]) -> dict[str, str]:
    """Decode the names that are not UTF-8; returns each with its decoded name.

    Args:
        names: all names of a model, decoded with ``surrogateescape``.
        exists: whether there is an image file of a name.

    Returns:
        The names in the code page in which most of them exist; where none exists in any, in the first that can decode
        all. Empty if all names are UTF-8.
    """
    raw = [name for name in names if not is_utf8(name)]
    if not raw:
        return {}
    best: dict[str, str] = {}
    most = -1
    for page in CODE_PAGES:
        try:
            decoded = [name.encode(errors="surrogateescape").decode(page) for name in raw]
        except UnicodeDecodeError:
            continue
        num_found = sum(map(exists, decoded))
        if num_found > most:
            best, most = dict(zip(raw, decoded, strict=True)), num_found
        if most == len(raw):
            break
    return best
