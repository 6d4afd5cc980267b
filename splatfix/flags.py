"""A command and its help: its flags are the parameters of its function and the fields of its config."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import pkgutil
import re
import shutil
import textwrap
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

Function = Callable[..., int | None]
METAVARS = {int: "INT", float: "FLOAT", str: "NAME", Path: "PATH"}
METAVARS_BY_NAME = {
    **{"captures": "CAPTURE", "held_out": "CAPTURE", "split": "SPLIT.json", "restorer": "RESTORER"},
    **{"uri": "URI", "address": "HOST:PORT", "storage": "URL", "start_from": "RESTORER"},
}


class OneLineParser(argparse.ArgumentParser):
    """A parser of a few flags beside tyro's, whose errors are ValueErrors of one line."""

    def __init__(self) -> None:
        super().__init__(add_help=False, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Raise a ValueError that names the flag."""
        raise ValueError(message.removeprefix("argument "))


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command.

    Attributes:
        name: as it is typed.
        function: runs it; its parameters are arguments and flags.
        config: ``module:Class`` of its settings, imported when it is needed; None if it has no settings.
        shown: settings that ``--help`` lists, in this order; ``--help-all`` lists all.
        examples: command lines that ``--help`` ends with.
        stored: ``module:function`` that returns the settings stored in the folder of an earlier run.
        recorded_as: name of the command in the record of a run: ``demo`` writes and resumes runs of ``loop``.
    """

    name: str
    function: Function
    config: str | None
    shown: tuple[str, ...]
    examples: tuple[str, ...]
    stored: str
    recorded_as: str

    @property
    def parameters(self) -> dict[str, inspect.Parameter]:
        return dict(inspect.signature(self.function).parameters)

    @property
    def summary(self) -> str:
        """The first sentence of its description."""
        return (self.function.__doc__ or "").strip().splitlines()[0]

    @property
    def may_resume(self) -> bool:
        return "fresh" in self.parameters

    @property
    def takes_words(self) -> bool:
        """Whether it passes on all arguments that are not its flags (`split_words`)."""
        return "words" in self.parameters


@dataclass(frozen=True, kw_only=True)
class Flag:
    """A flag (or an argument without a flag): the setting that it sets, how it is typed, and what it does."""

    setting: str
    typed: str
    text: str


def short_help(command: Command) -> str:
    """What a command does, its arguments, the settings that people use, and examples."""
    flags = {flag.setting: flag for flag in settings_flags(command)}
    shown = [flags[name] for name in command.shown]
    sections = _head(command)
    if shown:
        rest = f" ({len(shown)} of {len(flags)}; --help-all shows all)" if len(shown) < len(flags) else ""
        sections += [f"settings{rest}:", *map(_row, shown), ""]
    return "\n".join([*sections, *_examples(command)])


def full_help(command: Command) -> str:
    """What a command does, and all of its flags by group; groups that `short_help` shows come first."""
    groups: dict[str, list[Flag]] = {}
    flags = list(settings_flags(command))
    first = [name.rpartition(".")[0] for name in command.shown]  # repair before fit, as in the short help
    for flag in sorted(flags, key=lambda flag: _place(first, flag.setting.rpartition(".")[0])):
        groups.setdefault(flag.setting.rpartition(".")[0], []).append(flag)
    lines = _head(command)
    for group, members in groups.items():
        lines += [f"{group or 'settings'}:", *map(_row, members), ""]
    return "\n".join([*lines, *_examples(command)])


def settings_flags(command: Command) -> list[Flag]:
    """The flags of a command's config, field by field."""
    return [] if command.config is None else list(_config_flags(pkgutil.resolve_name(command.config)()))


def own_flags(command: Command) -> list[Flag]:
    """The arguments (typed without a flag) and flags of a command that are no settings of its config."""
    texts, flags = described(command.function), []
    for name, parameter in command.parameters.items():
        if name in ("settings", "fresh", "config_file"):
            continue
        is_flag = parameter.kind is inspect.Parameter.KEYWORD_ONLY
        typed = (
            _typed(name, parameter.annotation).partition(", --no-")[0] if is_flag else _metavar(parameter.annotation)
        )
        flags.append(Flag(setting=name, typed=typed, text=texts[name]))
    if command.config is not None:
        flags.append(Flag(setting="config", typed="--config FILE.yaml", text="settings from a file; flags override it"))
    return flags


def split_words(command: Command, argv: Sequence[str]) -> dict[str, Any]:
    """Split arguments into the values of a command's own flags and, in order, all others (``words``).

    Everything after ``--`` is passed on as it is. ValueError where a flag lacks its value.
    """
    end = list(argv).index("--") if "--" in argv else len(argv)
    parser = OneLineParser()
    for name, parameter in command.parameters.items():
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            continue
        kind, default = _plain(parameter.annotation), parameter.default
        options: dict[str, Any] = {"action": "store_true"} if kind is bool else {"type": kind}
        if typing.get_origin(kind) is tuple:
            options, default = {"action": "append"}, list(default)
        parser.add_argument(f"--{name.replace('_', '-')}", dest=name, default=default, **options)
    found, words = parser.parse_known_args(list(argv[:end]))
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in vars(found).items()}
    return {**values, "words": (*words, *argv[end + 1 :])}


