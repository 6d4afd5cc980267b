"""Every mutant of a file from others opens plausibly, or is refused in one short line, soon and in bounded memory.

Slow. ``SPLATFIX_FUZZ_SEED`` and ``SPLATFIX_FUZZ_NUM`` set the first seed and the number of mutants of each target;
a failure names the seed of its mutant.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import resource
import tempfile
import time
import traceback
from pathlib import Path

import pytest

from splatfix.errors import MachineError, RunAborted
from splatfix.messages import MAX_CHARACTERS, readable
from tests.fuzzing.mutations import mutate
from tests.fuzzing.targets import TARGETS, Target, copy

SEED = int(os.environ.get("SPLATFIX_FUZZ_SEED", "0"))
NUM = int(os.environ.get("SPLATFIX_FUZZ_NUM", "12"))
MAX_SECONDS = 20  # of one mutant, on a machine with other work
MAX_BYTES = 2 * 2**30  # more memory than before the mutant is opened
PREFIX = 30  # characters of a printed line before the message: splatfix COMMAND:
CLEAN = multiprocessing.get_context("forkserver")  # forks no threads of earlier tests, which would hang in a child
CLEAN.set_forkserver_preload(["tests.fuzzing.targets"])
REFUSALS = (ValueError, OSError, FloatingPointError, MachineError, RunAborted)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_mutants_open_or_are_refused_in_a_line(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]
    (tmp_path / "sound").mkdir()
    target.write(tmp_path / "sound")
    outcome, text, _ = run_apart(name, copy(tmp_path / "sound", tmp_path / "mutant"))
    assert outcome == "opened", text
    failures, counts = [], {"opened": 0, "refused": 0}
    for seed in range(SEED, SEED + NUM):
        file = make_mutant(target, tmp_path, f"{name} {seed}")
        outcome, text, seconds = run_apart(name, tmp_path / "mutant")
        counts[outcome] = counts.get(outcome, 0) + 1
        if outcome not in ("opened", "refused"):
            failures.append(f"seed {seed}, {file}, {seconds:.1f} s: {outcome}: {text}")
    print(f"{name}: seeds {SEED} to {SEED + NUM - 1}: {counts}")
    assert not failures, "\n".join(failures)


def make_mutant(target: Target, folder: Path, seed: str) -> str:
    """Copy the sound files, and mutate one of them, or two; returns their names."""
    rng = random.Random(seed)
    copy(folder / "sound", folder / "mutant")
    files = sorted({file for pattern in target.files for file in (folder / "mutant").glob(pattern)})
    chosen = [rng.choice(files) for _ in range(rng.choice((1, 1, 1, 2)))]
    for file in chosen:
        file.write_bytes(mutate(file.read_bytes(), file.name, rng))
    return ", ".join(str(file.relative_to(folder / "mutant")) for file in chosen)


def run_apart(name: str, folder: Path) -> tuple[str, str, float]:
    """Open the files of a target in another process; returns what happened, the message, and seconds.

    It is opened or refused, else a fault: a traceback, a long message, a killed process, too much time or memory.
    """
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        shown, answer = Path(place) / "shown", Path(place) / "answer"
        child = CLEAN.Process(target=_open_and_exit, args=(name, folder, shown, answer))
        child.start()
        child.join(MAX_SECONDS)
        seconds = time.monotonic() - start
        if child.is_alive():
            child.kill()
            child.join()
            return "timeout", "", seconds
        if not answer.is_file():
            return "killed", f"status {child.exitcode}", seconds
        outcome, message = json.loads(answer.read_text())
        if outcome != "refused":
            return outcome, message, seconds
        lines = [line for line in shown.read_text(errors="replace").splitlines() if line.strip()] or [""]
        longest = max(map(len, lines))
        return ("refused" if longest <= MAX_CHARACTERS + PREFIX else f"line of {longest}"), message, seconds


def _open_and_exit(name: str, folder: Path, shown: Path, answer: Path) -> None:
    outcome, message = "opened", ""
    try:
        file = os.open(shown, os.O_CREAT | os.O_WRONLY)
        os.dup2(file, 1)
        os.dup2(file, 2)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + MAX_BYTES, used + MAX_BYTES))
        code = TARGETS[name].open(folder)
        outcome = "refused" if code else "opened"
    except REFUSALS as error:
        outcome, message = "refused", readable(str(error))
        if not str(error):
            outcome = "empty message"
    except BaseException:
        outcome, message = "traceback", traceback.format_exc()[-3000:]
    answer.write_text(json.dumps([outcome, message]))
    os._exit(0)
