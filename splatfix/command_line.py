"""What all commands share: their table, the parsing of their arguments, and how their errors are explained.

A command is a function, registered by `command`. tyro parses its arguments and flags from its parameters (their
annotations, and the texts under ``Args:``) and from the fields of its config. ``--config``, ``--fresh``, ``--help`` and
``--help-all`` are parsed here, once for all commands. Settings that neither the command line nor ``--config`` names
come from the earlier run in the folder or URL ``--out``, if there is one (`mirror.stored_settings`).
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import logging
import os
import pkgutil
import shlex
import sys
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import tyro

import splatfix
from splatfix import storage
from splatfix.argument_errors import explaining_errors
from splatfix.config import build_config, overlaid, read_yaml
from splatfix.errors import MachineError, RunAborted, disk_full, is_disk_full
from splatfix.extras import explain_missing
from splatfix.flags import Command, Function, OneLineParser, full_help, short_help, split_words
from splatfix.messages import readable, readable_lines, without_secrets
from splatfix.process import abort_reason, set_up_logging, stop_on_signals, stop_requested
from splatfix.runs import REMEDIES, has_started
from splatfix.shared_folder import RAY_JOB, refuse_relative_output

log = logging.getLogger(__name__)

MAX_LINE = 4000  # characters of a line of output
DONE, FAILED, BAD_INPUT, QUARANTINED = 0, 1, 2, 3
OUTPUT_CLOSED = 141  # 128 + SIGPIPE, as of other programs
EXIT_CODES = {"interrupted": 130, "terminated": 143}
STORED = "splatfix.mirror:stored_settings"
RETIRED = {  # flags that had another meaning or name
    "--views.split": "it is called --split now",
    "--loop.views.split": "it is called --split now",
    "--resume": "resuming is the default now: leave it out (--fresh starts over)",
    "--launch.max-failures": "it is called --workers.attempts now, which counts the first attempt as well: add one",
    **{f"--launch.{name}": f"it is called --workers.{name} now" for name in ("num", "cpus", "gpus")},
    **{f"--launch.{name}": f"it is called --workers.{name} now" for name in ("address", "storage")},
}
RENAMED = {"track": "sync"}  # commands that had another name: they still work
COMMANDS: dict[str, Command] = {}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name; returns the exit code.

    It is 0 for done, 1 failed, 2 bad input, 3 done except for tasks that are in quarantine, 130 interrupted, 143
    terminated.
    """
    argv = list(sys.argv[1:] if arguments is None else arguments)
    if argv[:1] == ["help"] and len(argv) > 1:
        argv = [argv[1], "--help"]
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(overview())
        return DONE
    if argv[0] in ("-V", "--version", "version"):
        print(f"splatfix {splatfix.__version__}")
        return DONE
    try:
        wanted = find_command(argv[0])
    except ValueError as error:
        print(f"splatfix: {readable(str(error))}", file=sys.stderr)
        return BAD_INPUT
    set_up_logging()
    stop_on_signals(f"splatfix {argv[0]}")
    try:
        return run_command(wanted, argv[1:])
    except BaseException as error:
        explained = explain_error(error, wanted, argv)
        if explained is None:
            raise
        code, message = explained
        with suppress(OSError):  # a log on the disk that is full
            print(f"splatfix {argv[0]}: {message}", file=sys.stderr)
        return code


