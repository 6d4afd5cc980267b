"""The table and the verdict in the terminal."""

import json
import os
from dataclasses import replace

import pytest

from splatfix.cli import main
from splatfix.evaluation.measure import summarize
from splatfix.evaluation.results import ARMS, IgnoredPixels, Results, write_results
from splatfix.report import describe_run, load_runs, results_table, update_report
from splatfix.report.wording import recommended_arm, verdict
from tests.report.make_run import make_results, make_run


def test_fits_80_columns_and_holds_the_means(tmp_path):
    results = make_run(tmp_path)
    table = results_table(results)
    assert all(len(line) <= 80 for line in table.splitlines())
    row = next(line for line in table.splitlines() if line.split()[:1] == ["far"])
    arms = [f"{results.summary.value('far', arm, 'psnr'):.2f}" for arm in ARMS]
    assert row.split()[2:] == [*arms, f"{results.summary.value('far', 'gain', 'psnr'):+.2f}"]
    assert "LPIPS (lower is better): —" in table and "no weights of VGG-16" in table


def test_null_is_a_dash_and_missing_arms_are_left_out(tmp_path):
    results = make_run(tmp_path, arms=("before",))
    table = results_table(replace(results, summary=replace(results.summary, mid=None)))
    assert "control" not in table and "gain" not in table
    assert next(line for line in table.splitlines() if line.split()[:1] == ["mid"]).split()[-1] == "—"


def test_what_masks_leave_out_is_said(tmp_path):
    results = make_run(tmp_path)
    assert "Masks" not in results_table(results)
    masked = replace(results, ignored=IgnoredPixels(train=0.0612, test=0.25))
    assert "6.1 % of the pixels of the training photos, and 25.0 % of those" in " ".join(results_table(masked).split())
    assert Results.from_json(json.loads(json.dumps(masked.to_json()))) == masked
    write_results(tmp_path, masked)
    assert "Masks leave out 6.1 %" in update_report(load_runs([tmp_path])[0]).read_text()


def test_the_run_to_run_spread_is_beside_the_gain_and_older_results_have_none(tmp_path):
    results = make_run(tmp_path)
    tree = json.loads(json.dumps(results.to_json()))
    del tree["spread"]  # as in results of earlier versions
    assert Results.from_json(tree) == results and "spread" not in verdict(results)
    assert "run-to-run" not in update_report(load_runs([tmp_path])[0]).read_text()
    for spread, taken in ((0.12, "after"), (9.0, "control")):
        spread_results = replace(results, spread={"psnr": spread, "ssim": 0.0, "lpips": None})
        assert Results.from_json(json.loads(json.dumps(spread_results.to_json()))) == spread_results
        write_results(tmp_path, spread_results)
        [run] = load_runs([tmp_path])
        assert f"run-to-run spread {spread:.2f} dB" in " ".join(describe_run(run, tmp_path / "report.html").split())
        page = update_report(run).read_text()
        assert f"PSNR gain on test photos; run-to-run spread {spread:.2f} dB" in page
        assert f"Two controls with the same seed are {spread:.2f} dB apart on this device" in page
        assert recommended_arm(spread_results) == taken
        assert verdict(spread_results).startswith("within noise") == (taken == "control")


def test_renders_of_a_splat_are_not_called_photos_without_a_word(tmp_path):
    make_run(tmp_path)
    assert "renders of" not in describe_run(load_runs([tmp_path])[0], tmp_path / "report.html")
    record = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(record | {"rendered_from": "mine.ply"}))
    [run] = load_runs([tmp_path])
    text = " ".join(describe_run(run, tmp_path / "report.html").split())
    assert "The photos are renders of mine.ply, which itself was not repaired." in text
    assert "photos are renders of mine.ply" in update_report(run).read_text()


def test_nothing_measured():
    table = results_table(make_results([], reasons={"psnr": "no test photos"}))
    assert "No test view was measured." in table and "no test photos" in table


def test_verdict_of_a_loop_and_place_of_its_page(tmp_path):
    make_run(tmp_path)
    [run] = load_runs([tmp_path])
    lines = describe_run(run, tmp_path / "report.html").splitlines()
    assert all(len(line) <= 80 for line in lines[:-1])
    assert " ".join(lines).count(verdict(run.results)) == 1
    assert lines[-1] == f"report: {tmp_path / 'report.html'}"


def test_the_splat_to_take_and_the_next_command_are_named(tmp_path):
    folder = tmp_path / "my run"
    make_run(folder)
    record = json.loads((folder / "run.json").read_text())
    record["inputs"] = {"capture": {"path": "/data/my capture"}}
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "after.ply").touch()
    (folder / "control.ply").touch()
    (folder / "before.ply").touch()
    [run] = load_runs([folder])
    arm = recommended_arm(run.results)
    lines = describe_run(run, folder / "report.html").splitlines()
    assert lines[-2:] == [
        f"splat:  {folder / f'{arm}.ply'}",
        f"next:   splatfix view '{folder}'",
    ]


