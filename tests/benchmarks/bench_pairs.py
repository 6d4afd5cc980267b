"""What generating and reading pairs costs beside the fits themselves: ``make bench-pairs``.

``ray``: the same fits by plain calls, by one actor and by two. ``scale``: very many scenes whose fits only sleep: the
driver's time and memory per scene, and the time to list and to resume. ``read``: the loader of the training beside
loose PNG files.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import splatfix  # noqa: F401  (first: it sets how OpenMP waits)

import numpy as np  # isort: skip
from PIL import Image  # isort: skip
from torch.utils.data import DataLoader, Dataset, IterableDataset  # isort: skip

from splatfix.pairs import read_manifest, sample_pairs
from splatfix.pairs.config import GenerateConfig
from splatfix.pairs.generate import generate
from splatfix.pairs.index import open_index
from splatfix.pairs.pair import encode
from splatfix.pairs.recipes import Recipe
from splatfix.pairs.sources import find_sources
from splatfix.pairs.stream import Pair
from splatfix.pairs.tasks import plan_tasks
from splatfix.pairs.worker import PairWorker, WorkerSettings
from splatfix.process import quiet
from splatfix.sample import sample_path
from splatfix.workers import WorkersConfig, run_tasks
from tests.pairs.stub import StubWorker

RECIPE = Recipe(size_px=192, num_fits=(1, 1), completed=(1.0, 1.0), steps=700, growth=0.0, num_train=(6, 6))


def fits(num: int, workers: int) -> dict[str, float]:
    """Measure the seconds of some fits, from the start and from the first lease."""
    out = tempfile.mkdtemp(prefix="splatfix-bench-")
    sources = find_sources([sample_path()], {})
    config = GenerateConfig(recipes={"photos": RECIPE}, fits_per_capture=num)
    settings = WorkerSettings(out, 0, "cpu", config.recipes, config.dense)
    tasks = list(plan_tasks(sources, config.recipes, num, 0))
    start, leased = time.perf_counter(), None

    def on_busy(busy: int, _ready: int) -> None:
        nonlocal leased
        if busy >= max(workers, 1) and leased is None:
            leased = time.perf_counter()

    with quiet("splatfix.splats"):
        outcomes = list(
            run_tasks(tasks, partial(PairWorker, settings), WorkersConfig(num=workers), name=_stem, on_busy=on_busy)
        )
    end = time.perf_counter()
    failed = [outcome.error for outcome in outcomes if outcome.error is not None]
    assert not failed and len(outcomes) == num, (failed, len(outcomes))
    shutil.rmtree(out)
    return {"total": end - start, "from the first lease": end - (leased or start)}


def _stem(task) -> str:
    return task.stem


def bench_ray(num: int, rounds: int) -> None:
    """Plain calls, one actor and two, interleaved, each in a separate process."""
    times: dict[int, list[dict[str, float]]] = {0: [], 1: [], 2: []}
    for _ in range(rounds):
        for workers in times:
            times[workers].append(_alone("fits", str(num), str(workers)))
    print(f"{num} fits of {RECIPE.steps} steps at {RECIPE.size_px} px, one thread each, medians of {rounds}:")
    for key in ("total", "from the first lease"):
        plain, one, two = (statistics.median(each[key] for each in times[workers]) for workers in times)
        print(
            f"{key:22s} plain calls {plain:6.1f} s, one actor {one:6.1f} s ({one / plain - 1:+.1%}), "
            f"two {two:6.1f} s ({two / one:.0%} of one)"
        )


def _alone(*arguments: str) -> dict[str, float]:
    """Run a part of this benchmark in a new process with one thread."""
    one = dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    command = [sys.executable, "-m", "tests.benchmarks.bench_pairs", *arguments]
    done = subprocess.run(command, env=os.environ | one, capture_output=True, text=True, check=True)
    return {key: float(value) for key, value in (line.split("=") for line in done.stdout.splitlines() if "=" in line)}


def bench_scale(num: int, workers: int) -> None:
    """Generate one fit of each of very many scenes, which sleeps for two milliseconds."""
    root = Path(tempfile.mkdtemp(prefix="splatfix-bench-"))
    for number in range(num):
        folder = root / "in" / f"{number // 1000:03d}" / f"scene{number:06d}"
        folder.mkdir(parents=True)
        (folder / "transforms.json").touch()
    start = time.perf_counter()
    sources = find_sources([root / "in"], {})
    print(f"{len(sources)} scenes found in {time.perf_counter() - start:.1f} s, driver at {_mb():.0f} MB")
    del sources
    out, config = str(root / "out"), GenerateConfig(fits_per_capture=1, workers=WorkersConfig(num=workers))
    seen, last = 0, time.perf_counter()

    class Watched:
        """Replaces the telemetry, and prints the rate and the memory ten times during the run."""

        def __init__(self, *_: object) -> None: ...

        def __enter__(self) -> Watched:
            return self

        def __exit__(self, *_: object) -> None: ...

        def set(self, name: str, _value: object, **_labels: str) -> None:
            nonlocal seen, last
            if name != "splatfix_fits_left":
                return
            seen += 1
            if seen % max(num // 10, 1) == 0:
                now = time.perf_counter()
                per = 1000 * (now - last) / max(num // 10, 1)
                print(f"  {seen:7d} fits: {per:.2f} ms each, driver at {_mb():.0f} MB", flush=True)
                last = now

        def count(self, *_a: object, **_k: object) -> None: ...

        def observe(self, *_a: object, **_k: object) -> None: ...

    import splatfix.pairs.generate as module

    module.Telemetry = Watched  # type: ignore[misc, assignment]
    os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
    start = time.perf_counter()
    summary = generate([root / "in"], out, config, make_worker=partial(StubWorker, seconds=0.002, num_pairs=1))
    print(f"generated in {time.perf_counter() - start:.0f} s; {summary.made} fits, {summary.failed} failed")
    start = time.perf_counter()
    index = open_index(out)
    print(f"listed {len(index)} fits in {time.perf_counter() - start:.1f} s")
    (root / "out" / "fits.json").unlink()
    start = time.perf_counter()
    print(f"listed {len(open_index(out))} fits without fits.json in {time.perf_counter() - start:.1f} s")
    index.write()
    start = time.perf_counter()
    again = generate([root / "in"], out, replace(config, workers=WorkersConfig(num=0)), make_worker=StubWorker)
    print(f"resumed, with {again.found} fits found and {again.made} made, in {time.perf_counter() - start:.1f} s")
    shutil.rmtree(root)


def _mb() -> float:
    """Return the memory of this process in MB."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


