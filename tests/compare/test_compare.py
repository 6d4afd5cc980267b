"""A comparison of restorers from end to end: figures, drift that is recovered, resuming, and extending."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from splatfix.captures import open_capture
from splatfix.cli import main
from splatfix.compare.driver import run_compare
from splatfix.compare.entry import EntryTask, entry_identity, label_restorers
from splatfix.compare.frames import good_pixels
from splatfix.lease import hold_lease
from splatfix.loop.cases import Case
from splatfix.report.compare.results import (
    CompareCase,
    CompareResults,
    Entry,
    RestorerResult,
    read_compare,
    shorten_labels,
)
from splatfix.restoration import RESTORERS, Repaired, RestorerChoice, RestorerFactory
from splatfix.sample import sample_path
from splatfix.tracking import TRACKING_FILES, end_status
from splatfix.workers import RunAborted
from tests.compare.small import TREE, small, write_config
from tests.waiting import all_runs


@pytest.fixture(scope="module")
def comparison(tmp_path_factory) -> Path:
    """A finished comparison, with tracking."""
    folder = tmp_path_factory.mktemp("compare")
    config = write_config(folder / "compare.yaml", tracking={"enabled": True})
    assert main(["compare", "--config", str(config), "--out", str(folder / "out")]) == 0
    return folder / "out"


def entry(folder: Path, label: str) -> Entry:
    (found,) = next(restorer for restorer in read_compare(folder).restorers if restorer.label == label).entries
    return found


def test_restorers_that_are_as_good_as_the_best_are_named_beside_it(monkeypatch):
    from splatfix.report.compare.headline import compare_headline

    gains = {"identity": 0.37, "warp": 0.30, "nafnet": 0.40}
    monkeypatch.setattr(RestorerResult, "mean", lambda self, *keys: gains[self.label] if keys == ("gain",) else None)
    monkeypatch.setattr(RestorerResult, "spread", lambda *_: None)
    restorers = tuple(RestorerResult(label=label, restorer=label) for label in gains)
    results = CompareResults(state="finished", cases=(), restorers=restorers)
    headline = compare_headline(results)
    assert headline.sentence.startswith("nafnet gains most in 3D: +0.40 dB")
    assert headline.details[:2] == (
        "identity, which repairs nothing and only averages several fits, gains +0.37 dB.",
        "As good, within 0.05 dB of nafnet: identity.",
    )


@pytest.mark.parametrize(
    ("num", "spread", "tone"), [(1, None, "plain"), (2, 0.01, "plain"), (4, 0.2, "good"), (4, 0.6, "plain")]
)
def test_the_best_restorer_is_praised_only_where_its_gain_stands_out(monkeypatch, num, spread, tone):
    from splatfix.report.compare.headline import compare_headline

    monkeypatch.setattr(RestorerResult, "mean", lambda _, *keys: 0.4 if keys == ("gain",) else None)
    monkeypatch.setattr(RestorerResult, "spread", lambda *_: spread)
    cases = tuple(
        CompareCase(case=f"c-s{k}", capture="c", seed=k, folder="f", before=20.0, control=20.1) for k in range(num)
    )
    restorers = (RestorerResult(label="warp", restorer="warp"),)
    assert compare_headline(CompareResults(state="finished", cases=cases, restorers=restorers)).tone == tone


def test_each_restorer_has_frames_drift_consistency_and_a_gain(comparison):
    for label in ("identity", "warp"):
        found = entry(comparison, label)
        assert found.results is not None
        assert len(found.frames) == len(found.results.views) == 4
        assert found.gain() is not None
        assert found.drift is not None and len(found.drift.frames) == 4
        assert found.path_drift is not None and len(found.path_drift.frames) == 3
        assert found.consistency is not None
        assert found.seconds_per_view is not None and found.seconds_per_view > 0
        assert (comparison / found.folder / "report.html").is_file()
    identity = entry(comparison, "identity")
    assert identity.frame_change("psnr") == 0
    assert identity.path_drift is not None and identity.path_drift.gain_spread == pytest.approx((0, 0, 0), abs=1e-6)
    assert entry(comparison, "warp").frame_change("psnr") != 0


def test_restorers_share_before_and_control(comparison):
    first, second = (entry(comparison, label).results for label in ("identity", "warp"))
    for arm in ("before", "control"):
        assert first.summary.value("all", arm, "psnr") == second.summary.value("all", arm, "psnr")
    assert first.summary.value("all", "after", "psnr") != second.summary.value("all", "after", "psnr")


def test_the_page_and_the_table_show_every_restorer(comparison, capsys):
    page = (comparison / "compare.html").read_text()
    assert "identity" in page and "warp" in page and "data:image/jpeg" in page and "color gain" in page
    assert main(["report", str(comparison), "--out", str(comparison / "again.html")]) == 0
    assert (comparison / "again.html").read_text() == page
    assert main(["compare", "--out", str(comparison)]) == 0  # finished: the table again
    assert "s/view" in capsys.readouterr().out


def test_mlflow_has_a_run_of_each_entry(comparison):
    runs = all_runs(f"sqlite:///{comparison / 'mlflow.db'}")
    assert sorted(run.info.run_name for run in runs) == ["identity on tankard-s0", "out", "warp on tankard-s0"]
    assert all(run.info.status == "FINISHED" for run in runs)
    (warp,) = [run for run in runs if run.info.run_name.startswith("warp")]
    assert warp.data.metrics["gain/psnr"] == pytest.approx(entry(comparison, "warp").gain())


@dataclass(frozen=True, kw_only=True)
class NoOptions:
    """Options of the restorers of these tests."""


@dataclass
class Recording:
    """Returns renders and records each view; interrupted at the view with this number."""

    seen: list[tuple[str, float]]
    stop_at: int | None = None

    def repair(self, views, *, seed):  # noqa: ARG002
        repaired = []
        for view in views:
            if self.stop_at is not None and len(self.seen) >= self.stop_at:
                raise KeyboardInterrupt
            self.seen.append((view.camera.name, float(view.rgb.double().sum())))
            repaired.append(Repaired(view.rgb.clamp(0, 1)))
        return repaired


def register(monkeypatch, name: str, restorer: Any) -> None:
    monkeypatch.setitem(RESTORERS, name, RestorerFactory(options=NoOptions, open=lambda _options, _device: restorer))


@pytest.mark.parametrize(
    "stop_at", [pytest.param(2, marks=pytest.mark.slow), 5, pytest.param(8, marks=pytest.mark.slow)]
)
def test_nothing_is_repaired_twice_after_an_interruption(tmp_path, monkeypatch, stop_at):
    """While the test views, the path or the novel views of the loop are repaired."""
    register(monkeypatch, "recording", recording := Recording([], stop_at))
    config = small(restorers=["recording"])
    with pytest.raises(KeyboardInterrupt):
        run_compare(config, tmp_path / "out")
    recording.stop_at = None
    results = run_compare(config, tmp_path / "out")
    assert results.state == "finished"
    assert len(recording.seen) == len(set(recording.seen)) == 4 + 3 + 3
    run_compare(config, tmp_path / "out")
    assert len(recording.seen) == 4 + 3 + 3
    assert not list((tmp_path / "out").glob("*/*/repairs/*"))


def test_further_restorers_are_added_to_a_finished_comparison(tmp_path, monkeypatch):
    register(monkeypatch, "recording", recording := Recording([]))
    run_compare(small(restorers=["recording"]), tmp_path / "out")
    num = len(recording.seen)
    results = run_compare(small(restorers=["recording", "identity"]), tmp_path / "out")
    assert [restorer.label for restorer in results.restorers] == ["recording", "identity"]
    assert len(recording.seen) == num
    with pytest.raises(ValueError, match=r"loop\.fit\.steps"):
        run_compare(small(loop={**TREE["loop"], "fit": {"steps": 30}}), tmp_path / "out")


COPYING = """
import json, sys
from pathlib import Path
from PIL import Image
source, target = Path(sys.argv[1]), Path(sys.argv[2])
for view in json.loads((source / "views.json").read_text())["views"]:
    Image.open(source / view["render"]).save(target / view["file"])
