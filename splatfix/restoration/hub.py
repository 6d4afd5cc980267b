"""Restorers on the Hugging Face Hub: their commits, and copies of their files.

A branch or tag is resolved to its commit when a command starts (`pin_place`), and the commit is what a run records. The
files of a commit are copied into the Hub's own cache, where they appear whole; one that is there is never asked for
again, also without a network. Only ``config.json`` and safetensors are read: nothing is unpickled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from splatfix.deadlines import call_within
from splatfix.errors import is_disk_full
from splatfix.process import log, quiet
from splatfix.restoration.hub_errors import causes_by_type, describe_refusal, http_status, is_unreachable, shorten
from splatfix.restoration.hub_locks import watch_hub_locks
from splatfix.restoration.hub_places import COMMIT, HubPlace

CONFIG = "config.json"
MAX_BYTES = {".json": 2**24, ".safetensors": 2**33}  # of a file, by the end of its name; others are not read
ANSWER_SECONDS = 30.0  # in which the Hub has to answer a question
READ_SECONDS = 10.0  # between two parts of an answer
LEAST_BYTES_PER_SECOND = 20_000  # of a download; a slower one is given up
Answer = TypeVar("Answer")


def pin_place(place: HubPlace) -> HubPlace:
    """The same place with the commit that its revision is now, or that the cache has of it if the Hub cannot be asked.

    The cache then has its ``config.json``, and knows the commit of the revision.

    Raises:
        ValueError: no such restorer, or the Hub cannot be asked and the cache does not have it; with the remedy.
    """
    if place.is_pinned:
        return place
    try:
        with explaining(place):
            commit = _ask(place, CONFIG).commit_hash
    except HubError as error:
        cached = _cached_commit(place) if error.__cause__ is not None and is_unreachable(error.__cause__) else None
        if cached is None:
            raise
        log.info("%s: the Hub cannot be asked for the newest commit; using %s of the cache", place, cached[:12])
        return HubPlace(place.repo, cached)
    if commit is None or not COMMIT.fullmatch(commit):
        raise HubError(f"restorer '{place}': the server does not name the commit as the Hub does; check HF_ENDPOINT")
    pinned = HubPlace(place.repo, commit)
    _fetch_file(pinned, CONFIG)
    if _cached_commit(place) != commit:
        with explaining(place):
            _download(place, CONFIG, 0)  # nothing but the commit of the revision
    return pinned


def fetch(place: HubPlace, files: Sequence[str]) -> Path:
    """The folder in the Hub's cache with these files of a place; those that are not there are downloaded.

    The size of each is checked before. ``config.json`` is always fetched.

    Raises:
        ValueError: the Hub refuses, does not answer, or has no such file, or one that is too large; with the remedy.
    """
    pinned = pin_place(place)
    wanted = [CONFIG, *(name for name in files if name != CONFIG and Path(name).suffix in MAX_BYTES)]
    paths = [_fetch_file(pinned, name) for name in wanted]
    return paths[0].parent


class HubError(ValueError):
    """A restorer that the Hub does not give; one line with the remedy."""


@contextmanager
def explaining(place: HubPlace) -> Iterator[None]:
    """Raise what the Hub's client raises as a `HubError`; a full disk stays what it is."""
    watch_hub_locks()
    try:
        with quiet("huggingface_hub", level=100):  # it logs each failed try; the error below says it once
            yield
    except HubError:
        raise
    except Exception as error:  # the client raises dozens of types
        if is_disk_full(error):
            raise
        raise HubError(_describe(error, place)) from error


def ask_within(call: Callable[[], Answer], *, num_bytes: int = 0) -> Answer:
    """Ask the Hub something, and give it up after `ANSWER_SECONDS` and the time for so many bytes: DeadlineError.

    Its client has no limit for an answer that comes byte by byte.
    """
    return call_within(ANSWER_SECONDS + num_bytes / LEAST_BYTES_PER_SECOND, call)


def cache_folder() -> str:
    """Where the Hub's client keeps what it downloads."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return str(HF_HUB_CACHE)


def _describe(error: BaseException, place: HubPlace) -> str:
    def absent(reason: str) -> str:
        return (
            f"restorer '{place}': not in the cache {cache_folder()}, and {reason}, or copy a folder that "
            f"`hf download {place.repo} --local-dir FOLDER` wrote elsewhere and give its path"
        )

    refused = describe_refusal(error, "restorer", str(place), absent)
    if refused is not None:
        return refused
    if "RemoteEntryNotFoundError" in causes_by_type(error):
        return f"restorer '{place}': its repository has no {CONFIG} or weights; wanted one that splatfix push wrote"
    status = http_status(error)
    if status is None:
        return f"restorer '{place}': cannot be downloaded ({shorten(error)}); run the same command again"
    if status in (401, 403):
        return (
            f"restorer '{place}': the Hub refuses your token ({status}); log in with `hf auth login`, or set HF_TOKEN "
            "to one with the rights for it"
        )
    return f"restorer '{place}': the Hub answers with an error ({status}); try again later"


def _ask(place: HubPlace, file: str) -> Any:
    """What the Hub says of a file: its commit and its size; asked once."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(place.repo, file, revision=place.revision)
    return ask_within(lambda: get_hf_file_metadata(url, timeout=READ_SECONDS))


def _fetch_file(place: HubPlace, file: str) -> Path:
    cached = _find_cached(place, file)
    if cached is not None:
        _check_size(place, file, cached.stat().st_size)
        return cached
    with explaining(place):
        size = _ask(place, file).size
        _check_size(place, file, size)
        if size > 2**20:
            log.info("%s: downloading %s, %.1f MB, into %s", place, file, size / 1e6, cache_folder())
        return _download(place, file, size)


def _download(place: HubPlace, file: str, size: int) -> Path:
    from huggingface_hub import hf_hub_download

    def download() -> str:
        return hf_hub_download(place.repo, file, revision=place.revision, etag_timeout=READ_SECONDS)

    return Path(ask_within(download, num_bytes=size))


def _check_size(place: HubPlace, file: str, size: int | None) -> None:
    limit = MAX_BYTES[Path(file).suffix]
    if size is None:
        raise HubError(f"restorer '{place}': the server does not say how large {file} is; check HF_ENDPOINT")
    if size > limit:
        raise HubError(f"restorer '{place}': {file} has {size} bytes: wanted at most {limit}; is it a restorer?")


def _find_cached(place: HubPlace, file: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(place.repo, file, revision=place.revision)
    return Path(found) if isinstance(found, str) and Path(found).is_file() else None


def _cached_commit(place: HubPlace) -> str | None:
    found = _find_cached(place, CONFIG)
    return found.parent.name if found is not None and COMMIT.fullmatch(found.parent.name) else None
