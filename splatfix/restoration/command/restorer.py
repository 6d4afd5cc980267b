"""The restorer ``command``: a call of the program for each batch of views."""

from __future__ import annotations

import logging
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from splatfix.files import scratch_folder
from splatfix.flawed import FlawedView
from splatfix.restoration.command import INPUT, OUTPUT, SEED, CommandOptions
from splatfix.restoration.command.folder import read_repairs, write_views
from splatfix.restoration.command.program import run_program
from splatfix.restoration.restorer import Repaired

log = logging.getLogger(__name__)


class CommandRestorer:
    """Repairs with another program.

    Attributes:
        options: how it is called.
        batch_views: number of views of a call.
    """

    def __init__(self, options: CommandOptions) -> None:
        self.options = options
        self.batch_views = options.views_per_call or sys.maxsize

    def repair(self, views: Sequence[FlawedView], *, seed: int) -> list[Repaired]:
        """See `Restorer`.

        Raises:
            ValueError: the program cannot be started, or what it wrote cannot be used.
            ProgramError: it failed or took too long.
        """
        results: list[Repaired] = []
        for first in range(0, len(views), self.batch_views):
            results += self._call(views[first : first + self.batch_views], seed)
        return results

    def _call(self, views: Sequence[FlawedView], seed: int) -> list[Repaired]:
        options = self.options
        with _call_folder(options.folder) as folder:
            source, target = folder / "input", folder / "output"
            write_views(source, views, seed=seed)
            target.mkdir()
            argv = fill_in(options.argv, source, target, seed)
            log.info("%s repairs %d views; its output: %s", argv[0], len(views), folder / "log.txt")
            start = time.monotonic()
            run_program(argv, env=options.env, timeout_seconds=options.timeout_seconds, log_path=folder / "log.txt")
            log.info("%s repaired %d views in %.1f s", argv[0], len(views), time.monotonic() - start)
            try:
                return read_repairs(target, views)
            except ValueError as error:
                hint = "; the option folder keeps the files of a call" if options.folder is None else ""
                raise ValueError(f"restorer 'command': {error}{hint}") from None


def fill_in(argv: Sequence[str], source: Path, target: Path, seed: int) -> list[str]:
    """The arguments with their placeholders replaced. Other braces stay as they are."""
    values = {INPUT: str(source), OUTPUT: str(target), SEED: str(seed)}
    filled = []
    for argument in argv:
        for placeholder, value in values.items():
            argument = argument.replace(placeholder, value)
        filled.append(argument)
    return filled


@contextmanager
def _call_folder(place: str | None) -> Iterator[Path]:
    """A new folder for the files of a call: in ``place``, where it stays, or temporary."""
    if place is None:
        with scratch_folder("command") as folder:
            yield folder
        return
    parent = Path(place).expanduser().absolute()
    parent.mkdir(parents=True, exist_ok=True)
    folder = parent / f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:8]}"
    folder.mkdir()  # not mkdtemp, which lets nobody but the user enter it
    yield folder
