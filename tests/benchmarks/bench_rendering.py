"""Times of kernels, the stages around them, a training step and a fit on this machine: ``make bench``.

The Gaussians are those of a real scene (`workload`). Times are medians of several runs; other work on the machine shows
as a gap between the median and the minimum. Beside them stands what the machine can do at most, and how much of it the
drawing kernels use: the multiply-adds that they issue per block of 16 pixels, useful or not, over the measured peak.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import splatfix  # noqa: F401  (first: it sets how OpenMP waits)

import numba  # isort: skip
import numpy as np  # isort: skip
import torch  # isort: skip

from splatfix.captures import Capture
from splatfix.gaussians import Gaussians, Splat
from splatfix.metrics import psnr
from splatfix.process import choose_device
from splatfix.profiling import settle_on
from splatfix.rendering import l1_and_ssim, render
from splatfix.rendering.cpu import tiles
from splatfix.rendering.cpu.functions import Color, Project, Rasterize
from splatfix.rendering.cpu.lanes import LANES
from splatfix.rendering.cpu.projection import pack_camera
from splatfix.splats.densify import DensifyConfig
from splatfix.splats.initial_points import InitializationConfig
from splatfix.splats.scene import load_scene, start_fit
from splatfix.splats.train import FitConfig, advance
from splatfix.views import select_farthest_views
from tests.benchmarks.bench_stages import stages
from tests.benchmarks.bench_stereo import stereo
from tests.benchmarks.machine import peaks
from tests.benchmarks.workload import SCENE, count_blends, open_scene, real_gaussians, square_camera

DRAWN = [(256, 10_000), (256, 50_000), (512, 50_000), (512, 200_000)]  # longest side in px, Gaussians
STEREO = (160, 120)  # px
STEP = (200, 20_000)
FIT = {"size_px": 200, "views": 6, "steps": 2000, "gaussians": 27_000}
# multiply-adds and multiplications per block, forward and backward (which replays the weights of the forward pass)
FORWARD, BACKWARD = 17, 13 + 16


def milliseconds(
    action: Callable[[], object], repeats: int, settle: Callable[[], object] = lambda: None
) -> dict[str, float]:
    """Median and minimum wall time of ``action``, after two runs to warm up. ``settle`` waits for queued work."""
    times = []
    for i in range(repeats + 2):
        settle()
        start = time.perf_counter()
        action()
        settle()
        if i >= 2:
            times.append(1000 * (time.perf_counter() - start))
    return {"median_ms": statistics.median(times), "min_ms": min(times)}


def drawing(capture: Capture, size_px: int, num: int, repeats: int, peak: float) -> list[dict]:
    """Rows of one scene: forward, and forward with backward, both from projected Gaussians."""
    camera = square_camera(capture, size_px)
    g = real_gaussians(capture, camera, num)
    packed = [pack_camera(camera)]
    with torch.no_grad():
        projected = Project.apply(g.means, g.log_scales, g.quats, g.opacity_logits, None, packed, False)
        *values, radii = projected
        colors = Color.apply(g.means, g.sh0, g.sh_rest, radii, packed, 3)
    leaves = [value.detach().requires_grad_() for value in (*values, colors)]
    sizes, behind = [(size_px, size_px)], torch.zeros(3)
    upstream = torch.rand(1, size_px, size_px, 3)

    def forward():
        with torch.no_grad():
            return Rasterize.apply(*leaves, behind, radii, sizes)

    def both():
        rgb, _, _ = Rasterize.apply(*leaves, behind, radii, sizes)
        return torch.autograd.grad(rgb, leaves, upstream)

    arrays = [value.numpy()[0] for value in (*values, colors)]
    visible, order = tiles.sort_by_depth(arrays[2], radii.numpy()[0])
    records, capacities = tiles.pack_records(visible, *arrays, radii.numpy()[0], size_px, size_px, 1)
    entries, starts, _ = tiles.assign_to_tiles(records, order, capacities, size_px, size_px, 1)
    blends, blocks = count_blends(records, entries, starts, size_px, size_px)
    rows = []
    for work, action, operations in (("forward", forward, FORWARD), ("forward + backward", both, FORWARD + BACKWARD)):
        times = milliseconds(action, repeats)
        rows.append(
            {
                "scene": f"{size_px} px, {num // 1000}k",
                "work": work,
                **times,
                "hits_per_gaussian": len(entries) / len(order),
                "blends_per_pixel": blends / size_px**2,
                "useful_lanes": blends / (blocks * LANES),
                "share_of_peak": blocks * LANES * operations / (times["median_ms"] * 1e6) / peak,
            }
        )
    return rows + with_one_thread(rows[-1]["scene"], both, repeats)


def with_one_thread(scene: str, action: Callable[[], object], repeats: int) -> list[dict]:
    """The row of the same work with one thread, where there are more."""
    threads = numba.get_num_threads()
    if threads == 1:
        return []
    use_threads(1)
    row = {"scene": scene, "work": "  one thread", **milliseconds(action, repeats)}
    use_threads(threads)
    return [row]


def training_step(capture: Capture, device: torch.device) -> Callable[[], None]:
    """One step: projection, harmonics, drawing, loss, backward, Adam."""
    size_px, num = STEP
    camera, photo = square_camera(capture, size_px), torch.rand(size_px, size_px, 3).to(device)
    made = real_gaussians(capture, camera, num).to(device)
    g = Gaussians(**{name: value.requires_grad_() for name, value in vars(made).items()})
    optimizer = torch.optim.Adam(list(vars(g).values()), lr=1e-6, fused=True)

    def action():
        l1_and_ssim(render(Splat(g), [camera]).rgb[0], photo, 0.2).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return action


def step(capture: Capture, device: torch.device, repeats: int) -> list[dict]:
    """The rows of training steps: one process with all threads, and on the CPU also with one thread."""
    action, scene = training_step(capture, device), f"{STEP[0]} px, {STEP[1] // 1000}k"
    rows = [{"scene": scene, "work": "training step", **milliseconds(action, 3 * repeats, settle_on(device))}]
    if device.type == "cpu" and numba.get_num_threads() > 1:
        threads = numba.get_num_threads()
        rows += with_one_thread(scene, action, 3 * repeats)
        rows.append({"scene": scene, "work": f"  {threads} processes", **side_by_side(threads, 3 * repeats)})
    return rows


def use_threads(num: int) -> None:
    """Of numba's kernels and of torch."""
    numba.set_num_threads(num)
    torch.set_num_threads(num)


