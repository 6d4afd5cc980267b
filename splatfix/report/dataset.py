"""``dataset.html``: the composition of a folder of pairs, samples of them, and the fits that failed."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from splatfix import storage
from splatfix.evaluation.error_maps import error_map
from splatfix.images import to_bytes
from splatfix.messages import without_secrets
from splatfix.pairs import Pair, read_pairs
from splatfix.pairs.index import CommittedFit, Index, open_index
from splatfix.pairs.provenance import name_maker
from splatfix.pairs.quarantine import read_quarantine
from splatfix.report import pictures
from splatfix.report.html import render_page
from splatfix.views import BANDS, pick_evenly

PAGE = "dataset.html"
MAX_SAMPLES = 16
MAX_SCENES = 400
MAX_QUARANTINE = 200


def write_dataset_page(url: str) -> str:
    """Write ``dataset.html`` beside the shards; returns its place.

    Raises:
        ValueError: the place cannot be read.
    """
    index = open_index(url)
    page = render_page("dataset.html.j2", _context(url, index))
    where = storage.join(url, PAGE)
    storage.write_bytes(where, page.encode())
    return where


def _context(url: str, index: Index) -> dict[str, Any]:
    fits = [fit for fit in index.values() if fit.record.get("kind") == "pairs"]
    records = [fit.record for fit in fits]
    pairs, filtered = _sum(records, "pairs"), _sum(records, "filtered")
    recipes: Counter[str] = Counter()
    cleans: Counter[str] = Counter()
    bands: Counter[str] = Counter()
    psnrs: Counter[int] = Counter()
    for record in records:
        recipes[str(record.get("recipe"))] += record.get("pairs", 0)
        cleans.update({str(kind): num for kind, num in record.get("clean_from", {}).items()})
        bands.update(record.get("bands", {}))
        psnrs.update({int(value): num for value, num in record.get("psnr", {}).items()})
    scenes, quarantine = _scenes(index), sorted(read_quarantine(url).items())
    steps = [record["settings"]["num_steps"] for record in records if record.get("pairs") and "settings" in record]
    return {
        "title": "splatfix pairs",
        "url": without_secrets(url),
        "pairs": pairs,
        "num_scenes": len(scenes),
        "num_fits": len(fits),
        "num_shards": sum(len(fit.shards) for fit in fits),
        "bytes": _sum(records, "bytes"),
        "real_share": cleans["photo"] / max(pairs, 1),
        "filtered": filtered,
        "filtered_share": filtered / max(pairs + filtered, 1),
        "skipped": [record for record in records if "skipped" in record],
        "median_steps": round(statistics.median(steps)) if steps else 0,
        "recipes": _meters(recipes.most_common()),
        "cleans": _meters(cleans.most_common()),
        "bands": _meters([(band, bands[band]) for band in BANDS if band in bands]),
        "psnrs": _meters([(f"{low} to {low + 2} dB", num) for low, num in _in_twos(psnrs)]),
        "makers": Counter(name_maker(fit.record) for fit in index.values()).most_common(),
        "seconds": _meters(_seconds(index), digits=1),
        "samples": [_sample(pair) for pair in _some_pairs(url, fits)],
        "scenes": scenes[:MAX_SCENES],
        "more_scenes": max(0, len(scenes) - MAX_SCENES),
        "quarantine": quarantine[:MAX_QUARANTINE],
        "num_quarantined": len(quarantine),
    }


def _sum(records: Sequence[Mapping[str, Any]], name: str) -> int:
    return sum(record.get(name, 0) for record in records)


def _meters(rows: Sequence[tuple[str, float]], digits: int = 0) -> list[dict[str, Any]]:
    most = max((value for _, value in rows), default=1) or 1
    return [{"name": name, "share": value / most, "text": f"{value:.{digits}f}"} for name, value in rows]


def _in_twos(psnrs: Mapping[int, int]) -> list[tuple[int, int]]:
    """Counts of whole dB, two by two; the tails together."""
    pooled: Counter[int] = Counter()
    for value, num in psnrs.items():
        pooled[min(max(value, 6), 39) // 2 * 2] += num
    return sorted(pooled.items())


def _seconds(index: Index) -> list[tuple[str, float]]:
    by_stage: dict[str, list[float]] = defaultdict(list)
    for fit in index.values():
        for stage, seconds in fit.record.get("seconds", {}).items():
            by_stage[stage].append(seconds)
    return sorted(((stage, statistics.fmean(found)) for stage, found in by_stage.items()), key=lambda row: -row[1])


def _scenes(index: Index) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    psnrs: dict[str, Counter[int]] = defaultdict(Counter)
    for fit in index.values():
        record = fit.record
        name = str(record.get("scene"))
        scene = found.setdefault(
            name,
            {
                "name": name,
                "group": record.get("group"),
                "source": record.get("source"),
                "fits": 0,
                "pairs": 0,
                "filtered": 0,
                "dense": None,
                "notes": record.get("notes", []),
            },
        )
        if record.get("kind") == "dense":
            scene["dense"] = record.get("psnr_held_out")
            continue
        scene["fits"] += 1
        scene["pairs"] += record.get("pairs", 0)
        scene["filtered"] += record.get("filtered", 0)
        psnrs[name].update({int(value): num for value, num in record.get("psnr", {}).items()})
    for name, scene in found.items():
        total = sum(psnrs[name].values())
        scene["psnr"] = sum((v + 0.5) * n for v, n in psnrs[name].items()) / total if total else None
    return [found[name] for name in sorted(found)]


def _some_pairs(url: str, fits: Sequence[CommittedFit]) -> list[Pair]:
    """One pair of each of some fits, from scenes that differ as far as there are such."""
    by_scene: dict[str, list[CommittedFit]] = defaultdict(list)
    for fit in sorted(fits, key=lambda fit: fit.stem):
        if fit.shards:
            by_scene[str(fit.record.get("scene"))].append(fit)
    names = pick_evenly(sorted(by_scene), MAX_SAMPLES)
    chosen = [by_scene[name][k % len(by_scene[name])] for k, name in enumerate(names)]
    pairs = []
    for k, fit in enumerate(chosen):
        try:
            members = list(read_pairs(url, fit.shards[:1]))
        except ValueError:
            continue  # a broken shard: splatfix verify names it
        pairs.append(members[k * 7 % len(members)])
    return pairs


def _sample(pair: Pair) -> dict[str, Any]:
    settings = pair.meta.get("fit_settings", {})
    what = f"{len(settings.get('train_ids', []))} photos, {settings.get('num_steps')} steps"
    artifact, clean = (image.astype(np.float32) / 255 for image in (pair.artifact, pair.clean))
    mask = None if pair.mask is None else pair.mask.astype(np.float32) / 255
    error = to_bytes(error_map(artifact, clean, validity=mask))
    return {
        "title": f"{pair.scene}, {pair.view}",
        "detail": f"{settings.get('recipe')}, {what}, {pair.meta.get('band')}",
        "psnr": pair.meta.get("artifact_psnr"),
        "clean_from": pair.meta.get("clean_from"),
        "artifact": pictures.embed_image(pair.artifact),
        "clean": pictures.embed_image(pair.clean),
        "error": pictures.embed_image(error),
    }