class Shards(IterableDataset):
    """The training's stream of pairs, decoded."""

    def __init__(self, url: str) -> None:
        self.url, self.shards = url, read_manifest(url)

    def __iter__(self):
        from torch.utils.data import get_worker_info

        info = get_worker_info()
        for pair in sample_pairs(self.url, self.shards, seed=0, segment=0, slot=0 if info is None else info.id):
            yield _planes(pair)


def _planes(pair: Pair) -> list[np.ndarray]:
    return [pair.artifact, pair.clean, pair.alpha, pair.nearness, *pair.warps]


class Loose(Dataset):
    """The same images as files in folders, in random order."""

    def __init__(self, folders: list[Path]) -> None:
        self.folders = folders

    def __len__(self) -> int:
        return len(self.folders)

    def __getitem__(self, index: int) -> list[np.ndarray]:
        (self.folders[index] / "meta.json").read_bytes()
        return [np.array(Image.open(file)) for file in sorted(self.folders[index].glob("*.png"))]


def bench_read(url: str, num: int) -> None:
    """Pairs per second, decoded, of shards and of loose files, with 0, 1 and 2 workers."""
    root = Path(tempfile.mkdtemp(prefix="splatfix-bench-"))
    folders = []
    for number, pair in enumerate(islice(sample_pairs(url, read_manifest(url), seed=1, segment=0), num)):
        folder = root / f"{number:05d}"
        folder.mkdir()
        for name, content in encode(pair).items():
            if isinstance(content, bytes):
                (folder / name).write_bytes(content)
        folders.append(folder)
    rates: dict[str, list[float]] = {}
    for _ in range(3):
        for workers in (0, 1, 2):
            more = {"num_workers": workers, "batch_size": None, "prefetch_factor": 8 if workers else None}
            loaders = {
                "shards": DataLoader(Shards(url), **more),
                "loose files": DataLoader(Loose(folders), shuffle=True, **more),
            }
            for name, loader in loaders.items():
                samples = iter(loader)
                next(samples)  # workers have started
                start = time.perf_counter()
                read = sum(1 for _ in islice(samples, num - 1))
                rates.setdefault(f"{name}, {workers} workers", []).append(read / (time.perf_counter() - start))
                del samples
    shutil.rmtree(root)
    print(f"pairs per second, decoded, of {num} ({_side(url)}), medians of 3:")
    for name, found in rates.items():
        print(f"  {name:24s}{statistics.median(found):8.0f}")


def _side(url: str) -> str:
    pair = next(iter(sample_pairs(url, read_manifest(url), seed=0, segment=0)))
    return f"{pair.artifact.shape[1]}x{pair.artifact.shape[0]} px, {len(_planes(pair))} images each"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    kinds = parser.add_subparsers(dest="kind", required=True)
    ray = kinds.add_parser("ray", help="plain calls, one actor, two actors")
    ray.add_argument("--fits", type=int, default=12)
    ray.add_argument("--rounds", type=int, default=3)
    scale = kinds.add_parser("scale", help="very many scenes")
    scale.add_argument("--scenes", type=int, default=100_000)
    scale.add_argument("--workers", type=int, default=2)
    read = kinds.add_parser("read", help="the loader beside loose files")
    read.add_argument("url", help="a folder of pairs")
    read.add_argument("--pairs", type=int, default=1500)
    one = kinds.add_parser("fits", help="(used by ray)")
    one.add_argument("num", type=int)
    one.add_argument("workers", type=int)
    arguments = parser.parse_args()
    if arguments.kind == "ray":
        bench_ray(arguments.fits, arguments.rounds)
    elif arguments.kind == "scale":
        bench_scale(arguments.scenes, arguments.workers)
    elif arguments.kind == "read":
        bench_read(arguments.url, arguments.pairs)
    else:
        for key, value in fits(arguments.num, arguments.workers).items():
            print(f"{key}={value}")


if __name__ == "__main__":
    main()
