"""The table in the terminal."""

from dataclasses import replace

from splatfix.evaluation.results import ARMS
from splatfix.report import results_table
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


def test_nothing_measured():
    table = results_table(make_results([], reasons={"psnr": "no test photos"}))
    assert "No test view was measured." in table and "no test photos" in table
