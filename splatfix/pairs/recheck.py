"""Recheck a folder of pairs, and make what is broken again: what ``splatfix verify`` does."""

from __future__ import annotations

from collections.abc import Callable

from splatfix.pairs.config import read_settings
from splatfix.pairs.generate import generate
from splatfix.pairs.verify import repair, verify
from splatfix.process import progress


def recheck(url: str, *, repairs: bool, report: Callable[[str], object]) -> bool:
    """Verify all files; with ``repairs`` drop what is broken and make it again. Whether something was dropped.

    ``report`` is called with lines that say what was found.

    Raises:
        ValueError: something is broken, and is not to be repaired.
    """
    with progress(description="files") as bar:
        found = verify(url, on_file=bar.update)
    for problem in found.problems:
        report(problem)
    report(f"{found.num_shards} intact shards with {found.num_samples} pairs, {len(found.problems)} problems")
    if not found.problems:
        return False
    if not repairs:
        raise ValueError(f"{url}: {len(found.problems)} problems; --repair drops what is broken and makes it again")
    dropped = repair(url, found)
    report(f"dropped {len(found.broken)} fits and {len(found.unlisted)} unlisted files")
    if dropped:
        report(generate((), url, read_settings(url)).text())
    return True
