"""A small sweep folder as the sweep writes it, for the tests of its page."""

from pathlib import Path
from typing import Any

import numpy as np

from splatfix.evaluation import layout
from splatfix.evaluation.results import ViewResult, write_results
from splatfix.files import write_json
from splatfix.images import write_image
from splatfix.report.sweep.results import SCHEMA
from splatfix.views import BANDS
from tests.report.make_run import make_results

SEARCHED = [
    {"field": "repair.weight", "kind": "loguniform", "low": 0.1, "high": 2.0, "log": True, "default": 1.0},
    {"field": "repair.probability", "kind": "uniform", "low": 0.1, "high": 0.9, "log": False, "default": 0.5},
    {"field": "repair.views", "kind": "integer", "low": 8, "high": 48, "log": False, "default": 24},
    {"field": "restorer", "kind": "choice", "choices": ["nafnet", "warp", "classical"], "default": "nafnet"},
    {
        "field": "repair.spread_scale",
        "kind": "choice",
        "choices": [None, 0.02, 0.05],
        "when": {"restorer": ["nafnet", "warp"]},
        "default": None,
    },
    {"field": "repair.outward", "kind": "uniform", "low": 0.0, "high": 1.0, "log": False, "default": 0.5},
    {"field": "repair.num_references", "kind": "integer", "low": 1, "high": 4, "log": False, "default": 2},
]
UNUSED: dict[str, Any] = {"low": None, "high": None, "log": False, "choices": None, "when": None}
SPACE: list[dict[str, Any]] = [{**UNUSED, **entry} for entry in SEARCHED]
CASES = [("tankard", 0, 19.73, 20.34), ("<script>alert(2)</script>", 0, 22.10, 22.41)]
VIEWS = ["IMG_0012.jpg", 'x<script>alert(1)</script>"&.jpg', "IMG_0033.jpg", "IMG_0040.jpg", "IMG_0051.jpg"]


def make_sweep(
    path: Path, *, num: int = 24, size: tuple[int, int] = (24, 36), pictures: bool = True, **changes: Any
) -> dict[str, Any]:
    """Write a finished sweep with reruns, and the pictures of its best trial; ``changes`` replace parts of the record.

    Returns what ``sweep.json`` holds.
    """
    rng = np.random.default_rng(2)
    trials = [_trial(k, rng) for k in range(num)]
    complete = [trial for trial in trials if trial["status"] == "complete"]
    best = max(complete, key=lambda trial: trial["gain"])["number"] if complete else None
    front = [t["number"] for t in complete if not any(_dominates(other, t) for other in complete)]
    record = {
        "schema": SCHEMA,
        "name": "first <b>sweep</b>",
        "state": "finished",
        "objectives": ["gain", "seconds"],
        "metric": "psnr",
        "num_trials": num,
        "search": {"method": "tpe", "seed": 0, "parallel": 2, "startup": 8},
        "halving": {"grace": 1, "factor": 3.0},
        "seconds": {"baselines": 95.0, "trials": 812.3, "reruns": 301.0},
        "cases": [
            {
                "case": case_name(k),
                "capture": capture,
                "seed": seed,
                "folder": f"baselines/{case_name(k)}",
                "before": before,
                "control": control,
            }
            for k, (capture, seed, before, control) in enumerate(CASES)
        ],
        "space": SPACE,
        "trials": trials,
        "best": best,
        "pareto": front,
        "importance": {entry["field"]: round(0.61 * 0.45**k, 3) for k, entry in enumerate(SPACE)},
        "importance_reason": None,
        "reruns": _reruns(best, rng),
        "files": {"best": "best.yaml", "trials": "trials.csv"},
    }
    record |= changes
    write_json(path / "sweep.json", record)
    if pictures and best is not None:
        _write_pictures(path, best, size, rng)
    return record


def case_name(k: int) -> str:
    return f"{('tankard', 'second')[k]}-s0"


def _trial(number: int, rng: np.random.Generator) -> dict[str, Any]:
    values: dict[str, Any] = {entry["field"]: entry["default"] for entry in SPACE}
    if number:
        restorer = str(rng.choice(["nafnet", "nafnet", "warp", "classical"]))
        values = {
            "repair.weight": float(10 ** rng.uniform(-1, np.log10(2))),
            "repair.probability": float(rng.uniform(0.1, 0.9)),
            "repair.views": int(rng.integers(8, 49)),
            "restorer": restorer,
            "repair.spread_scale": [None, 0.02, 0.05][rng.integers(3)],
            "repair.outward": float(rng.uniform(0, 1)),
            "repair.num_references": int(rng.integers(1, 5)),
        }
        if restorer == "classical":
            del values["repair.spread_scale"]
    gain = (
        0.24 - 0.5 * (np.log10(values["repair.weight"]) + 0.35) ** 2 - 0.4 * (values["repair.probability"] - 0.6) ** 2
    )
    gain += {"nafnet": 0.0, "warp": -0.08, "classical": -0.2}[values["restorer"]] + rng.normal(0, 0.02)
    seconds = 6.0 + 0.6 * values["repair.views"] + rng.normal(0, 0.5)
    status = "stopped" if number % 6 == 4 else "failed" if number % 12 == 9 else "complete"
    rounds = [_figures(gain - 0.05, rng) | {"gain_ssim": 0.03 * gain, "round": 1, "seconds": seconds * 0.6}]
    if status == "complete":
        rounds.append(_figures(gain, rng) | {"gain_ssim": 0.03 * gain, "round": 2, "seconds": seconds})
    failed = status == "failed"
    last = {name: None if failed else value for name, value in rounds[-1].items() if name != "round"}
    return {
        "number": number,
        "status": status,
        "is_default": number == 0,
        "values": values,
        **last,
        "rounds": [] if failed else rounds,
        "cases": {} if failed else {case_name(k): _gains(gain, rng) | _after(gain, seconds) for k in range(2)},
        "error": "step 812: loss = nan; <script>alert(3)</script>" if failed else None,
        "elapsed": 95.0 + 33.0 * (number + 1),
    }


