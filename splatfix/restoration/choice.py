"""Which restorer to use: a name or a folder, and options for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class RestorerChoice:
    """A restorer and its options.

    Attributes:
        name: a name (identity, warp, classical, nafnet, ...), a checkpoint's folder or URL, or hf:USER/NAME.
        options: by name, those of the restorer's options dataclass; the others keep their default.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, choice: str | Path | RestorerChoice) -> RestorerChoice:
        """A choice without options for a bare name or folder."""
        return choice if isinstance(choice, RestorerChoice) else cls(name=str(choice))

    @property
    def short(self) -> str | RestorerChoice:
        """The shortest form for a config: the bare name, if there are no options."""
        return self if self.options else self.name


def parse_choice(text: str) -> str | RestorerChoice:
    """A choice from the command line: a name or folder, or a YAML mapping: ``{name: warp, options: {...}}``.

    Raises:
        ValueError: a mapping that is not valid or has other fields.
    """
    if not text.lstrip().startswith("{"):
        return text
    from splatfix.config import build_config, parse_yaml

    return build_config(RestorerChoice, parse_yaml(text, f"restorer {text!r:.60}"), source="restorer")


def parse_choices(texts: Sequence[str]) -> tuple[str | RestorerChoice, ...]:
    """Several choices from the command line: names separated by commas or spaces, and YAML mappings between them."""
    choices: list[str | RestorerChoice] = []
    for text in texts:
        parts = [text] if text.lstrip().startswith("{") else text.split(",")
        choices += [parse_choice(part.strip()) for part in parts if part.strip()]
    return tuple(choices)


def format_choice(choice: str | RestorerChoice) -> str:
    """The text that `parse_choice` reads."""
    import yaml

    if isinstance(choice, str):
        return choice
    tree: Mapping[str, Any] = {"name": choice.name, "options": choice.options}
    return yaml.safe_dump(tree, default_flow_style=True, sort_keys=False, width=10_000).strip()
