"""``sweep.json`` as typed values."""

import json

import pytest

from splatfix.report.sweep.results import SWEEP, SweepResults, read_sweep, write_sweep
from tests.report.make_sweep import make_sweep


def test_reading_and_writing_keeps_every_byte(tmp_path):
    make_sweep(tmp_path / "a", pictures=False)
    results = read_sweep(tmp_path / "a")
    write_sweep(tmp_path / "b", results)
    assert read_sweep(tmp_path / "b") == results
    written = json.loads((tmp_path / "b" / SWEEP).read_text())
    assert written == json.loads((tmp_path / "a" / SWEEP).read_text())
    write_sweep(tmp_path / "a", read_sweep(tmp_path / "b"))
    assert (tmp_path / "a" / SWEEP).read_bytes() == (tmp_path / "b" / SWEEP).read_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 7}, "x.json: schema = 7, but this splatfix reads schema 2; resume the sweep"),
        ({"trials": None}, "x.json: trials = None: wanted a valid"),
        ({"metric": "lpips"}, "x.json: metric = 'lpips': wanted 'psnr' or 'ssim'"),
        ({"num_trials": "many"}, "x.json: num_trials = 'many': wanted a valid integer"),
    ],
)
def test_another_layout_is_refused_in_one_line(tmp_path, changes, message):
    record = make_sweep(tmp_path, pictures=False, **changes)
    with pytest.raises(ValueError, match=message) as caught:
        SweepResults.from_json(record, source="x.json")
    assert "\n" not in str(caught.value)


def test_a_missing_field_is_named(tmp_path):
    record = make_sweep(tmp_path, pictures=False)
    del record["trials"][3]["status"]
    with pytest.raises(ValueError, match=r"x.json: trials.3.status is missing"):
        SweepResults.from_json(record, source="x.json")
