"""Times of the renderer on this machine: ``python -m tests.benchmarks.bench_rendering [--json FILE]``.

Scenes are random Gaussians in a ball, sized as a fitted scene has them. The median of several runs; other work on the
machine shows as a gap between the median and the minimum.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import splatfix  # noqa: F401  (first: it sets how OpenMP waits)

import numba  # isort: skip
import numpy as np  # isort: skip
import torch  # isort: skip

from splatfix.cameras import Camera, look_at
from splatfix.gaussians import Gaussians
from splatfix.rendering import render, ssim

# name, longest side in px, Gaussians
SCENES = [("256 px, 10k", 256, 10_000), ("256 px, 50k", 256, 50_000), ("512 px, 50k", 512, 50_000)]
STEP = ("200 px, 20k", 200, 20_000)


def scene(size_px: int, count: int, device: str) -> tuple[Gaussians, Camera]:
    """``count`` Gaussians of SH degree 3 that fill the view of a camera of ``size_px`` squared."""
    random = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random)

    directions = torch.nn.functional.normalize(normal(count, 3), dim=1)
    parameters = {
        "means": directions * torch.rand(count, 1, generator=random) ** (1 / 3),
        "log_scales": float(np.log(0.4 * count ** (-1 / 3))) + 0.5 * normal(count, 3),
        "quats": normal(count, 4),
        "opacity_logits": 1.5 * normal(count) - 1,
        "sh0": normal(count, 1, 3),
        "sh_rest": 0.1 * normal(count, 15, 3),
    }
    k = np.array([[1.4 * size_px, 0, size_px / 2], [0, 1.4 * size_px, size_px / 2], [0, 0, 1.0]])
    pose = look_at(np.array([0.0, 0.0, -2.6]), np.zeros(3), np.array([0.0, -1.0, 0.0]))
    gaussians = Gaussians(**{name: t.to(device).requires_grad_() for name, t in parameters.items()})
    return gaussians, Camera("bench", size_px, size_px, k, pose)


def milliseconds(action: Callable[[], object], repeats: int) -> dict[str, float]:
    """Median and minimum wall time of ``action``, after two runs to warm up."""
    times = []
    for i in range(repeats + 2):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        start = time.perf_counter()
        action()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if i >= 2:
            times.append(1000 * (time.perf_counter() - start))
    return {"median_ms": statistics.median(times), "min_ms": min(times)}


def measure(device: str, repeats: int) -> list[dict]:
    """One row per scene and kind of work."""
    rows = []

    def row(name: str, work: str, action: Callable[[], object]) -> None:
        rows.append({"scene": name, "work": work} | milliseconds(action, repeats))

    for name, size, count in SCENES:
        gaussians, view = scene(size, count, device)
        parameters = list(vars(gaussians).values())
        upstream = torch.rand(1, size, size, 3, device=device)

        def forward(gaussians=gaussians, view=view):
            with torch.no_grad():
                return render(gaussians, [view])

        def both(gaussians=gaussians, view=view, parameters=parameters, upstream=upstream):
            return torch.autograd.grad(render(gaussians, [view]).rgb, parameters, upstream)

        row(name, "forward", forward)
        row(name, "forward + backward", both)

    name, size, count = STEP
    gaussians, view = scene(size, count, device)
    photo = torch.rand(size, size, 3, device=device)
    optimizer = torch.optim.Adam(list(vars(gaussians).values()), lr=1e-4, fused=True)

    def step():
        image = render(gaussians, [view]).rgb[0]
        loss = 0.8 * (image - photo).abs().mean() + 0.2 * (1 - ssim(image, photo))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def similarity():
        image = photo.detach().requires_grad_()
        ssim(image, photo).backward()

    row(name, "SSIM, forward + backward", similarity)
    row(name, "training step", step)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="also save the table here")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    arguments = parser.parse_args()
    rows = measure(arguments.device, arguments.repeats)
    print(f"{arguments.device}, {numba.get_num_threads()} threads for the kernels, SH degree 3\n")
    print(f"{'scene':14s}{'work':28s}{'median ms':>10s}{'min ms':>10s}")
    for r in rows:
        print(f"{r['scene']:14s}{r['work']:28s}{r['median_ms']:10.1f}{r['min_ms']:10.1f}")
    if arguments.json:
        report = {"device": arguments.device, "num_threads": numba.get_num_threads(), "rows": rows}
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
