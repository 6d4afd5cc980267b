"""Recheck a folder of pairs, and make what is broken again: what ``splatfix verify`` does."""

from __future__ import annotations

from collections.abc import Callable

from splatfix import storage
from splatfix.lease import hold_lease
from splatfix.pairs.config import read_settings
from splatfix.pairs.generate import Summary, generate
from splatfix.pairs.provenance import describe_mix
from splatfix.pairs.verify import repair, verify
from splatfix.process import progress


def recheck(url: str, *, repairs: bool, report: Callable[[str], object]) -> Summary | None:
    """Verify all files; with ``repairs``, drop what is broken and make it again.

    ``report`` is called with lines that say what was found.

    Returns:
        The counts of what was made again; None if nothing was broken.

    Raises:
        ValueError: something is broken and is not to be repaired, or pairs are being generated there.
    """
    with progress(description="files") as bar:
        found = verify(url, on_file=bar.update)
    for problem in found.problems:
        report(problem)
    report(f"{found.num_shards} intact shards with {found.num_samples} pairs, {len(found.problems)} problems")
    if len(found.makers) > 1:
        report(f"made differently: {describe_mix(found.makers)}")
    if not found.problems:
        return None
    if not repairs:
        raise ValueError(f"{url}: {len(found.problems)} problems; --repair drops what is broken and makes it again")
    with hold_lease(storage.absolute(url), "splatfix verify --repair"):
        dropped = repair(url, found)
    report(f"dropped {len(found.broken)} fits and {len(found.unlisted)} unlisted files")
    if not dropped:
        return Summary()
    summary = generate((), url, read_settings(url))
    for line in summary.text().splitlines():
        report(line)
    return summary
