"""A restorer that is another program: Difix3D+, NVIDIA Fixer, a ComfyUI graph, a script.

splatfix writes a folder with the views (`folder` says what is in it), runs the program, and reads the repaired images
back. This module is what the rest of splatfix opens it by; it imports torch alone.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import torch

from splatfix.restoration.restorer import Restorer

INPUT, OUTPUT, SEED = "{input}", "{output}", "{seed}"  # in argv
DEFAULT_CACHE = "~/.cache/splatfix/command"
MAX_HASHED_BYTES = 16 * 2**20  # larger files are identified by size and time
EXAMPLE = "argv: [python, repair.py, '{input}', '{output}']"


@dataclass(frozen=True, kw_only=True)
class CommandOptions:
    """Options of the restorer ``command``.

    Attributes:
        argv: the program and its arguments, a list: no shell reads it. ``{input}``, ``{output}`` and ``{seed}`` in an
            argument are replaced by the folder of the views, the folder for the repaired images, and the seed.
        timeout_seconds: seconds after which a call is stopped.
        views_per_call: number of views that the program is given at a time; None gives it all of them.
        env: environment variables that are set for the program, beside those of splatfix.
        cache: folder in which repaired views are kept, so that none is repaired twice; None keeps none.
        folder: where the files of each call stay for a look at them; None removes them after the call.
    """

    argv: tuple[str, ...] = ()
    timeout_seconds: float = 3600.0
    views_per_call: int | None = None
    env: dict[str, str] = field(default_factory=dict)
    cache: str | None = DEFAULT_CACHE
    folder: str | None = None

    def __post_init__(self) -> None:
        argv, views = list(self.argv), self.views_per_call
        _require(len(argv) > 0, "argv", argv, f"the program and its arguments, as in {EXAMPLE}")
        for placeholder in (INPUT, OUTPUT):
            wanted = f"an argument with {placeholder}, as in {EXAMPLE}"
            _require(any(placeholder in argument for argument in argv), "argv", argv, wanted)
        unknown = set(re.findall(r"(?<!\$)\{\w+\}", " ".join(argv))) - {INPUT, OUTPUT, SEED}
        _require(not unknown, "argv", argv, f"no placeholders but {INPUT}, {OUTPUT} and {SEED}")
        _require(self.timeout_seconds > 0, "timeout_seconds", self.timeout_seconds, "more than 0 seconds")
        _require(views is None or views >= 1, "views_per_call", views, "at least 1 view, or null for all at once")


def open_command(options: CommandOptions, device: torch.device) -> Restorer:  # noqa: ARG001 (it follows the views)
    """Open the restorer; ValueError where there is no such program on this machine."""
    from splatfix.restoration.command.restorer import CommandRestorer
    from splatfix.restoration.repair_cache import RepairCache

    program = options.argv[0]
    if shutil.which(program) is None:
        remedy = "install it, or give its full path"
        raise ValueError(f"restorer 'command': argv.0 = {program!r}: no such program on this machine; {remedy}")
    restorer = CommandRestorer(options)
    if options.cache is None:
        return restorer
    folder = Path(options.cache).expanduser()
    return RepairCache(restorer, folder, identity=identify_program(options), batch_views=restorer.batch_views)


def identify_program(options: CommandOptions) -> str:
    """What decides the result of a program, as text: arguments, environment, and the files that arguments name.

    So a changed script is another program. What the files import or load is not looked at.
    """
    files = {argument: _identify_file(Path(argument)) for argument in options.argv if Path(argument).is_file()}
    return json.dumps({"argv": options.argv, "env": options.env, "files": files}, sort_keys=True)


def _identify_file(path: Path) -> str:
    status = path.stat()
    if status.st_size > MAX_HASHED_BYTES:
        return f"{status.st_size} bytes, {status.st_mtime_ns}"
    return hashlib.sha256(path.read_bytes()).hexdigest()


# `splatfix.config.require` would do, but networks and what they import need no pydantic.
def _require(condition: bool, field: str, value: object, wanted: str) -> None:
    if not condition:
        raise ValueError(f"{field} = {value!r}: wanted {wanted}")
