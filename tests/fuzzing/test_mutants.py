"""Every mutant of a file from others opens plausibly, or is refused in one short line, soon and in bounded memory.

Slow. ``SPLATFIX_FUZZ_SEED`` and ``SPLATFIX_FUZZ_NUM`` set the first seed and the number of mutants of each target;
a failure names the seed of its mutant.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
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
REFUSALS = (ValueError, OSError, FloatingPointError, MachineError, RunAborted)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_mutants_open_or_are_refused_in_a_line(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]
    (tmp_path / "sound").mkdir()
    target.write(tmp_path / "sound")
    outcome, text, _ = run_apart(target, copy(tmp_path / "sound", tmp_path / "mutant"))
    assert outcome == "opened", text
    failures, counts = [], {"opened": 0, "refused": 0}
    for seed in range(SEED, SEED + NUM):
        file = make_mutant(target, tmp_path, f"{name} {seed}")
        outcome, text, seconds = run_apart(target, tmp_path / "mutant")
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


def run_apart(target: Target, folder: Path) -> tuple[str, str, float]:
    """Open the files in another process; returns what happened, the message, and seconds.

    It is opened or refused, else a fault: a traceback, a long message, a killed process, too much time or memory.
    """
    start = time.monotonic()
    with tempfile.TemporaryFile("w+") as shown, tempfile.TemporaryFile("w+") as answer:
        child = os.fork()
        if child == 0:
            _open_and_exit(target, folder, shown.fileno(), answer.fileno())
        while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
            if time.monotonic() - start > MAX_SECONDS:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return "timeout", "", time.monotonic() - start
            time.sleep(0.01)
        answer.seek(0)
        text = answer.read()
        seconds = time.monotonic() - start
        if not text:
            return "killed", f"status {ended[1]}", seconds
        outcome, message = json.loads(text)
        if outcome != "refused":
            return outcome, message, seconds
        shown.seek(0)
        lines = [line for line in shown.read().splitlines() if line.strip()] or [""]
        longest = max(map(len, lines))
        return ("refused" if longest <= MAX_CHARACTERS + PREFIX else f"line of {longest}"), message, seconds


def _open_and_exit(target: Target, folder: Path, shown: int, answer: int) -> None:
    outcome, message = "opened", ""
    try:
        os.dup2(shown, 1)
        os.dup2(shown, 2)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + MAX_BYTES, used + MAX_BYTES))
        code = target.open(folder)
        outcome = "refused" if code else "opened"
    except REFUSALS as error:
        outcome, message = "refused", readable(str(error))
        if not str(error):
            outcome = "empty message"
    except BaseException:
        outcome, message = "traceback", traceback.format_exc()[-3000:]
    os.write(answer, json.dumps([outcome, message]).encode())
    os._exit(0)
