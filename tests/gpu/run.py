"""The GPU checks with any interpreter that has torch, numpy and gsplat: ``python -m tests.gpu.run``.

Installs nothing and needs no pytest. Says what was skipped and why; exits with 1 where a check failed.
"""

from __future__ import annotations

import platform
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec

try:
    import torch

    from tests.gpu.checks import CHECKS, Skip
except ModuleNotFoundError as missing:
    sys.exit(f"{sys.executable}: {missing}; the GPU checks need torch and numpy (and gsplat for most of them)")


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


def main() -> int:
    """Run every check; the exit code."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA device"
    have = [f"{'with' if find_spec(name) else 'without'} {name}" for name in ("gsplat", "numba")]
    print(f"Python {platform.python_version()}, torch {torch.__version__}, {', '.join(have)}; {device}", flush=True)
    counts: Counter[str] = Counter()
    for name, check in CHECKS.items():
        start = time.perf_counter()
        result, reason = outcome(check)
        counts[result] += 1
        shown = f"{result}: {reason}" if reason else result
        print(f"{name:<32} {shown}  ({time.perf_counter() - start:.1f} s)", flush=True)
    print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
