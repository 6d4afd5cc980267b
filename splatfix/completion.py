"""Completion of command lines: shtab writes the script of a shell from an argparse parser of all commands."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping

import shtab

from splatfix.flags import Command, Flag, own_flags, settings_flags

SHELLS = ("bash", "zsh", "fish")
NOT_FILES = frozenset({"INT", "FLOAT", "NAME", "KEY", "VALUE", "HOST:PORT", "NAME[=VALUE]"})  # first words of metavars


def completion_script(shell: str, commands: Mapping[str, Command]) -> str:
    """Write the script that completes command names, flags, choices and file names in a shell of `SHELLS`."""
    parser = argparse.ArgumentParser(prog="splatfix", add_help=False)
    parser.add_argument("--help", action="store_true", help="what splatfix is, and its commands")
    parser.add_argument("--version", action="store_true", help="the version")
    parsers = parser.add_subparsers()
    for name, command in commands.items():
        each = parsers.add_parser(name, help=command.summary, add_help=False)
        _add_flags(each, own_flags(command))
        _add_flags(each, settings_flags(command))
        for flag, text in _shared_flags(command):
            each.add_argument(flag, action="store_true", help=text)
    return shtab.complete(parser, shell)


def _shared_flags(command: Command) -> Iterable[tuple[str, str]]:
    yield "--help", "the usual settings and examples"
    yield "--help-all", "every setting"
    if command.may_resume:
        yield "--fresh", "start over"


def _add_flags(parser: argparse.ArgumentParser, flags: Iterable[Flag]) -> None:
    for flag in flags:
        names = [word.rstrip(",") for word in flag.typed.split() if word.startswith("--")]
        metavar = flag.typed.removeprefix(names[0]).strip() if names else flag.typed
        help_ = flag.text.replace("%", "%%")
        if len(names) > 1:  # --video, --no-video
            for name in names:
                parser.add_argument(name, action="store_true", help=help_)
        elif metavar.startswith("{") and "}" in metavar:
            choices = metavar[1 : metavar.index("}")].split(",")
            parser.add_argument(*(names or [flag.setting]), choices=choices, help=help_)
        else:
            nargs = "*" if metavar.endswith("...") else None
            action = parser.add_argument(*(names or [flag.setting]), nargs=nargs, help=help_)
            if metavar.partition(" ")[0] not in NOT_FILES:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