def side_by_side(num: int, repeats: int) -> dict[str, float]:
    """Times of the training step in ``num`` processes of one thread at the same time: the slowest of each."""
    spawn = multiprocessing.get_context("spawn")
    ready, found = spawn.Barrier(num), spawn.Queue()
    processes = [spawn.Process(target=_one_of_many, args=(ready, found, repeats)) for _ in range(num)]
    for process in processes:
        process.start()
    times = [found.get(timeout=300) for _ in processes]
    for process in processes:
        process.join()
    return {name: max(each[name] for each in times) for name in times[0]}


def _one_of_many(ready, found, repeats: int) -> None:
    use_threads(1)
    capture = open_scene(STEP[0])
    assert capture is not None
    action = training_step(capture, torch.device("cpu"))
    action()
    ready.wait(timeout=300)
    found.put(milliseconds(action, repeats))


def fit(capture: Capture, device: torch.device) -> dict:
    """The row of a whole fit that grows to 27,000 Gaussians: seconds, and PSNR on test views."""
    names = [view.camera.name for view in capture.views]
    tested = names[::8]
    rest = [name for name in names if name not in tested]
    cameras = [capture.view(name).camera for name in rest]
    scene = load_scene(capture, select_farthest_views(cameras, FIT["views"]), device)
    config = FitConfig(
        steps=FIT["steps"], densify=DensifyConfig(strategy="mcmc", max_gaussians=FIT["gaussians"], every=15)
    )
    fitted = start_fit(scene, config, InitializationConfig(), seed=0)
    begun = len(fitted.gaussians())
    start = time.perf_counter()
    advance(fitted, scene.views(), FIT["steps"], seed=0)
    settle_on(device)()
    seconds = time.perf_counter() - start
    made = fitted.splat()
    figures = [
        psnr(render(made, [view.camera]).rgb[0].clamp(0, 1), torch.from_numpy(view.load().rgb).to(device))
        for view in map(capture.view, tested)
    ]
    return {
        "scene": f"{FIT['size_px']} px, {FIT['views']} views",
        "work": f"fit, {FIT['steps']} steps",
        "steps_per_second": FIT["steps"] / seconds,
        "median_ms": 1000 * seconds,
        "min_ms": 1000 * seconds,
        "gaussians": [begun, len(made.gaussians)],
        "psnr": float(np.mean(figures)),
    }