def show(text: str, *, file: Any = None) -> None:
    """Print a text to standard output, or another file, each line `readable`; commands to copy may be long.

    Raises:
        SystemExit: the reader closed the output, as ``head`` does; the exit code is that of SIGPIPE.
    """
    try:
        print(readable_lines(text, MAX_LINE), file=file, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it once more at its end
        raise SystemExit(OUTPUT_CLOSED) from None


def command(
    *,
    config: str | None = None,
    shown: Sequence[str] = (),
    examples: Sequence[str] = (),
    stored: str = STORED,
    recorded_as: str | None = None,
) -> Callable[[Function], Function]:
    """Register a function as the command of its name; it may return an exit code (None is 0).

    Its parameter ``settings`` takes the config. Parameters ``fresh`` and ``config_file``, if it has them, take the
    flags ``--fresh`` and ``--config``; ``words`` takes all arguments that are no flags of the command. The arguments
    are the attributes of `flags.Command`.
    """

    def register(function: Function) -> Function:
        COMMANDS[function.__name__] = Command(
            name=function.__name__,
            function=function,
            config=config,
            shown=tuple(shown),
            examples=tuple(examples),
            stored=stored,
            recorded_as=recorded_as or function.__name__,
        )
        return function

    return register


def find_command(name: str) -> Command:
    """Find a command by its name. ValueError suggests the nearest name, or lists all."""
    if name in COMMANDS:
        return COMMANDS[name]
    if name in RENAMED:
        log.warning("splatfix %s is called %s now", name, RENAMED[name])
        return COMMANDS[RENAMED[name]]
    near = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(COMMANDS)}"
    raise ValueError(f"no command {name!r}; {hint}")


def run_command(wanted: Command, argv: Sequence[str]) -> int:
    """Parse the arguments of a command and run it; returns its exit code. Errors as `parse_arguments`."""
    if "--help-all" in argv:
        print(full_help(wanted))
        return DONE
    if "-h" in argv or "--help" in argv:
        print(short_help(wanted))
        return DONE
    arguments = parse_arguments(wanted, argv)
    if arguments.get("out") is not None:
        refuse_relative_output(arguments["out"])
    return wanted.function(**arguments) or DONE


def parse_arguments(wanted: Command, argv: Sequence[str], *, resumes: bool = True) -> dict[str, Any]:
    """Parse the arguments of a command: the values of its parameters, by name.

    ``resumes=False`` leaves out the settings of an earlier run in the folder ``--out``.

    Raises:
        ValueError: an argument or a setting cannot be used.
    """
    if wanted.takes_words:
        return split_words(wanted, argv)
    shared = OneLineParser()
    if wanted.config is not None:
        shared.add_argument("--config", type=Path)
    if wanted.may_resume:
        shared.add_argument("--fresh", action="store_true")
    for word in argv:
        if reason := RETIRED.get(word.partition("=")[0].replace("_", "-")):
            raise ValueError(f"{word}: {reason}")
    found, rest = shared.parse_known_args(list(argv))
    given = {name: value for name, value in vars(found).items() if name != "config"}
    settings = None
    if wanted.config is not None:
        takes_stored = resumes and not given.get("fresh")
        earlier = (parse_out(rest) or _default_out(wanted)) if takes_stored else None
        settings = _defaults(wanted, found.config, earlier)
        if "config_file" in wanted.parameters:
            given["config_file"] = found.config
    with explaining_errors(wanted, rest):
        parsed: Any = tyro.cli(
            _arguments(wanted, settings, given),
            args=rest,
            prog=f"splatfix {wanted.name}",
            config=(tyro.conf.AvoidSubcommands,),
        )
    return {name: getattr(parsed, name) for name in wanted.parameters if name not in given} | given


def parse_out(argv: Sequence[str]) -> str | None:
    """The value of ``--out`` in some arguments; None if it is not among them."""
    finder = OneLineParser()
    finder.add_argument("--out")
    return finder.parse_known_args(list(argv))[0].out


def overview() -> str:
    """What splatfix is, and its commands."""
    lines = [
        f"splatfix {splatfix.__version__}: render, repair, retrain for 3D Gaussian splats from few photos",
        "",
        "usage: splatfix COMMAND [--config FILE.yaml] [flags]",
        "",
        *(f"  {name:<10} {each.summary}" for name, each in COMMANDS.items()),
        "",
        "Start with `splatfix doctor` and `splatfix demo`; `splatfix COMMAND --help` explains each command.",
    ]
    return "\n".join(lines)


