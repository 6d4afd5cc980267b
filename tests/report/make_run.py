"""A small run folder as evaluation writes it, for the tests of the report."""

from pathlib import Path

import numpy as np

from splatfix.evaluation import figures, layout, video
from splatfix.files import write_json, write_text
from splatfix.images import write_image

NAMES = ["a/0001.jpg", 'b<script>alert(1)</script>"&.png', "猫 7.jpg", "d.jpg", "e.jpg", "f.jpg", "g.jpg"]
ARMS = ("before", "control", "after", "post")


def make_run(path: Path, *, arms=ARMS, shift: float = 0.0, restorer: str | None = "nafnet") -> dict:
    """Write a run with the given arms and return its results."""
    rng = np.random.default_rng(0)
    views = []
    for k, name in enumerate(NAMES):
        photo = rng.random((24, 36, 3)).astype(np.float32)
        write_image(layout.image_path(path, name, "photo"), photo)
        view = {"name": name, "band": ("near", "mid", "far")[k * 3 // len(NAMES)], "distance": 0.1 + 0.1 * k}
        for arm in ARMS:
            offset = {"before": 0.0, "control": 0.1, "after": 0.9 + 0.2 * k + shift, "post": 1.0}[arm]
            view[arm] = {"psnr": 17.03 + k + offset, "ssim": 0.51 + 0.01 * k, "lpips": None} if arm in arms else None
            if arm in arms:
                render = np.clip(photo + 0.1, 0, 1)
                write_image(layout.image_path(path, name, arm), render)
                write_image(layout.error_path(path, name, arm), figures.error_map(render, photo))
        views.append(view)
    results = {
        "schema": 1,
        "capture": "castle & <b>moat</b>",
        "restorer": restorer,
        "seed": 3,
        "size_px": 36,
        "views": views,
        "summary": {band: _summary(views, band, arms) for band in ("all", "near", "mid", "far")},
        "elongation": {arm: {"median": 4.25, "p95": 61.7} for arm in arms if arm != "post"},
        "seconds": {"fit": 61.0, "evaluate": 2.5},
        "num_gaussians": {arm: 12345 for arm in arms if arm != "post"},
        "reasons": {"lpips": "no weights of VGG-16 on disk"},
    }
    write_json(path / "results.json", results)
    write_json(
        path / "run.json", {"command": "loop", "version": "9.9", "seed": 3, "device": "cpu", "notes": ["2 <files>"]}
    )
    write_json(path / "split.json", {"train_ids": ["t1.jpg", "t2.jpg"], "test_ids": NAMES, "size_px": 36})
    write_json(path / "cameras.json", _cameras(views))
    steps = [{"arm": arm, "step": s, "loss": 1 / (1 + s)} for arm in ("before", "after") for s in range(0, 900, 10)]
    write_json(path / "history.json", steps)
    write_text(path / "config.yaml", "seed: 3\nnote: '</pre><script>'\n")
    if "after" in arms:
        for k in range(3):
            for kind in ("render", "repaired"):
                write_image(layout.repair_path(path, 1, f"r{k}", kind), rng.random((24, 36, 3)))
        video.write_video(path / layout.VIDEO, [np.full((16, 32, 3), 30 * k, np.uint8) for k in range(4)])
    return results


def _summary(views: list[dict], band: str, arms) -> dict | None:
    members = [view for view in views if band in ("all", view["band"])]
    if not members:
        return None

    def mean(arm: str) -> dict | None:
        if arm not in arms:
            return None
        return {m: float(np.mean([v[arm][m] for v in members])) for m in ("psnr", "ssim")} | {"lpips": None}

    means = {arm: mean(arm) for arm in ARMS}
    gain = None
    if means["after"] and means["control"]:
        gain = {m: means["after"][m] - max(means["before"][m], means["control"][m]) for m in ("psnr", "ssim")}
        gain["lpips"] = None
    return {**means, "gain": gain}


def _cameras(views: list[dict]) -> dict:
    def camera(angle: float, **more) -> dict:
        center = [np.cos(angle), 0.0, np.sin(angle)]
        axis = [-np.cos(angle), 0.0, -np.sin(angle)]
        size = {"focal_px": 40.0, "width_px": 36, "height_px": 24}
        return {"name": f"<{angle}>", "centre": center, "axis": axis, "up": [0.0, -1.0, 0.0], **size, **more}

    return {
        "train": [camera(0.0), camera(2.0)],
        "test": [{**camera(0.3 * k, band=v["band"]), "name": v["name"]} for k, v in enumerate(views)],
        "repair": [camera(1.0, round=1)],
    }
