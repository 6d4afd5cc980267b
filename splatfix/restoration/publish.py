"""Publishing a restorer on the Hugging Face Hub: its files, its model card, and what is refused there."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml

from splatfix.files import parse_json, read_json, write_text
from splatfix.process import log
from splatfix.restoration import KINDS
from splatfix.restoration.checkpoint import CARD, CONFIG, FORMAT, OLDEST_KIND, find_checkpoint, read_kind
from splatfix.restoration.hub import (
    ANSWER_SECONDS,
    HubError,
    ask_within,
    explaining,
    fetch,
)
from splatfix.restoration.hub_errors import causes_by_type, http_status
from splatfix.restoration.hub_places import PREFIX, HubPlace, parse_place
from splatfix.restoration.nafnet import SHIPPED_WEIGHTS

LIBRARY = "splatfix"
TAGS = ("image-restoration", "3d-gaussian-splatting", "novel-view-synthesis", "sparse-views")
WRITE_ACCESS = "log in with `hf auth login`, or set HF_TOKEN, with a token that may write there"
HERE = "THIS_FOLDER"  # in the command of a card in a folder
_FRONT = re.compile(r"\A---\s*\n(?P<yaml>.*?)\n---\s*\n", re.DOTALL)
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Publication:
    """What is published where.

    Attributes:
        place: the repository.
        card: the model card, Markdown with YAML in front.
        files: the other files, by their names in the repository.
        kind: of the restorer.
    """

    place: HubPlace
    card: str
    kind: str
    files: dict[str, Path] = field(default_factory=dict)

    def sizes(self) -> dict[str, int]:
        """The bytes of each file by its name, the card included."""
        return {CARD: len(self.card.encode()), **{name: path.stat().st_size for name, path in self.files.items()}}


def prepare(restorer: str, target: str, *, license: str | None, card: Path | None = None) -> Publication:
    """Read and check a restorer, and write its model card; asks no network.

    Args:
        restorer: a checkpoint's folder or URL, a training run, or ``nafnet``.
        target: ``hf:USER/NAME``.
        license: of the weights, as the Hub spells it (apache-2.0, cc-by-4.0, ...); None takes that of the card.
        card: a model card in place of the one in the folder.

    Raises:
        ValueError: not a restorer, a damaged one, no license, or another target; with the remedy.
    """
    place = parse_place(target) if target.startswith(PREFIX) else None
    if place is None or place.revision is not None:
        raise ValueError(f"{target!r}: wanted hf:USER/NAME, without a revision; --tag names one")
    if parse_place(restorer) is not None:
        raise ValueError(f"{restorer}: no such folder here; wanted one that splatfix train wrote, or nafnet")
    given: str | Path = SHIPPED_WEIGHTS if restorer == "nafnet" else restorer
    kind = read_kind(given, KINDS)
    KINDS[kind].open(given, KINDS[kind].options(), torch.device("cpu"))  # a damaged one is refused here
    folder = find_checkpoint(given, [CONFIG, CARD, "*.safetensors"])
    source = folder / CARD if card is None else card
    if not source.is_file():
        raise ValueError(f"{source}: no such file; wanted the restorer's model card, or one in --card")
    text = write_card(source.read_text(encoding="utf-8"), read_json(folder / CONFIG), place, license, str(source))
    files = {path.name: path for path in (folder / CONFIG, *sorted(folder.glob("*.safetensors")))}
    return Publication(place=place, card=text, kind=kind, files=files)


def write_card(text: str, config: dict[str, Any], place: HubPlace, license: str | None, source: str) -> str:
    """A card for the Hub from one of a folder: YAML in front, and the command with the name on the Hub.

    Fields that the YAML has already stay; license and library are replaced. Errors as of `prepare`.
    """
    match = _FRONT.match(text)
    try:
        given = yaml.safe_load(match["yaml"]) if match else {}
    except yaml.YAMLError as error:
        raise ValueError(
            f"{source}: not valid YAML between its first two --- ({' '.join(str(error).split())})"
        ) from None
    if not isinstance(given, dict):
        raise ValueError(f"{source}: wanted a YAML mapping between its first two ---")
    chosen = license or given.get("license")
    if not isinstance(chosen, str) or not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", chosen):
        raise ValueError(
            f"--license {chosen or 'is missing'}: wanted an identifier of the Hub such as apache-2.0, cc-by-4.0 or "
            "other; the licenses of the training photos limit the choice"
        )
    front = given | {"license": chosen, "library_name": LIBRARY}
    front["tags"] = list(dict.fromkeys([*TAGS, str(config.get("kind", OLDEST_KIND)), *(given.get("tags") or [])]))
    front.setdefault("pipeline_tag", "image-to-image")
    body = text[match.end() :] if match else text
    body = body.replace(f"--restorer {HERE}", f"--restorer {place}")
    head = yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=120)
    return f"---\n{head}---\n\n{body.lstrip()}"


def write_draft(publication: Publication, path: Path) -> None:
    """Write the card to a new file, to be read and edited. ValueError if the file exists."""
    if path.exists():
        raise ValueError(f"{path}: exists already; remove it, or name another file with --card")
    write_text(path, publication.card)


def publish(
    publication: Publication, *, private: bool = False, replace: bool = False, tag: str | None = None
) -> HubPlace:
    """Write all files to the repository in one commit; returns the place with that commit.

    Args:
        publication: what and where.
        private: create a private repository, if there is none.
        replace: also over another kind of model.
        tag: a name for this version.

    Raises:
        ValueError: the Hub refuses, does not answer, or has something else there; with the remedy.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    place, api = publication.place, HfApi()
    info = _find_repository(api, place)
    if info is None:
        _call(place, lambda: api.create_repo(place.repo, private=private, exist_ok=True))
        log.info("%s: created%s", place, ", private" if private else "")
    else:
        _check_repository(place, info, publication.kind, private=private, replace=replace)
    operations = [
        CommitOperationAdd(path_in_repo=CARD, path_or_fileobj=publication.card.encode()),
        *(CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in publication.files.items()),
    ]

    def commit() -> Any:
        with warnings.catch_warnings(record=True) as noted:  # of the Hub, about the card
            warnings.simplefilter("always", UserWarning)
            made = api.create_commit(
                place.repo,
                operations,
                commit_message="Upload a restorer with splatfix",
                parent_commit=None if info is None else info.sha,
            )
        for each in noted:
            log.warning("%s: %s", place, " ".join(str(each.message).split()))
        return made

    made = HubPlace(place.repo, _call(place, commit, num_bytes=sum(publication.sizes().values())).oid)
    if tag is not None:
        try:
            _call(place, lambda: api.create_tag(place.repo, tag=tag, revision=made.revision))
        except HubError as error:
            raise HubError(f"{error}; the files are published without the tag, as {made}") from error
    return made