def test_page_is_written_again_only_where_it_is_older_than_the_results(tmp_path):
    make_run(tmp_path)
    [run] = load_runs([tmp_path])
    page = update_report(run)
    assert page == tmp_path / "report.html" and "<html" in page.read_text()
    page.write_text("kept")
    assert update_report(run).read_text() == "kept"
    os.utime(page, (0, 0))
    assert "<html" in update_report(run).read_text()


@pytest.mark.parametrize(
    ("shift", "restorer", "words", "arm"),
    [
        (
            0.0,
            "nafnet",
            "after.ply is better than control.ply by +1.40 ± 0.16 dB (7 test photos): use after.ply",
            "after",
        ),
        (-1.15, "nafnet", "within noise (+0.25 ± 0.16 dB, 7 test photos): use control.ply, it took no rep", "control"),
        (
            -2.4,
            "nafnet",
            "the loop did not help here (−1.00 ± 0.16 dB, 7 test photos): use control.ply; try",
            "control",
        ),
        (-1.15, "nafnet", "repaired views; try --restorer warp or more photos (docs/your-own-photos.md)", "control"),
        (-2.4, "nafnet", "try --restorer warp or more photos (docs/your-own-photos.md)", "control"),
        (-2.4, "runs/mine", "try --restorer nafnet or more photos (docs/your-own-photos.md)", "control"),
        (-2.4, "warp", "try --restorer nafnet or more photos (docs/your-own-photos.md)", "control"),
    ],
)
def test_a_loop_ends_with_which_splat_to_take_and_why(tmp_path, shift, restorer, words, arm):
    make_run(tmp_path, shift=shift, restorer=restorer)
    for name in ("before", "control", "after"):
        (tmp_path / f"{name}.ply").touch()
    [run] = load_runs([tmp_path])
    said = describe_run(run, tmp_path / "report.html")
    assert words in " ".join(said.split())
    assert f"splat:  {tmp_path / arm}.ply" in said
    assert said.splitlines()[-1] == f"next:   splatfix view {tmp_path}"


@pytest.mark.parametrize(
    ("shift", "sentence", "caption"),
    [
        (0.0, "The run a gained most on ", "largest PSNR gain, 7 test photos."),
        (-1.15, "No run gained beyond noise on ", "largest PSNR gain, 7 test photos: within noise."),
    ],
)
def test_runs_beside_each_other_are_ranked_by_the_rule_for_noise(tmp_path, shift, sentence, caption, capsys):
    for name, further in (("a", 0.0), ("b", -0.3)):
        make_run(tmp_path / name, shift=shift + further)
    page = tmp_path / "both.html"
    assert main(["report", str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(page)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert sentence in said and caption in said and "±" in said and said.endswith(f"report: {page}")
    text = page.read_text()
    assert ("control.ply</td>" in text) == (shift < 0) and ("after.ply</td>" in text) == (shift == 0)


def test_disagreeing_metrics_are_said_beside_the_verdict(tmp_path):
    results = make_run(tmp_path)
    views = [replace(view, after={**view.after, "ssim": view.after["ssim"] - 0.05}) for view in results.views]
    write_results(tmp_path, replace(results, views=tuple(views), summary=summarize(views)))
    said = describe_run(load_runs([tmp_path])[0], tmp_path / "report.html")
    assert "The metrics disagree: SSIM fell by 0.050" in said


def test_the_splat_of_an_evaluation_is_the_one_that_was_given(tmp_path):
    folder, splat = tmp_path / "run", tmp_path / "other.ply"
    make_run(folder, arms=("after",))
    splat.touch()
    record = json.loads((folder / "run.json").read_text())
    record["inputs"] = {"capture": {"path": "/data/x"}, "splat": {"path": str(splat)}}
    (folder / "run.json").write_text(json.dumps(record))
    said = describe_run(load_runs([folder])[0], folder / "report.html").splitlines()
    assert said[-2:] == [f"splat:  {splat}", f"next:   splatfix view {splat} /data/x"]


def test_a_page_of_one_run_is_announced_with_its_verdict(tmp_path, capsys):
    make_run(tmp_path)
    (tmp_path / "after.ply").touch()
    assert main(["report", str(tmp_path)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "after.ply is better than control.ply by +1.40 ± 0.16 dB (7 test photos): use"
    assert said[2:] == [
        f"report: {tmp_path / 'report.html'}",
        f"splat:  {tmp_path / 'after.ply'}",
        f"next:   splatfix view {tmp_path}",
    ]
