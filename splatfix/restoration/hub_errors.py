"""What the Hugging Face Hub refuses, each as one line with its remedy. The names of models and restorers are theirs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

NO_NETWORK = {"ConnectError", "ConnectionError", "ConnectTimeout", "ReadTimeout", "ProxyError", "gaierror"}
NO_NETWORK |= {"TimeoutException", "NetworkError", "RemoteProtocolError", "DeadlineError"}
UNREACHABLE = "the Hub cannot be reached; check the network, HTTPS_PROXY and HF_ENDPOINT"


def causes_by_type(error: BaseException | None) -> dict[str, BaseException]:
    """The errors of a chain by the names of their types and base types; of several, the last one in the chain."""
    causes: dict[str, BaseException] = {}
    for cause in _chain(error):
        causes |= {kind.__name__: cause for kind in type(cause).__mro__}
    return causes


def http_status(error: BaseException) -> int | None:
    """The status that the Hub answered with; None where it did not answer."""
    for cause in _chain(error):
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if isinstance(status, int):
            return status
    return None


def is_unreachable(error: BaseException) -> bool:
    """Whether the Hub did not answer, is switched off, or failed itself: a copy in the cache may serve instead."""
    causes = causes_by_type(error)
    status = http_status(error)
    return bool(causes.keys() & (NO_NETWORK | {"OfflineModeIsEnabled"})) or (status is not None and status >= 500)


def describe_refusal(error: BaseException, noun: str, named: str, absent: Callable[[str], str]) -> str | None:
    """Explain in one line what the Hub refuses, with the remedy; None for any other error.

    Args:
        error: as the Hub's client raised it.
        noun: what was asked for: model or restorer.
        named: its id, which may have a revision after an @.
        absent: the line for what is not on this machine, from the reason why it cannot be downloaded.
    """
    place, causes = named.removeprefix("hf:").partition("@")[0], causes_by_type(error)
    what = f"{noun} {named!r}"
    if "GatedRepoError" in causes:
        return (
            f"{what}: gated on the Hugging Face Hub; accept its license at https://huggingface.co/{place} and "
            "run `hf auth login` (or set HF_TOKEN)"
        )
    if "RepositoryNotFoundError" in causes:
        return (
            f"{what}: no such {noun} on the Hugging Face Hub, or a private one; check the id, log in with "
            "`hf auth login` (or set HF_TOKEN), or give a folder"
        )
    if "RevisionNotFoundError" in causes:
        return f"{what}: it has no such revision; wanted a branch, tag or commit after the @"
    if "OfflineModeIsEnabled" in causes:
        return absent("HF_HUB_OFFLINE forbids downloads; unset it")
    if "HubLockError" in causes:
        return f"{what}: {shorten(causes['HubLockError'])}"
    if NO_NETWORK & causes.keys():
        return absent(UNREACHABLE)
    return None


def shorten(error: BaseException) -> str:
    """The text of an error in one line of at most 300 characters."""
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
