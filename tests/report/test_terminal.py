"""The table in the terminal."""

from splatfix.report import results_table
from tests.report.make_run import make_run


def test_fits_80_columns_and_holds_the_means(tmp_path):
    results = make_run(tmp_path)
    table = results_table(results)
    assert all(len(line) <= 80 for line in table.splitlines())
    row = next(line for line in table.splitlines() if line.split()[:1] == ["far"])
    far = results["summary"]["far"]
    assert row.split()[2:] == [f"{far[arm]['psnr']:.2f}" for arm in ("before", "control", "after", "post")] + [
        f"{far['gain']['psnr']:+.2f}"
    ]
    assert "LPIPS (lower is better): —" in table and "no weights of VGG-16" in table


def test_null_is_a_dash_and_missing_arms_are_left_out(tmp_path):
    results = make_run(tmp_path, arms=("before",))
    results["summary"]["mid"] = None
    table = results_table(results)
    assert "control" not in table and "gain" not in table
    assert next(line for line in table.splitlines() if line.split()[:1] == ["mid"]).split()[-1] == "—"


def test_nothing_measured():
    table = results_table({"views": [], "summary": {"all": None}, "reasons": {"psnr": "no test photos"}})
    assert "No test view was measured." in table and "no test photos" in table
