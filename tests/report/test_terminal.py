"""The table and the verdict in the terminal."""

import json
import os
from dataclasses import replace

from splatfix.evaluation.results import ARMS, IgnoredPixels, Results, write_results
from splatfix.report import describe_run, load_runs, results_table, update_report
from splatfix.report.wording import headline, recommended_arm
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
    assert " ".join(lines).count(headline(run).sentence) == 1 and "dB" in headline(run).sentence
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
        f"next:   splatfix view '{folder / f'{arm}.ply'}' '/data/my capture'",
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
