"""The GPU checks with any interpreter that has torch and numpy: ``python -m tests.gpu.run``.

Installs nothing and needs no pytest. Without ``--out``, runs the checks alone, in this process. With ``--out DIR``, it
also measures: each section (`tests.gpu.sections`) in a separate process, in order of worth, as many as fit in
``--seconds``; ``DIR/results.json`` is rewritten after each. Says what was skipped and why; exits with 1 where a check
failed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

try:
    import torch

    from tests.gpu.checks import CHECKS, Skip
except ModuleNotFoundError as missing:
    sys.exit(f"{sys.executable}: {missing}; the GPU checks need torch and numpy (and gsplat for most of them)")

WHEELS = Path("gpu_wheels")  # packages that are carried along: made by `make gpu-wheels`
LEAST_SECONDS = 15.0  # that a section gets; with less left it is not started


def outcome(check: Callable[[str], None]) -> tuple[str, str]:
    """``passed``, ``failed`` or ``skipped``, and the reason of the last two."""
    if not torch.cuda.is_available():
        built = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
        return "skipped", f"no CUDA device (torch {torch.__version__}, built {built})"
    try:
        check("cuda")
        torch.cuda.synchronize()
    except Skip as skip:
        return "skipped", str(skip)
    except Exception as error:  # whatever it is, the other checks are still worth running
        traceback.print_exc()
        return "failed", str(error).strip().split("\n")[0] or type(error).__name__
    return "passed", ""


def run_checks() -> int:
    """Run every check; the exit code."""
    counts: Counter[str] = Counter()
    for name, check in CHECKS.items():
        start = time.perf_counter()
        result, reason = outcome(check)
        counts[result] += 1
        shown = f"{result}: {reason}" if reason else result
        print(f"{name:<32} {shown}  ({time.perf_counter() - start:.1f} s)", flush=True)
    print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    return 1 if counts["failed"] else 0


def run_sections(out: Path, seconds: float, device: str, names: Sequence[str]) -> int:
    """Run sections in separate processes, and write what they find; the exit code."""
    from tests.gpu.sections import SECTIONS

    out.mkdir(parents=True, exist_ok=True)
    unpack_wheels(out / "packages")
    end = time.monotonic() + seconds
    results: list[dict[str, Any]] = []
    for name in names or SECTIONS:
        section = SECTIONS[name]
        result: dict[str, Any] = {"name": name, "does": section.does, "seconds": 0.0, "rows": [], "checks": {}}
        left = end - time.monotonic()
        print(f"{name}: {section.does}", flush=True)
        if lacks := section.find_lacks(device):
            result |= {"state": "skipped", "reason": f"lacks {', '.join(lacks)}"}
        elif left < LEAST_SECONDS:
            result |= {"state": "not started", "reason": f"{seconds:.0f} s were over"}
        else:
            place = device if torch.cuda.is_available() else "cpu"
            result |= run_apart(name, out, place, min(section.seconds, left))
        print(f"  {result['state']} {result.get('reason', '')}".rstrip(), flush=True)
        results.append(result)
        write_results(out / "results.json", device, results)
    failed = [f"{r['name']}: {name}" for r in results for name, o in r["checks"].items() if o.startswith("failed")]
    broken = [r["name"] for r in results if r["state"] == "failed"]
    print(f"results: {out / 'results.json'}; {len(failed)} checks failed, {len(broken)} sections failed")
    return 1 if failed or broken else 0


def run_apart(name: str, out: Path, device: str, limit: float) -> dict[str, Any]:
    """Run a section in a separate process; after ``limit`` seconds, kill it and all processes that it started."""
    file = out / f"{name}.json"
    file.unlink(missing_ok=True)
    command = [sys.executable, "-m", "tests.gpu.run", "--section", name, "--out", str(out), "--device", device]
    path = os.pathsep.join(filter(None, (str(out / "packages"), os.environ.get("PYTHONPATH"))))
    start = time.monotonic()
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": path}, start_new_session=True)
    try:
        code = process.wait(timeout=limit)
        state = {"state": "done"} if code == 0 else {"state": "failed", "reason": f"exit code {code}"}
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        state = {"state": "timed out", "reason": f"after {limit:.0f} s; what it had found is kept"}
    found = json.loads(file.read_text()) if file.is_file() else {}
    return {**found, **state, "seconds": round(time.monotonic() - start, 1)}


def write_results(path: Path, device: str, results: list[dict[str, Any]]) -> None:
    """Write all sections so far; the file is whole at any time."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    tree = {"device": device, "device_name": name, "torch": torch.__version__, "sections": results}
    aside = path.with_suffix(".partial")
    aside.write_text(json.dumps(tree, indent=1) + "\n")
    aside.replace(path)


def unpack_wheels(target: Path) -> None:
    """Unpack the carried packages that this interpreter does not have; a wheel is a zip file (PEP 427)."""
    for wheel in sorted(WHEELS.glob("*.whl")):
        if find_spec(wheel.name.split("-")[0]) is None and not (target / f"{wheel.name}.unpacked").exists():
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(target)
            (target / f"{wheel.name}.unpacked").touch()
    if target.is_dir():
        sys.path.insert(0, str(target))


def main() -> int:
    """Parse the arguments; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for results.json; without it, the checks alone")
    parser.add_argument("--seconds", type=float, default=540.0, help="longest time of all sections (default: 540)")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these sections alone")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: to try the sections themselves")
    parser.add_argument("--section", help=argparse.SUPPRESS)  # run one in this process
    arguments = parser.parse_args()
    if arguments.out is not None:
        from tests.gpu.sections import SECTIONS, run_section

        if unknown := [name for name in arguments.only if name not in SECTIONS]:
            parser.error(f"--only {unknown[0]}: wanted some of {', '.join(SECTIONS)}")
        if arguments.section:
            run_section(arguments.section, arguments.out / f"{arguments.section}.json", arguments.device)
            return 0
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA device"
    have = [f"{'with' if find_spec(name) else 'without'} {name}" for name in ("gsplat", "numba")]
    print(f"Python {platform.python_version()}, torch {torch.__version__}, {', '.join(have)}; {device}", flush=True)
    if arguments.out is None:
        return run_checks()
    return run_sections(arguments.out, arguments.seconds, arguments.device, arguments.only)


if __name__ == "__main__":
    sys.exit(main())
