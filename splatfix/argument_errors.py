"""Errors in the arguments of a command as one line: flag, value, what is wanted, and the remedy.

tyro would print a box, with the words of Python's constructors. Its hook for errors is private, so a version of tyro
without it prints its boxes.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pydantic

from splatfix.config import describe_wanted, join_choices
from splatfix.flags import Command, settings_flags

try:
    from tyro._errors import on_parse_error
except ImportError:
    on_parse_error = None  # type: ignore[assignment]

BOOLEANS = ("yes", "no", "true", "false", "on", "off", "0", "1")
MAX_UNKNOWN = 3  # unknown words that are named
NERFSTUDIO = (
    "this command trains a restorer from pairs (--shards URL); for a splat from photos: splatfix loop {0} --out RUN, "
    "or without repair: splatfix fit {0} --out RUN"
)


@contextmanager
def explaining_errors(command: Command, argv: Sequence[str]) -> Iterator[None]:
    """Raise a ValueError of one line where tyro refuses the arguments in this context."""
    if on_parse_error is None:
        yield
        return

    def explain(event: Any) -> None:
        message = describe_error(event, command, argv)
        if message is not None:
            raise ValueError(message)

    with on_parse_error(explain):
        yield


def describe_error(event: Any, command: Command, argv: Sequence[str]) -> str | None:
    """The message of an error of tyro (``tyro._errors.ParseErrorEvent``); None for a kind that is not known here."""
    kind = type(event).__name__
    if kind in ("MissingArgs", "BadValue") and (unknown := _unknown_flags(command, argv)):
        return _describe_unknown(unknown, command, argv)  # what follows it was taken for something else
    match kind:
        case "MissingArgs":
            return _describe_missing(event, command)
        case "UnrecognizedArgs":
            return _describe_unknown(event.tokens, command, argv)
        case "InvalidChoice":
            return f"{event.argument.display_name()} = {event.value!r}: wanted {join_choices(event.choices)}"
        case "BadValue":
            name = event.argument.display_name()
            return f"{name}: its value is missing; wanted {_typed(name, command) or event.argument.lowered.metavar}"
        case "InstantiationFailure":
            return _describe_value(event, argv)
    return None


def _describe_missing(event: Any, command: Command) -> str:
    words = [word for word in event.unrecognized_tokens if not word.startswith("-")]
    if command.name == "train" and words:
        return NERFSTUDIO.format(words[0])
    missing = [each.arg for each in event.missing_arguments]
    names = [
        each.lowered.metavar if each.is_positional() else f"{each.display_name()} {each.lowered.metavar}"
        for each in missing
    ]
    verb = "is" if len(names) == 1 else "are"
    example = f"; for example: {command.examples[0]}" if command.examples else ""
    return f"{' and '.join(names)} {verb} missing{example}"


def _describe_unknown(words: Sequence[str], command: Command, argv: Sequence[str]) -> str:
    flags = [word for word in words if word.startswith("-")]
    if not flags:
        extra = " ".join(words[:MAX_UNKNOWN])
        positional = [
            name
            for name, parameter in command.parameters.items()
            if parameter.kind is not inspect.Parameter.KEYWORD_ONLY
        ]
        if command.name == "train":
            return NERFSTUDIO.format(words[0])
        if words[0].lower() in BOOLEANS and (flag := argv[list(argv).index(words[0]) - 1]).startswith("--"):
            off = f"--no-{flag.removeprefix('--')}" if "." not in flag else f"{'.no-'.join(flag.rsplit('.', 1))}"
            return f"{flag} takes no value: {flag} turns it on, {off} turns it off"
        wanted = f"only {' and '.join(positional).upper()}" if positional else "flags only"
        return f"{extra}: not an argument of splatfix {command.name}, which takes {wanted}; see --help"
    word = flags[0].partition("=")[0].replace("_", "-")
    known = _known_flags(command)
    if word in known:  # a flag of pairs, without the second of one
        return f"{word}: a value is missing or too many; wanted {_typed(word, command) or word}"
    near = difflib.get_close_matches(word, known, n=1)
    if not near:  # a setting without its group: --num-train for --views.num-train
        last = word.lstrip("-").rpartition(".")[2]
        near = [name for name in known if name.lstrip("-").rpartition(".")[2] == last][:1]
    hint = f"did you mean {_typed(near[0], command) or near[0]}?" if near else "see --help-all"
    return f"unknown flag {word}; {hint}"


def _unknown_flags(command: Command, argv: Sequence[str]) -> list[str]:
    """The words of a command line that look like flags, and are none of the command."""
    known = set(_known_flags(command))
    words = [word for word in argv if word.startswith("--") and word != "--"]
    names = [word.partition("=")[0].replace("_", "-") for word in words]
    positive = [name.replace(".no-", ".").replace("--no-", "--") for name in names]
    return [word for word, *both in zip(words, names, positive, strict=True) if known.isdisjoint(both)]


def _known_flags(command: Command) -> list[str]:
    """The names of all flags of a command."""
    own = [
        f"--{name.replace('_', '-')}"
        for name, parameter in command.parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and name not in ("settings", "config_file")
    ]
    shared = ["--config"] if command.config is not None else []
    typed = [name for flag in settings_flags(command) for name in flag.typed.split(", ")]
    return [*own, *shared, *(name.split()[0] for name in typed), "--help", "--help-all"]


def _typed(name: str, command: Command) -> str | None:
    """A flag of the settings with its value, as help shows it; None for other flags."""
    return next((flag.typed for flag in settings_flags(command) if flag.typed.split()[0] == name), None)


def _describe_value(event: Any, argv: Sequence[str]) -> str:
    message = " ".join(str(event.message).split())
    argument = event.argument
    if argument is None:  # the message is that of the config which refused it
        return message
    name = argument.display_name()
    values = _values_of(name, argv)
    is_list = argument.lowered.nargs == "*"
    try:
        kind = pydantic.TypeAdapter(argument.field.type)
        kind.validate_python(values if is_list else values[0] if values else None)
    except pydantic.ValidationError as error:
        seen = next((value for value in error.errors() if value["loc"]), error.errors()[0])["input"]
        return f"{name} = {seen!r}: wanted {describe_wanted(error.errors())}"
    except pydantic.PydanticUserError:  # a type of tyro's own, such as that of --restorer
        pass
    return message if message.startswith(name.lstrip("-")) else f"{name}: {message}"


def _values_of(name: str, argv: Sequence[str]) -> list[str]:
    """The words after a flag, up to the next one."""
    words = [part for word in argv for part in (word.split("=", 1) if word.startswith("--") else [word])]
    places = [place for place, word in enumerate(words) if word.replace("_", "-") == name]
    values: list[str] = []
    for word in words[places[-1] + 1 :] if places else ():
        if word.startswith("--"):
            break
        values.append(word)
    return values
