"""The command that publishes a restorer."""

from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from splatfix.command_line import command, show


@command(
    examples=[
        "splatfix push runs/restorer hf:octocat/restorer --license cc-by-4.0 --dry-run",
        "splatfix push runs/restorer hf:octocat/restorer --license cc-by-4.0 --private --tag v1",
    ]
)
def push(
    restorer: Positional[Annotated[str, tyro.conf.arg(metavar="RESTORER")]],
    target: Positional[Annotated[str, tyro.conf.arg(metavar="hf:USER/NAME")]],
    *,
    license: str | None = None,
    private: bool = False,
    tag: str | None = None,
    card: Annotated[Path | None, tyro.conf.arg(metavar="FILE.md")] = None,
    replace: bool = False,
    dry_run: bool = False,
) -> None:
    """Publish a restorer on the Hugging Face Hub, with a model card.

    Anyone with access then names it hf:USER/NAME, wherever a restorer is named. Log in before with hf auth login.

    Args:
        restorer: folder or URL that splatfix train wrote, or nafnet, the shipped one.
        target: where to; the repository is created if there is none.
        license: of the weights, as the Hub spells it (apache-2.0, cc-by-4.0, other); by default that of the card.
        private: create the repository for you alone.
        tag: name of this version: hf:USER/NAME@TAG.
        card: model card to publish in place of the restorer's own; with --dry-run the file to write it to.
        replace: also write over a model of another kind.
        dry_run: write the model card to a file and list what would be published; asks no network.
    """
    from splatfix.report.terminal import next_command
    from splatfix.restoration.publish import page_of, prepare, publish, write_draft

    publication = prepare(restorer, target, license=license, card=None if dry_run else card)
    page = page_of(publication.place)
    for name, size in publication.sizes().items():
        show(f"  {name:<24}{size / 1e3:>12,.1f} kB")
    if dry_run:
        draft = card or Path(f"{publication.place.name}.md")
        write_draft(publication, draft)
        show(f"not published: would go to {page}\ncard: {draft}")
        words = [restorer, target, "--card", draft, *(["--private"] if private else [])]
        show(next_command("push", *words, *(["--tag", tag] if tag else [])))
        return
    pinned = publish(publication, private=private, replace=replace, tag=tag)
    show(f"page: {page}\nthis version: {pinned}")
    show(next_command("loop", "CAPTURE", "--restorer", publication.place if tag is None else f"{target}@{tag}"))