def table(report: dict) -> str:
    """The report for people."""
    machine = report["machine"]
    lines = [
        f"{machine['processor']}, {machine['threads']} threads, compiled for {machine['compiled_for']}",
        f"at most {machine['multiply_adds_per_ns']:.0f} multiply-adds and {machine['copied_bytes_per_ns']:.1f} bytes "
        "copied per nanosecond, measured",
        f"training step and fit on {machine['device']}; the kernels' rows are those of the CPU",
        "",
        _row("scene", "work", "median ms", "min ms", "of peak", "lanes", "hits", "blends"),
    ]
    for r in report["rows"]:
        cells = [f"{r['median_ms']:.1f}", f"{r['min_ms']:.1f}"]
        if "useful_lanes" in r:
            cells += [f"{r['share_of_peak']:.0%}", f"{r['useful_lanes']:.0%}"]
            cells += [f"{r['hits_per_gaussian']:.1f}", f"{r['blends_per_pixel']:.1f}"]
        line = _row(r["scene"], r["work"], *cells)
        if r.get("peak_gb") is not None:
            line += f"  at most {r['peak_gb']:.2f} GB, with one thread"
        if "times_as_fast" in r:
            line += f"  {r['times_as_fast']:.2f} times as fast as before"
        line += f"  {r['note']}" if "note" in r else ""
        if "psnr" in r:
            line += f"  {r['gaussians'][0]} to {r['gaussians'][1]} Gaussians, test PSNR {r['psnr']:.2f} dB"
        lines.append(line)
    lines += [
        "",
        "of peak: multiply-adds issued over the measured peak; lanes: share of them for pixels that count;",
        "hits: tiles per visible Gaussian; blends: Gaussians that count per pixel",
    ]
    return "\n".join(lines)


def _row(scene: str, work: str, *cells: str) -> str:
    return f"{scene:19s}{work:31s}" + "".join(f"{cell:>10s}" for cell in cells)


def compare(old: dict, new: dict) -> str:
    """Two reports, row by row."""
    before = {(r["scene"], r["work"]): r for r in old["rows"]}
    lines = [_row("scene", "work", "old ms", "new ms", "old / new")]
    for r in new["rows"]:
        was = before.get((r["scene"], r["work"]))
        if was is not None:
            times = was["median_ms"], r["median_ms"]
            lines.append(_row(r["scene"], r["work"], *(f"{ms:.1f}" for ms in times), f"{times[0] / times[1]:.2f}"))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="also save the report here")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--device", default="auto", help="of the step and the fit: auto, cpu, cuda or cuda:N")
    parser.add_argument("--no-fit", action="store_true", help="leave out the fit, which takes a minute")
    parser.add_argument("--compare", type=Path, nargs=2, metavar=("OLD", "NEW"), help="only compare two saved reports")
    arguments = parser.parse_args()
    if arguments.compare:
        print(compare(*(json.loads(path.read_text()) for path in arguments.compare)))
        return
    capture = open_scene(STEP[0])
    if capture is None:
        parser.exit(2, f"the benchmark draws the scene {SCENE!r}: set SPLATFIX_SCENES to the folder that has it\n")
    try:
        device = choose_device(arguments.device)
    except ValueError as error:
        parser.exit(2, f"{error}\n")
    machine = peaks() | {"device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"}
    rows = []
    for size_px, num in DRAWN:
        rows += drawing(capture, size_px, num, arguments.repeats, machine["multiply_adds_per_ns"])
    rows += stereo(*STEREO, min(3, arguments.repeats))
    rows += stages(min(5, arguments.repeats))
    rows += step(capture, device, arguments.repeats)
    if not arguments.no_fit:
        rows.append(fit(capture, device))
    report = {"machine": machine, "rows": rows}
    print(table(report))
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
