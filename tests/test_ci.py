"""What CI runs, with programs that only note how they are called."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.fake_programs import write_program

SCRIPT = Path(__file__).parent.parent / ".ci" / "run"


@pytest.mark.parametrize(
    ("chromium", "user", "apt_code", "calls", "message"),
    [
        ("sh", 0, 0, [], ""),
        ("no-such-browser", 0, 0, ["apt-get update", "apt-get install"], ""),
        ("no-such-browser", 0, 100, ["apt-get update"], "browser tests will be skipped"),
        ("no-such-browser", 1000, 0, [], "browser tests will be skipped"),
    ],
)
def test_ci_installs_a_missing_chromium_and_goes_on_without_it(tmp_path, chromium, user, apt_code, calls, message):
    for name, lines in {"apt-get": f"echo noise; exit {apt_code}", "make": "exit 0", "id": f"echo {user}"}.items():
        write_program(tmp_path / "bin" / name, f'echo "{name} $1" >> {tmp_path}/calls\n{lines}')
    script = tmp_path / "clone" / ".ci" / "run"
    script.parent.mkdir(parents=True)
    shutil.copy(SCRIPT, script)
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "SPLATFIX_CHROMIUM": chromium}
    done = subprocess.run([script], env=environment, capture_output=True, text=True, check=True, timeout=60)
    called = [call for call in (tmp_path / "calls").read_text().splitlines() if not call.startswith("id")]
    assert called == [*calls, "make lint", "make test-all"]
    assert done.stderr == "" and message in done.stdout
    assert len(done.stdout.splitlines()) == bool(message)