def page_of(place: HubPlace) -> str:
    """The address of a repository's page."""
    from huggingface_hub import HfApi

    return f"{HfApi().endpoint}/{place.repo}"


def _call(place: HubPlace, call: Callable[[], Answer], *, num_bytes: int = 0) -> Answer:
    """Ask the Hub to change something; its refusals name the right to write."""
    with explaining(place):
        try:
            return ask_within(call, num_bytes=num_bytes)
        except Exception as error:
            status = http_status(error)
            if status in (401, 403, 404):
                raise HubError(f"{place}: the Hub does not let you write there ({status}); {WRITE_ACCESS}") from error
            if status == 409:
                raise HubError(f"{place}: the Hub has that already (409); choose another --tag or name") from error
            if status == 412:
                raise HubError(f"{place}: has changed while it was pushed; run the same command again") from error
            if "BadRequestError" in causes_by_type(error):
                reason = " ".join(str(error).split())[-200:]
                raise HubError(
                    f"{place}: the Hub refuses the files or the model card ({reason}); correct it"
                ) from error
            raise


def _find_repository(api: Any, place: HubPlace) -> Any:
    """What the Hub says of a repository; None where there is none that you can see."""
    with explaining(place):
        try:
            return ask_within(lambda: api.model_info(place.repo, timeout=ANSWER_SECONDS))
        except Exception as error:
            if "RepositoryNotFoundError" in causes_by_type(error) and "GatedRepoError" not in causes_by_type(error):
                return None
            raise


def _check_repository(place: HubPlace, info: Any, kind: str, *, private: bool, replace: bool) -> None:
    """Refuse a public repository where a private one is wanted, and one with something else than this kind."""
    if private and not info.private:
        raise ValueError(f"{place}: is public already; make it private on its page, or leave out --private")
    if replace:
        return
    names = {file.rfilename for file in info.siblings or ()}
    if CONFIG in names:
        here = HubPlace(place.repo, info.sha)
        found = parse_json((fetch(here, []) / CONFIG).read_bytes(), f"{here} {CONFIG}")
        is_ours = isinstance(found, dict) and found.get("format") == FORMAT
        other = found.get("kind", OLDEST_KIND) if is_ours else None
        if other == kind:
            return
        what = f"a restorer of kind {other!r}, not {kind!r}" if is_ours else "a model that is no restorer of splatfix"
    elif names <= {".gitattributes", CARD, "LICENSE"}:
        return
    else:
        what = f"other files, such as {min(names - {'.gitattributes', CARD})}"
    raise ValueError(f"{place}: holds {what}; choose another name, or --replace to write over it")
