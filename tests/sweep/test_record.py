"""Records of trials: what a worker reports, and what is on disk."""

from __future__ import annotations

import pytest

from splatfix.files import write_json
from splatfix.report.sweep.results import CaseFigures
from splatfix.sweep.record import (
    AttemptEnd,
    RoundRecord,
    TrialRecord,
    read_record,
    report_from_json,
    report_to_json,
)

ROUND = RoundRecord(round=2, gain=0.1, seconds=3.5, cases={"a-s0": CaseFigures(gain=0.1, after=20.0)}, time_ms=7)


@pytest.mark.parametrize("report", [ROUND, AttemptEnd(outcome="error", error="lost"), AttemptEnd(outcome="complete")])
def test_a_report_reaches_another_process_as_it_is(report):
    assert report_from_json(report_to_json(report)) == report


def test_a_record_is_read_as_it_was_written(tmp_path):
    record = TrialRecord(number=3, values={"repair.weight": 0.5, "restorer": None}, status="stopped", rounds=(ROUND,))
    record.write(tmp_path)
    assert read_record(tmp_path) == record
    assert read_record(tmp_path / "nowhere") is None


def test_figures_are_those_of_a_round():
    first = RoundRecord(round=1, gain=0.3)
    record = TrialRecord(number=0, values={}, rounds=(first, ROUND))
    assert record.figure("gain") == 0.1 and record.figure("gain", 1) == 0.3
    assert record.figure("gain", 3) is None and TrialRecord(number=0, values={}).figure("gain") is None


def test_a_broken_record_names_its_file_and_a_remedy(tmp_path):
    write_json(tmp_path / "trial.json", {"number": 1, "values": {}, "status": "lost"})
    with pytest.raises(ValueError, match=r"trial.json: status = 'lost': wanted .*; delete .*, to run it again"):
        read_record(tmp_path)