def explain_error(error: BaseException, wanted: Command, argv: Sequence[str]) -> tuple[int, str] | None:
    """The exit code and the message of an error that ended a command; None for a fault of splatfix itself.

    Where running the command again resumes it, the message ends with the line to run.
    """
    code, message = _explain(error, wanted)
    if code is None:
        return None
    message = readable(message)
    if wanted.may_resume and (code in EXIT_CODES.values() or is_disk_full(error)):
        in_job = RAY_JOB in os.environ  # where the config file is a copy that the job took along
        rerun = f"this resumes it:\n  {without_secrets(rerun_line(argv))}"
        message += f"; {'the same submission resumes it' if in_job else rerun}"
    return code, message


def _explain(error: BaseException, wanted: Command) -> tuple[int | None, str]:
    aborted = abort_reason()
    if aborted is not None:
        return FAILED, aborted
    stopped = stop_requested()  # some libraries turn an interruption into an error of their own
    if stopped is None and isinstance(error, KeyboardInterrupt):
        stopped = "interrupted"
    if stopped is not None:
        return EXIT_CODES[stopped], f"{stopped}; finished work is kept"
    if isinstance(error, ValueError):
        return BAD_INPUT, str(error)
    if (missing := explain_missing(error, f"splatfix {wanted.name}")) is not None:
        return BAD_INPUT, missing
    if isinstance(error, FloatingPointError | MachineError | RunAborted):
        return FAILED, str(error)
    if isinstance(error, OSError) and is_disk_full(error):
        return FAILED, str(disk_full(error))
    if isinstance(error, OSError):
        named = error.filename and error.strerror
        return FAILED, f"{error.filename}: {error.strerror}" if named else str(error)
    return None, ""


def _default_out(wanted: Command) -> str | None:
    """The default of a command's ``--out``; None if it has none."""
    out = wanted.parameters.get("out")
    return None if out is None or out.default is inspect.Parameter.empty else str(out.default)


def rerun_line(argv: Sequence[str]) -> str:
    """The command line that resumes an interrupted command: the same, without ``--fresh`` once it has started over."""
    out = parse_out(argv)
    began = out is not None and (has_started(storage.absolute(out)) or has_started(Path(out).resolve()))
    return shlex.join(["splatfix", *(word for word in argv if word != "--fresh" or not began)])


def _defaults(wanted: Command, path: Path | None, out: str | None) -> Any:
    """A command's settings before its flags: ``--config`` overrides those stored in ``out``, and these the defaults."""
    assert wanted.config is not None
    kind = pkgutil.resolve_name(wanted.config)
    named = {} if path is None else read_yaml(path)
    config = build_config(kind, named, source=str(path))
    if not wanted.may_resume or out is None:
        return config
    stored = pkgutil.resolve_name(wanted.stored)(out, wanted.recorded_as)
    if stored is None:
        return config
    try:
        build_config(kind, stored, source=f"{out}/config.yaml")
    except ValueError as error:
        raise ValueError(f"{error}; {REMEDIES}") from None
    return build_config(kind, overlaid(kind, stored, named), source=f"{path}, over {out}/config.yaml")


def _arguments(wanted: Command, settings: Any, given: Collection[str]) -> type:
    """The parameters of a command as a dataclass, for tyro.

    Fields of the config become flags without a prefix, with ``settings`` as their defaults. Parameters in ``given`` are
    left out: they are parsed already.
    """
    fields: list[Any] = []
    for name, parameter in wanted.parameters.items():
        if name == "settings":
            fields.append(
                (name, Annotated[type(settings), tyro.conf.arg(name="")], dataclasses.field(default=settings))
            )
        elif parameter.default is not inspect.Parameter.empty:
            fields.append((name, parameter.annotation, dataclasses.field(default=parameter.default)))
        elif name not in given:
            fields.append((name, parameter.annotation))
    arguments = dataclasses.make_dataclass("Arguments", fields, kw_only=True)
    arguments.__doc__ = wanted.function.__doc__
    return arguments
