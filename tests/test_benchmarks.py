"""The benchmarks of stages: each row is there, and the old ways give the same results as ours."""

from __future__ import annotations

import pytest

from splatfix.pairs import write_shards
from splatfix.restoration.nafnet.checkpoint import CheckpointConfig, save_checkpoint
from splatfix.restoration.nafnet.network import GuidedNet, NetworkConfig
from splatfix.sample import sample_path
from tests.benchmarks import restorers
from tests.benchmarks.bench_rendering import table
from tests.benchmarks.bench_stages import BEFORE, in_turn, stages
from tests.benchmarks.results import loop_once, make_page, read_rows
from tests.restoration.scenery import pair

SMALL = NetworkConfig(width=8, enc_blocks=(1, 1), mid_blocks=1, dec_blocks=(1, 1))


@pytest.mark.slow
def test_each_stage_is_timed_beside_the_way_before() -> None:
    rows = stages(1, small=True)  # asserts that both ways agree
    ours = ["metrics of a view", "step of Adam", "20 steps on the host", "restorer step", "photos of a splat"]
    named = {row["work"]: row for row in rows}
    assert {*ours, *(work + BEFORE for work in ours), "matching, numpy", "matching, torch"} <= set(named)
    assert all(row["median_ms"] > 0 for row in rows) and all("times_as_fast" in named[work] for work in ours)
    machine = {"processor": "p", "threads": 1, "compiled_for": "p", "device": "cpu"}
    machine |= {"multiply_adds_per_ns": 1.0, "copied_bytes_per_ns": 1.0}
    text = table({"machine": machine, "rows": rows})
    assert text.count("times as fast as before") == 6 and "MB from process to process" in text


def test_ways_are_timed_in_turn() -> None:
    calls: list[str] = []
    ways = {BEFORE: lambda: calls.append("before"), "": lambda: calls.append("ours")}
    rows = in_turn("scene", "work", ways, 3)
    assert calls == ["before", "ours"] * 4
    assert [row["work"] for row in rows] == ["work, before", "work"]
    assert "times_as_fast" in rows[1] and "times_as_fast" not in rows[0]


def result_rows(capture: str, seed: int, before: float, gain: float) -> list[dict]:
    """Figures of a loop and of two fits beside it."""
    psnr = {"before": before, "control": before - 0.1, "after": before + gain, "post": before + gain, "gain": gain}
    bands = {band: {**psnr, "gain": gain * k} for k, band in enumerate(("all", "near", "mid", "far"), start=1)}
    same = {"capture": capture, "seed": seed, "size_px": 320}
    loop = {**same, "arm": "loop", "psnr": bands, "ssim": {"all": {"gain": 0.01}}, "seconds": 99.6}
    return [loop, *({**same, "arm": arm, "psnr": before - less} for arm, less in (("3DGS", 2.0), ("earlier", 0.5)))]


def test_the_page_of_results_has_means_spreads_and_paired_differences() -> None:
    rows = [
        *result_rows("fox", 0, 20.0, 0.2),
        *result_rows("fox", 1, 21.0, 0.4),
        *result_rows("can", 0, 15.0, -0.1),
        *({**row, "size_px": 160} for row in result_rows("plush", 0, 1.0, 9.0)),
    ]
    page = make_page(rows, 320)
    lines = page.splitlines()
    assert "seeds 0, 1, 1 CPU thread." in page and "plush" not in page
    fox = "| fox | 18.50 ± 0.71 | 20.00 ± 0.71 | 20.50 ± 0.71 | 20.40 ± 0.71 | 20.80 ± 0.85 | 20.80 ± 0.85 | "
    assert fox + "+0.30 ± 0.14 | +0.010 ± 0.000 | 100 |" in lines
    [mean] = [line for line in lines if line.startswith("| mean of 2 ")]
    assert "| +0.10 ± 0.20 |" in mean and "| 17.75 ± 2.75 |" in mean
    assert "| can | -0.20 | -0.30 | -0.40 |" in lines
    assert "| 3DGS | +2.00 ± 0.00 | can +2.00 | can +2.00 | 2 |" in lines
    assert not any(line.startswith("| without decay") for line in lines)  # it was not measured
    assert " can, fox may have been used for choices or training. `3DGS`" in page
    assert "| FSGS | no | 3 | 21.90 / 0.721 / 0.209 | 20.38 / 0.627 / 0.247 | 20.41 |" in lines


def test_the_page_claims_that_captures_are_unseen_only_where_they_are() -> None:
    page = make_page(result_rows("statue", 0, 20.0, 0.2), 320)
    assert "may have been used" not in page and "the defaults, seed 0, 1 CPU thread." in page
    assert "test photos of some of them too, statue, sceaux and fruit among them" in page


def test_a_mean_over_some_of_the_captures_alone_is_left_out() -> None:
    rows = [*result_rows("fox", 0, 20.0, 0.2), *result_rows("can", 0, 15.0, 0.1)[:1]]
    [mean] = [line for line in make_page(rows, 320).splitlines() if line.startswith("| mean of 2 ")]
    assert mean.startswith("| mean of 2 |  |  | 17.50 ")


@pytest.mark.slow
def test_the_results_of_a_capture_are_measured_and_kept(tmp_path) -> None:
    short = {"fit.steps": 60, "repair.steps": 20}
    row = loop_once(sample_path(), 0, 48, tmp_path, short)
    assert loop_once(sample_path(), 0, 48, tmp_path, short) == row  # read, in no time
    page = make_page(read_rows(tmp_path), 48)
    assert f"{row['psnr']['all']['after']:.2f}" in page and row["num_test"] > 0


def test_restorers_are_compared_where_every_render_is_bad() -> None:
    gains = {"psnr_gain": 0.1, "ssim_gain": 0.0, "psnr_gain_bad": 0.3}
    strengths = {name: {**gains, "by_scene": {"one": gains}} for name in ("0.5", "1.0")}
    table = restorers.make_tables({"a": {"chosen_scenes": [], "all": {"by_strength": strengths}}})
    assert "| where the render was good |  |  |" in table and "| where it was bad | +0.30 | +0.30 |" in table


def test_restorers_are_compared_on_groups_that_none_was_trained_on(tmp_path, monkeypatch, capsys) -> None:
    shards = [pair(k, scene=scene) for scene in ("seen", "one", "two") for k in range(2)]
    manifest = write_shards(shards, tmp_path / "pairs")
    assert len(manifest) == 3
    for name, groups in (("a", []), ("b", ["seen"])):
        config = CheckpointConfig(network=SMALL, train_patch_px=24, provenance={"train_groups": groups})
        save_checkpoint(tmp_path / name, GuidedNet(SMALL), config)
    folders = [str(tmp_path / name) for name in "ab"]
    arguments = [str(tmp_path / "pairs"), *folders, "--chosen", "one", "--out", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", ["restorers", *arguments])
    restorers.main()
    printed = capsys.readouterr().out
    assert "| one * |" in printed and "| two |" in printed and "seen" not in printed
    assert printed == (tmp_path / "out/restorers.md").read_text() + "\n"
    [line] = [line for line in printed.splitlines() if line.startswith("| two ")]
    assert all(abs(float(cell)) < 0.5 for cell in line.split("|")[2:-1])  # fresh networks change next to nothing
    assert printed.count(": calibrated error ") == 2