"""


@pytest.mark.slow
def test_a_changed_program_is_compared_afresh_in_2d_and_in_3d(tmp_path):
    """Its name and options are the same: what it does is not."""
    program = tmp_path / "repair.py"
    program.write_text(COPYING)
    argv = [sys.executable, str(program), "{input}", "{output}"]
    config = small(restorers=[{"name": "command", "options": {"argv": argv, "cache": None}}], path_frames=0)
    (label,) = label_restorers(config.restorers)
    run_compare(config, tmp_path / "out")
    before = entry(tmp_path / "out", label)
    program.write_text(COPYING.replace(".save(", ".convert('RGB').point(lambda value: 255 - value).save("))
    run_compare(config, tmp_path / "out")
    after = entry(tmp_path / "out", label)
    assert after.frame_mean("repaired", "psnr") != before.frame_mean("repaired", "psnr")
    assert after.results.summary.value("all", "after", "psnr") != before.results.summary.value("all", "after", "psnr")


def test_settings_that_decide_nothing_and_new_ones_with_a_default_keep_finished_entries():
    task = EntryTask("warp", "warp", Case("a-s0", "a", "a", 0))
    loop = small().loop
    identity = entry_identity(task, loop, 3)
    assert entry_identity(task, replace(loop, checkpoint_seconds=1.0, device="cpu"), 3) == identity
    assert entry_identity(task, replace(loop, repair=replace(loop.repair, weight=0.5)), 3) != identity
    assert entry_identity(task, loop, 4) != identity


@pytest.mark.slow
def test_an_entry_that_a_killed_driver_had_not_tracked_is_tracked_later(tmp_path):
    config = small(restorers=["identity"], tracking={"enabled": True})
    run_compare(config, tmp_path / "out")
    (folder,) = (tmp_path / "out" / "identity").iterdir()
    for name in TRACKING_FILES:
        (folder / name).unlink()
    run_compare(config, tmp_path / "out")
    assert end_status(folder) == "FINISHED"


@pytest.mark.slow
def test_known_color_gains_are_recovered(tmp_path, monkeypatch):
    """A restorer that repairs perfectly and brightens each frame by a known factor."""
    capture = open_capture(sample_path(), longest_side_px=32)
    gains = np.random.default_rng(0).uniform(0.85, 1.1, (len(capture.names), 3))
    by_name = dict(zip(capture.names, gains, strict=True))

    class Brightening:
        def repair(self, views, *, seed):  # noqa: ARG002
            repaired = []
            for view in views:
                rgb, gain = view.rgb, by_name.get(view.camera.name)
                if gain is not None:
                    rgb = torch.from_numpy(capture.view(view.camera.name).load().rgb * gain).float()
                repaired.append(Repaired(rgb.clamp(0, 1)))
            return repaired

    register(monkeypatch, "brightening", Brightening())
    run_compare(small(restorers=["brightening"]), tmp_path / "out")
    drift = entry(tmp_path / "out", "brightening").drift
    assert drift is not None
    for frame in drift.frames:
        assert frame.gain == pytest.approx(tuple(by_name[frame.name]), rel=0.01)
    expected = np.std([by_name[frame.name] for frame in drift.frames], axis=0)
    assert drift.gain_spread == pytest.approx(tuple(expected), rel=0.03)


def test_a_restorer_that_fails_does_not_stop_the_others(tmp_path, monkeypatch):
    class Failing:
        def repair(self, views, *, seed):  # noqa: ARG002
            raise ValueError("model: no such folder; wanted the folder of a pipeline")

    register(monkeypatch, "failing", Failing())
    with pytest.raises(RunAborted, match=r"1 of 2 failed.*no such folder"):
        run_compare(small(restorers=["failing", "identity"]), tmp_path / "out")
    results = read_compare(tmp_path / "out")
    assert results.state == "running"
    assert entry(tmp_path / "out", "failing").error.startswith("model: no such folder")
    assert entry(tmp_path / "out", "identity").gain() is not None
    assert "no such folder" in (tmp_path / "out" / "compare.html").read_text()
    register(monkeypatch, "failing", Recording([]))
    assert run_compare(small(restorers=["failing", "identity"]), tmp_path / "out").state == "finished"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"restorers": ["warp", "unknown"]}, "restorer 'unknown': unknown"),
        ({"restorers": [{"name": "warp", "options": {"radius": 1}}]}, "unknown option 'radius'"),
        ({"captures": []}, "captures: none given"),
        ({"captures": ["nowhere"]}, "no such folder"),
    ],
)
def test_bad_settings_are_refused_before_anything_starts(tmp_path, changes, words):
    with pytest.raises(ValueError, match=words):
        run_compare(small(**changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_labels_tell_options_and_folders_apart_and_depend_on_no_other_restorer():
    plain = RestorerChoice(name="warp", options={"num_references": 3})
    labels = label_restorers(("warp", plain, "runs/a/restorer", "runs/b/restorer"))
    assert next(iter(labels)) == "warp" and len(labels) == 4
    assert label_restorers((plain,)).keys() <= labels.keys()
    with pytest.raises(ValueError, match="given twice"):
        label_restorers(("warp", "warp"))


def test_restorers_are_separated_by_commas_or_spaces(tmp_path, capsys):
    out = tmp_path / "out"
    flags = ["--workers.num", "0", "--tracking.no-enabled"]
    for given in (["warp,identity,nope"], ["warp", "identity", "nope"], ["{name: warp, options: {}}", "nope"]):
        assert main(["compare", str(sample_path()), "--restorers", *given, "--out", str(out), *flags]) == 2
        assert "restorer 'nope': unknown" in capsys.readouterr().err
    assert not out.exists()


def test_a_second_driver_is_refused(tmp_path, capsys):
    with hold_lease(str(tmp_path), "splatfix compare"):
        assert main(["compare", str(sample_path()), "--restorers", "warp", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "splatfix compare (process" in error and "is at work here" in error and list(tmp_path.iterdir()) == []


def test_good_pixels_do_not_depend_on_ignored_ones():
    render, photo = torch.rand(2, 20, 30, 3, generator=torch.Generator().manual_seed(0))
    photo = render + 0.08 * photo
    validity = torch.ones(20, 30)
    validity[5:12, 8:20] = 0
    good = [good_pixels(render, torch.where(validity[..., None] > 0, photo, color), validity) for color in (0.0, 1.0)]
    assert torch.equal(*good) and good[0].any() and not good[0][validity == 0].any()
    assert torch.equal(good_pixels(render, photo, torch.ones(20, 30)), good_pixels(render, photo))


def test_good_pixels_are_those_with_a_small_error_around():
    photo = torch.full((20, 20, 3), 0.5)
    render = photo.clone()
    render[5:10, 5:10] += 0.3
    good = good_pixels(render, photo)
    assert not good[5:10, 5:10].any()
    assert good[14:, 14:].all()


def test_a_json_of_another_schema_is_refused(comparison, tmp_path):
    tree = json.loads((comparison / "compare.json").read_text())
    (tmp_path / "compare.json").write_text(json.dumps({**tree, "schema": 99}))
    with pytest.raises(ValueError, match="schema = 99"):
        read_compare(tmp_path)
    assert replace(read_compare(comparison)) == read_compare(comparison)


def test_readers_see_no_digest_where_the_name_tells_enough():
    labels = ["nafnet", "flux-fill-3dbfed", "command-6fe7a4", "command-0a1b2c", "mine-abc"]
    restorers = tuple(RestorerResult(label=label, restorer="x") for label in labels)
    shown = shorten_labels(CompareResults(state="finished", cases=(), restorers=restorers))
    assert [each.label for each in shown.restorers] == ["nafnet", "flux-fill", *labels[2:]]