def _config_flags(config: Any, prefix: str = "") -> Iterator[Flag]:
    kind = type(config)
    texts, hints = described(kind), typing.get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        name, value = f"{prefix}{field.name}", getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from _config_flags(value, f"{name}.")
        elif isinstance(value, Mapping) and value and all(map(dataclasses.is_dataclass, value.values())):
            for key, item in value.items():
                yield from _config_flags(item, f"{name}.{key}.")
        else:
            typed = _typed(_flag_name(name, hints[field.name]), hints[field.name])
            yield Flag(setting=name, typed=typed, text=f"{texts.get(field.name, '')}{_default(value)}")


def _flag_name(name: str, annotation: Any) -> str:
    """The flag of a setting, which its annotation may rename, with or without the prefix of its config."""
    for part in getattr(annotation, "__metadata__", ()):
        if named := getattr(part, "name", None):
            prefix = name[: name.rfind(".") + 1]
            return named if part.prefix_name is False else f"{prefix}{named}"
    return name


def described(documented: Any) -> dict[str, str]:
    """The description of each parameter or attribute in a docstring, as one line of text."""
    texts: dict[str, str] = {}
    names: list[str] = []
    section = re.split(r"^(?:Args|Attributes):\n", inspect.cleandoc(documented.__doc__ or ""), flags=re.MULTILINE)
    for line in section[1].splitlines() if len(section) > 1 else ():
        if line and not line.startswith(" "):
            break
        if entry := re.fullmatch(r" {4}([\w, ]+): (.*)", line):
            names = [name.strip() for name in entry[1].split(",")]
            texts |= dict.fromkeys(names, entry[2].strip())
        else:
            texts |= {name: f"{texts[name]} {line.strip()}".strip() for name in names}
    return {name: text.replace("``", "").removesuffix(".") for name, text in texts.items()}


