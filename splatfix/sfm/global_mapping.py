"""Global mapping in a child process: pycolmap offers no way to interrupt it, and a child can be killed.

This file is also the program of the child. It imports pycolmap alone, so that it starts at once.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

POLL_SECONDS = 0.1
END_SECONDS = 10.0  # that the child may take to end when it reads no more
LOG_TAIL = 200  # characters of the child's last line that are reported


def run_global_mapping(request: dict[str, Any], log: Path, on_wait: Callable[[], object]) -> str | None:
    """Run global mapping in a child process; its models are written to the request's folder of models.

    The child is killed where ``on_wait`` raises, which a stop signal does, and it ends by itself if this process dies.

    Args:
        request: the arguments of `map_in_child`.
        log: file for the child's output.
        on_wait: called several times a second.

    Returns:
        Why it failed; None where it did not.
    """
    from splatfix.programs import killing  # here, since the child imports pycolmap alone

    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", __file__],  # -P: modules beside this file must not hide those of other packages
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C reaches this process alone, which then kills the child
        )
    assert process.stdin is not None
    try:
        with killing(process, "global mapping"):
            try:
                process.stdin.write(json.dumps(request).encode() + b"\n")
                process.stdin.flush()
                while True:
                    try:
                        process.wait(POLL_SECONDS)
                        break
                    except subprocess.TimeoutExpired:
                        on_wait()
            except BrokenPipeError:  # it has ended, or is about to
                with suppress(subprocess.TimeoutExpired):
                    process.wait(END_SECONDS)
    finally:
        with suppress(BrokenPipeError):  # what it has not read
            process.stdin.close()
    code = process.returncode
    if code == 0:
        return None
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    end = "it did not end" if code is None else f"exit code {code}"
    return f"{end}: {(lines or ['no output'])[-1][:LOG_TAIL]}"


def map_in_child(
    database: str, images: str, models: str, names: list[str], seed: int, num_threads: int, min_size: int
) -> None:
    """Calibrate focal lengths in a database and map its photos; models are written to a folder. Runs in the child.

    Args:
        database: a copy of the database, which is changed.
        images: folder of the photos as the database names them.
        models: folder for the models.
        names: photos to estimate from.
        seed: seed of all random choices.
        num_threads: number of threads.
        min_size: smallest number of photos of a model.
    """
    import pycolmap

    pycolmap.logging.minloglevel = int(pycolmap.logging.Level.FATAL)  # its errors are exceptions
    pycolmap.set_random_seed(seed)
    pycolmap.calibrate_view_graph(database, pycolmap.ViewGraphCalibrationOptions(random_seed=seed))
    options = pycolmap.GlobalPipelineOptions(
        image_names=names, num_threads=num_threads, random_seed=seed, min_model_size=min_size
    )
    pycolmap.global_mapping(database, images, models, options)


def _end_with_parent() -> None:
    """End this process when the parent, which holds the other end of standard input, has ended."""
    sys.stdin.buffer.read()
    os._exit(1)


if __name__ == "__main__":
    arguments = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    map_in_child(**arguments)
    os._exit(0)  # the thread still reads standard input, which a normal end would wait for