def _gains(gain: float, rng: np.random.Generator) -> dict[str, float]:
    near, mid, far = (float(value) for value in gain + rng.normal(0, 0.02, 3) + [-0.05, 0.0, 0.05])
    return {"gain": float(gain), "near": near, "mid": mid, "far": far}


def _after(gain: float, seconds: float) -> dict[str, float]:
    return {"after": 20.3 + gain, "seconds": seconds}


def _figures(gain: float, rng: np.random.Generator) -> dict[str, float]:
    return {**_gains(gain, rng), "gain_worst": float(gain - 0.07)}


def _dominates(a: dict[str, Any], b: dict[str, Any]) -> bool:
    better = a["gain"] > b["gain"] or a["seconds"] < b["seconds"]
    return a["gain"] >= b["gain"] and a["seconds"] <= b["seconds"] and better


def _reruns(best: int | None, rng: np.random.Generator) -> dict[str, Any]:
    seeds, rows = [101, 102, 103], []
    captures = [*((capture, False) for capture, *_ in CASES), ("mug", True)]
    for capture, held_out in captures:
        for seed in seeds:
            base, difference = 20.4 + rng.normal(0, 0.1), 0.12 - 0.1 * held_out + rng.normal(0, 0.035)
            arms = {name: base + more for name, more in (("default", 0.1), ("best", 0.1 + difference))}
            configs = {
                name: {"before": base - 0.6, "control": base, "after": after} | _gains(after - base, rng)
                for name, after in arms.items()
            }
            row = {"capture": capture, "held_out": held_out, "seed": seed, **configs, "difference": difference}
            rows.append({**row, "error": None})
    spread = "the spread of seeds (0.04 dB over 3 seeds; 95 % interval"
    verdict = {
        "beats": True,
        "difference": 0.12,
        "spread": 0.04,
        "low": 0.05,
        "high": 0.19,
        "gain": 0.22,
        "gain_low": 0.12,
        "gain_high": 0.32,
        "sentence": f"The best (trial {best}) beats the default by +0.12 dB, beyond {spread} +0.05 to +0.19).",
    }
    held_out = {
        "beats": None,
        "difference": 0.02,
        "spread": 0.04,
        "low": -0.03,
        "high": 0.07,
        "gain": 0.12,
        "gain_low": 0.02,
        "gain_high": 0.22,
        "sentence": f"On captures that no trial saw, the best (trial {best}) does not: {spread} −0.03 to +0.07).",
    }
    return {"seeds": seeds, "rows": rows, "verdict": verdict, "held_out": held_out}


def _write_pictures(path: Path, best: int, size: tuple[int, int], rng: np.random.Generator) -> None:
    """The best trial's results and pictures; photo, before and control are in the folders of the baselines."""
    for k in range(len(CASES)):
        folder, reference = path / "trials" / f"{best:04d}" / case_name(k), path / "baselines" / case_name(k)
        views = []
        for j, name in enumerate(VIEWS):
            photo = _picture(size, j + 5 * k, rng, 0.0)
            for kind, noise in (("photo", 0.0), ("before", 0.12), ("control", 0.1)):
                write_image(layout.image_path(reference, name, kind), np.clip(photo + _noise(size, noise, rng), 0, 1))
            write_image(layout.image_path(folder, name, "after"), np.clip(photo + _noise(size, 0.07, rng), 0, 1))
            arms = {"before": 19.0 + j, "control": 19.5 + j, "after": 19.3 + j + 0.21 * j + 0.05 * k}
            metrics = {arm: {"psnr": psnr, "ssim": 0.6} for arm, psnr in arms.items()}
            band = BANDS[j * 3 // len(VIEWS)]
            views.append(ViewResult(name=name, band=band, distance=0.1 + 0.1 * j, post=None, **metrics))
        write_results(folder, make_results(views))
        for j in range(3):
            for round_number in (1, 2):
                for kind, noise in (("render", 0.15), ("repaired", 0.03)):
                    image = _picture(size, j + round_number, rng, noise)
                    write_image(layout.repair_path(folder, round_number, f"novel{j}", kind), image)


def _picture(size: tuple[int, int], k: int, rng: np.random.Generator, noise: float) -> np.ndarray:
    """Something smooth that differs from view to view."""
    y, x = np.mgrid[: size[0], : size[1]] / max(size)
    waves = [0.5 + 0.4 * np.sin((4 + c) * x + (7 - c) * y * (1 + 0.2 * k) + k + c) for c in range(3)]
    return np.clip(np.stack(waves, axis=-1) + _noise(size, noise, rng), 0, 1).astype(np.float32)


def _noise(size: tuple[int, int], scale: float, rng: np.random.Generator) -> np.ndarray:
    """Patches, as flawed renders have them."""
    coarse = rng.normal(0, scale, (-(-size[0] // 8), -(-size[1] // 8), 3))
    return coarse.repeat(8, axis=0).repeat(8, axis=1)[: size[0], : size[1]].astype(np.float32)