def _head(command: Command) -> list[str]:
    """Usage, description, and the arguments and flags that are not settings."""
    texts, arguments, flags = described(command.function), [], []
    for name, parameter in command.parameters.items():
        if name in ("settings", "fresh", "config_file"):
            continue
        is_needed = parameter.default is inspect.Parameter.empty
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            typed = _typed(name, parameter.annotation).partition(", --no-")[0]
            default = "" if is_needed else _default(parameter.default)
            flags.append((Flag(setting=name, typed=typed, text=f"{texts[name]}{default}"), is_needed))
        else:
            typed = _metavar(parameter.annotation)
            usage = typed if is_needed else f"[{typed}]"
            arguments.append((Flag(setting=name, typed=typed, text=texts[name]), usage))
    needed = [flag.typed for flag, is_needed in flags if is_needed]
    rows = [flag for flag, _ in (*arguments, *flags)]
    if command.config is not None:
        text = "settings from a file; flags override it"
        rows.append(Flag(setting="config", typed="--config FILE.yaml", text=text))
    if command.may_resume:
        text = "start over: remove what the earlier run wrote in --out. Otherwise the same command resumes it"
        rows.append(Flag(setting="fresh", typed="--fresh", text=text))
    optional = ["[flags]"] if len(rows) > len(arguments) + len(needed) or command.config is not None else []
    line = " ".join(["splatfix", command.name, *(usage for _, usage in arguments), *needed, *optional])
    description = inspect.cleandoc(command.function.__doc__ or "").split("Args:")[0].strip().replace("``", "")
    paragraphs = [_wrapped(" ".join(paragraph.split())) for paragraph in description.split("\n\n")]
    return [f"usage: {line}", "", "\n\n".join(paragraphs), "", *map(_row, rows), *([""] if rows else [])]


def _examples(command: Command) -> list[str]:
    return ["examples:", *(f"  {example}" for example in command.examples)]


def _place(names: list[str], name: str) -> int:
    """The index of a group among the names, or of its nearest parent; the last place if neither is among them."""
    while name and name not in names:
        name = name.rpartition(".")[0]
    return names.index(name) if name in names else len(names)


def _typed(name: str, annotation: Any) -> str:
    flag = name.replace("_", "-")
    if _plain(annotation) is bool:
        group, _, last = flag.rpartition(".")
        return f"--{flag}, --{f'{group}.' if group else ''}no-{last}"
    return f"--{flag} {_metavar(annotation, METAVARS_BY_NAME.get(name.rpartition('.')[2]))}"


def _metavar(annotation: Any, named: str | None = None) -> str:
    for part in getattr(annotation, "__metadata__", ()):
        if getattr(part, "metavar", None):
            return part.metavar
    if named is not None and typing.get_origin(_plain(annotation)) is not tuple:
        return named
    kind = _plain(annotation)
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    words = [
        word
        for each in typing.get_args(annotation)
        if typing.get_origin(each) is typing.Literal
        for word in typing.get_args(each)
    ]
    if words and origin is not typing.Literal and kind in METAVARS:  # such as int | Literal["all"]
        return "|".join([METAVARS[kind], *words])
    if origin is typing.Literal:
        return "{" + ",".join(map(str, inner)) + "}"
    if origin is tuple:
        return f"{_metavar(inner[0], named)} ..." if inner[-1] is Ellipsis else " ".join(map(_metavar, inner))
    if origin is dict:
        return "KEY VALUE ..."
    return METAVARS.get(kind, "VALUE")


def _plain(annotation: Any) -> Any:
    """A type without its annotations, and without None."""
    if hasattr(annotation, "__metadata__"):
        return _plain(annotation.__origin__)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        kinds = [kind for kind in typing.get_args(annotation) if kind is not type(None)]
        return _plain(kinds[0])
    return annotation


def _default(value: Any) -> str:
    """The default as it is appended to a text; empty for None and empty values."""
    if value is None or value in ((), {}):
        return ""
    if isinstance(value, bool):
        return f" (default: {'yes' if value else 'no'})"
    return f" (default: {' '.join(map(str, value)) if isinstance(value, tuple | list) else value})"


def _row(flag: Flag) -> str:
    """A flag and its text beside it, or below it where it is long."""
    indent, column = "  ", 28
    head = f"{indent}{flag.typed}"
    text = _wrapped(flag.text, width=_width() - column).splitlines() or [""]
    if len(head) + 2 > column:
        return "\n".join([head, *(" " * column + line for line in text)])
    return "\n".join([head.ljust(column) + text[0], *(" " * column + line for line in text[1:])])


def _wrapped(text: str, width: int | None = None) -> str:
    return "\n".join(textwrap.wrap(text, width or _width(), break_on_hyphens=False))


def _width() -> int:
    return max(60, min(100, shutil.get_terminal_size((100, 20)).columns))
