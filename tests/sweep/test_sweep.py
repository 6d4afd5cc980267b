"""A small sweep from end to end, in this process."""

from __future__ import annotations

import csv
import logging
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import yaml

from splatfix.cli import main
from splatfix.config import load_config, read_yaml
from splatfix.errors import RunAborted
from splatfix.evaluation.repairs import read_repairs
from splatfix.files import read_json
from splatfix.lease import hold_lease
from splatfix.loop import LoopConfig, case_rounds, run_loop
from splatfix.loop.cases import find_cases, fit_baseline
from splatfix.restoration import RestorerChoice, nafnet
from splatfix.runs import remove_run
from splatfix.sample import sample_path
from splatfix.sweep import reruns
from splatfix.sweep.checks import check_sweep
from splatfix.sweep.driver import run_sweep
from splatfix.sweep.settings import apply, flatten_fields
from splatfix.tracking import page_of
from tests.sweep.small import TREE, records, small, without_times, write_config
from tests.waiting import all_runs, client


@pytest.fixture(scope="module")
def sweep(tmp_path_factory) -> Path:
    """A finished sweep over two seeds, with reruns, a held-out capture and tracking."""
    folder = tmp_path_factory.mktemp("sweep")
    other = folder / "other"
    shutil.copytree(sample_path(), other)
    changes = {"seeds": [0, 1], "reruns": 2, "held_out": [str(other)], "search": {"trials": 4}}
    config = write_config(folder / "sweep.yaml", **changes, tracking={"enabled": True})
    assert main(["sweep", "--config", str(config), "--out", str(folder / "out")]) == 0
    return folder / "out"


def test_the_folder_has_all_files_and_figures(sweep):
    results = read_json(sweep / "sweep.json")
    assert results["state"] == "finished" and results["num_trials"] == len(results["trials"]) == 4
    assert [trial["status"] for trial in results["trials"]] == ["complete"] * 4
    assert [trial["is_default"] for trial in results["trials"]] == [True, False, False, False]
    assert [case["case"] for case in results["cases"]] == ["tankard-s0", "tankard-s1"]
    for record in results["trials"]:
        cases = record["cases"]
        assert record["gain"] == pytest.approx(sum(figures["gain"] for figures in cases.values()) / 2)
        assert record["gain_worst"] == min(figures["gain"] for figures in cases.values())
        assert [round_["round"] for round_ in record["rounds"]] == [1, 2]
        assert record["rounds"][1]["gain"] == record["gain"]
        assert 0 < record["rounds"][0]["seconds"] < record["seconds"]
    gains = [record["gain"] for record in results["trials"]]
    assert results["best"] == gains.index(max(gains))
    names = {path.name for path in sweep.iterdir()}
    assert {"sweep.html", "best.yaml", "trials.csv", "config.yaml", "run.json", "mlflow.db"} <= names
    rows = list(csv.DictReader((sweep / "trials.csv").open()))
    assert [float(row["gain"]) for row in rows] == pytest.approx(gains)
    assert [row["repair.weight"] for row in rows] == [str(r["values"]["repair.weight"]) for r in results["trials"]]
    assert not [path for path in sweep.rglob("*") if "partial" in path.name]


def test_the_best_is_rerun_beside_the_default(sweep):
    reruns = read_json(sweep / "sweep.json")["reruns"]
    assert [(row["capture"], row["held_out"], row["seed"]) for row in reruns["rows"]] == [
        ("tankard", False, 102),
        ("tankard", False, 103),
        ("other", True, 102),
        ("other", True, 103),
    ]
    for row in reruns["rows"]:
        assert row["difference"] == pytest.approx(row["best"]["gain"] - row["default"]["gain"])
        baseline = max(row["best"]["before"], row["best"]["control"])
        assert row["best"]["gain"] == pytest.approx(row["best"]["after"] - baseline)
    mean = sum(row["difference"] for row in reruns["rows"][:2]) / 2
    assert reruns["verdict"]["difference"] == pytest.approx(mean)
    assert reruns["verdict"]["low"] < mean < reruns["verdict"]["high"]
    comment = (sweep / "best.yaml").read_text()
    assert reruns["verdict"]["sentence"] in comment and reruns["held_out"]["sentence"] in comment


def test_the_best_config_holds_the_searched_fields_alone(sweep):
    best = records(sweep)[read_json(sweep / "sweep.json")["best"]]
    assert flatten_fields(read_yaml(sweep / "best.yaml")) == best.values
    config = load_config(LoopConfig, sweep / "best.yaml")
    assert config == apply(LoopConfig(), best.values)  # not the size and the steps of the search
    comments = [line for line in (sweep / "best.yaml").read_text().splitlines() if line.startswith("#")]
    (others,) = [line for line in comments if "which are not in this file" in line]
    assert "views.size_px 32" in others and "fit.steps 20" in others and "restorer" not in others


def test_the_best_config_makes_the_same_loop_as_the_trial(sweep, tmp_path):
    """With the other settings of the search, which best.yaml leaves out."""
    best = records(sweep)[read_json(sweep / "sweep.json")["best"]]
    config = apply(small().loop, flatten_fields(read_yaml(sweep / "best.yaml")))
    results = run_loop(sample_path(), tmp_path / "loop", config)
    assert results.summary.value("all", "after", "psnr") == pytest.approx(best.cases["tankard-s0"].after, abs=1e-9)
    case = sweep / "trials" / best.name / "tankard-s0"
    assert (case / "after.ply").read_bytes() == (tmp_path / "loop" / "after.ply").read_bytes()
    assert (case / "before.ply").read_bytes() == (tmp_path / "loop" / "before.ply").read_bytes()
    assert (case / "control.ply").read_bytes() == (tmp_path / "loop" / "control.ply").read_bytes()
    views = [read_json(folder / "results.json")["views"] for folder in (case, tmp_path / "loop")]
    for mine, other in zip(*views, strict=True):
        assert mine["name"] == other["name"] and mine["band"] == other["band"]
        for arm in ("before", "control", "after"):
            assert [mine[arm][m] for m in ("psnr", "ssim")] == [other[arm][m] for m in ("psnr", "ssim")]


@pytest.mark.slow
def test_a_trial_cannot_win_by_its_control(tmp_path):
    space = {"repair.steps": {"choice": [5, 40]}}
    run_sweep(small(space=space, search={"method": "grid", "trials": None}), tmp_path / "out")
    reference = read_json(tmp_path / "out" / "baselines" / "tankard-s0" / "results.json")["summary"]["all"]
    rival = max(reference[arm]["psnr"] for arm in ("before", "control"))
    for record in records(tmp_path / "out"):
        figures = record.cases["tankard-s0"]
        assert figures.gain == pytest.approx(figures.after - rival)
    stops = {int(path.stem) for path in (tmp_path / "out" / "shared").glob("*/*.pt")}
    assert stops == {20, 30, 100}  # sparse fit, control and sibling, sibling of the longer trial


def test_mlflow_has_an_ended_run_with_figures_and_files_of_every_trial(sweep):
    uri = f"sqlite:///{sweep / 'mlflow.db'}"
    runs = {run.info.run_name: run for run in all_runs(uri)}
    assert sorted(runs) == ["out", "trial-0000", "trial-0001", "trial-0002", "trial-0003"]
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    parent, best = runs["out"], f"trial-{read_json(sweep / 'sweep.json')['best']:04d}"
    assert parent.data.tags["splatfix.best"] == best and f"Best: {best}" in parent.data.tags["mlflow.note.content"]
    assert {"sweep.html", "best.yaml", "trials.csv", "sweep.json"} <= {
        entry.path for entry in client(uri).list_artifacts(parent.info.run_id)
    }
    for record in records(sweep):
        run = runs[f"trial-{record.name}"]
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.params == {name: str(value) for name, value in record.values.items()}
        history = client(uri).get_metric_history(run.info.run_id, "near")
        assert [(point.step, point.value) for point in history] == [
            (round_.round, round_.near) for round_ in record.rounds
        ]
        assert run.data.metrics["tankard-s1/gain"] == record.cases["tankard-s1"].gain
        files = {entry.path for entry in client(uri).list_artifacts(run.info.run_id)}
        assert files == {"report.html", "before-control-after", "splats"}
        shown = client(uri).list_artifacts(run.info.run_id, "before-control-after")
        assert [entry.path.rpartition("/")[2] for entry in shown] == ["tankard-s0.jpg", "tankard-s1.jpg"]


def test_the_address_of_the_run_in_mlflow_is_known(sweep):
    (parent,) = [run for run in all_runs(f"sqlite:///{sweep / 'mlflow.db'}") if run.info.run_name == "out"]
    place = f"http://127.0.0.1:5000/#/experiments/{parent.info.experiment_id}/runs/{parent.info.run_id}"
    assert page_of(sweep) == f"mlflow ui --backend-store-uri sqlite:///{sweep / 'mlflow.db'}, then {place}"
    shown = client(f"sqlite:///{sweep / 'mlflow.db'}").list_artifacts(parent.info.run_id, "best trial")
    assert {entry.path for entry in shown} == {"best trial/report.html", "best trial/before-control-after"}
    assert page_of(sweep.parent) is None


@pytest.mark.slow
def test_an_interrupted_sweep_equals_an_uninterrupted_one(sweep, tmp_path, monkeypatch):
    """Interrupted in the middle of a round of the second trial."""
    config = small(seeds=[0, 1], search={"trials": 4})
    real, calls = case_rounds.repair_rounds, []

    def interrupted(*arguments, **keywords):
        for round_ in real(*arguments, **keywords):
            calls.append(round_.number)
            if len(calls) == 6:
                raise KeyboardInterrupt
            yield round_

    monkeypatch.setattr(case_rounds, "repair_rounds", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(config, tmp_path / "out")
    assert [record.status for record in records(tmp_path / "out")] == ["complete", "running"]
    assert len(records(tmp_path / "out")[1].rounds) == 0
    monkeypatch.setattr(case_rounds, "repair_rounds", real)
    run_sweep(config, tmp_path / "out")
    for mine, other in zip(records(tmp_path / "out"), records(sweep), strict=True):
        assert without_times(mine) == without_times(other)
    before = (tmp_path / "out" / "trials" / "0003" / "trial.json").read_text()
    run_sweep(config, tmp_path / "out")  # once more: nothing is left to do
    assert (tmp_path / "out" / "trials" / "0003" / "trial.json").read_text() == before


@pytest.mark.slow
def test_a_sweep_may_get_more_trials_but_no_other_settings(tmp_path, caplog):
    run_sweep(small(search={"trials": 2}), tmp_path / "out")
    first = [without_times(record) for record in records(tmp_path / "out")]
    caplog.clear()
    caplog.set_level(logging.INFO, "splatfix")
    run_sweep(small(search={"trials": 3}), tmp_path / "out")
    assert "2 trials found, 1 remain" in caplog.text
    assert "trial 2 complete" in caplog.text and "trial 1 complete" not in caplog.text
    longer = [without_times(record) for record in records(tmp_path / "out")]
    assert longer[:2] == first and len(longer) == 3
    with pytest.raises(ValueError, match=r"seeds was \[0\], now it is \[5\]; use the same settings"):
        run_sweep(small(seeds=[5]), tmp_path / "out")


def test_a_sweep_is_not_resumed_with_other_weights(tmp_path):
    weights = tmp_path / "weights"
    shutil.copytree(nafnet.SHIPPED_WEIGHTS, weights)
    loop = {"restorer": str(weights), "repair": {**TREE["loop"]["repair"], "rounds": 1}}
    space = {"repair.weight": {"loguniform": [0.1, 2.0]}}
    run_sweep(small(loop=loop, space=space, search={"trials": 1}), tmp_path / "out")
    (file,) = weights.glob("*.safetensors")
    tensors = safetensors.torch.load_file(file)
    with safetensors.safe_open(file, "pt") as stored:
        metadata = stored.metadata()
    safetensors.torch.save_file({name: 2 * value for name, value in tensors.items()}, file, metadata)
    with pytest.raises(ValueError, match=rf"out: restorer {weights} .*has changed since the run began"):
        run_sweep(small(loop=loop, space=space, search={"trials": 2}), tmp_path / "out")


@pytest.mark.slow
def test_a_failed_trial_is_marked_and_the_sweep_continues(tmp_path, monkeypatch):
    real, errors = case_rounds.repair_rounds, [MemoryError(), RuntimeError("not this time")]

    def failing(run, *arguments, **keywords):
        for round_ in real(run, *arguments, **keywords):
            if "0001" in str(run.path) and round_.number == 2:
                raise FloatingPointError("step 27: loss = nan with finite parameters")
            if "0002" in str(run.path):
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
            if "0003" in str(run.path) and errors:
                raise errors.pop()
            yield round_

    monkeypatch.setattr(case_rounds, "repair_rounds", failing)
    results = run_sweep(small(search={"trials": 4}, tracking={"enabled": True}), tmp_path / "out")
    found = records(tmp_path / "out")
    assert [record.status for record in found] == ["complete", "failed", "failed", "complete"]
    assert found[1].error == "step 27: loss = nan with finite parameters" and len(found[1].rounds) == 1
    assert found[2].error == "RuntimeError: DefaultCPUAllocator: can't allocate memory" and errors == []
    assert results.best in (0, 3) and "loss = nan" in (tmp_path / "out" / "sweep.html").read_text()
    statuses = {r.info.run_name: r.info.status for r in all_runs(f"sqlite:///{tmp_path / 'out' / 'mlflow.db'}")}
    assert statuses["trial-0001"] == "FAILED" and statuses["trial-0003"] == statuses["out"] == "FINISHED"


def test_a_broken_cuda_ends_a_sweep_in_one_process(tmp_path, monkeypatch):
    """Also where the error of CUDA is the cause of another one: each later trial would fail at once."""

    def fail(*_, **__):
        try:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        except RuntimeError as error:
            raise ValueError("restorer warp: failed") from error

    monkeypatch.setattr(case_rounds, "repair_rounds", fail)
    with pytest.raises(RunAborted, match=r"trial 0: restorer warp: failed.*CUDA no longer works in this process"):
        run_sweep(small(search={"trials": 2}), tmp_path / "out")
    assert [record.number for record in records(tmp_path / "out")] == [0]


@pytest.mark.slow
def test_a_splat_that_cannot_be_measured_fails_its_trial(tmp_path, monkeypatch):
    real = case_rounds._evaluate

    def broken(run, *arguments, **keywords):
        results = real(run, *arguments, **keywords)
        if "0001" in str(run.path):
            broken_means = replace(results.summary.all, after={**results.summary.all.after, "psnr": float("nan")})
            return replace(results, summary=replace(results.summary, all=broken_means))
        return results

    monkeypatch.setattr(case_rounds, "_evaluate", broken)
    run_sweep(small(search={"trials": 3}), tmp_path / "out")
    found = records(tmp_path / "out")
    assert [record.status for record in found] == ["complete", "failed", "complete"]
    assert found[1].error == "tankard-s0, round 1: PSNR of after = nan"


@pytest.mark.slow
def test_a_failed_rerun_keeps_the_others(tmp_path, monkeypatch):
    real = reruns.run_loop

    def failing(capture, out, config, **keywords):
        if config.seed == 102 and "default" in str(out):
            raise FloatingPointError("loss = nan")
        return real(capture, out, config, **keywords)

    monkeypatch.setattr(reruns, "run_loop", failing)
    space = {"repair.weight": {"choice": [0.1, 2.0]}}
    results = run_sweep(small(space=space, search={"trials": 1}, reruns=3), tmp_path / "out")
    rows, verdict = results.reruns.rows, results.reruns.verdict
    assert [row.error is None for row in rows] == [True, False, True] and "loss = nan" in rows[1].error
    assert verdict.difference == pytest.approx((rows[0].difference + rows[2].difference) / 2)
    assert "of 2 seeds" in verdict.sentence
    assert results.state == "finished" and (tmp_path / "out" / "best.yaml").is_file()


def test_options_of_restorers_are_searched_and_written_as_the_best(tmp_path):
    loop = {
        "restorer": {"name": "warp", "options": {"sigma_color": 0.2}},
        "repair": {**TREE["loop"]["repair"], "rounds": 1, "color_fit": "gain"},
    }
    space = {
        "restorer": {"choice": ["warp", "classical"]},
        "restorer.options.num_references": {"integer": [1, 2], "when": {"restorer": "warp"}},
        "restorer.options.sigma_px": {"choice": [1.0, 2.0], "when": {"restorer": "classical"}},
    }
    results = run_sweep(small(space=space, loop=loop, search={"trials": 3, "method": "random"}), tmp_path / "out")
    assert [trial.status for trial in results.trials] == ["complete"] * 3
    best = next(trial for trial in results.trials if trial.number == results.best)
    options = {name.split(".")[-1]: value for name, value in best.values.items() if name != "restorer"}
    options |= {"sigma_color": 0.2} if best.values["restorer"] == "warp" else {}
    expected = RestorerChoice(name=best.values["restorer"], options=options)
    written = (tmp_path / "out/best.yaml").read_text()
    assert load_config(LoopConfig, tmp_path / "out/best.yaml").restorer == expected
    assert "restorer.options" not in written  # among the settings that the file leaves out
    run = tmp_path / "out/trials/0000/tankard-s0"
    assert load_config(LoopConfig, run / "config.yaml").restorer == RestorerChoice(
        name="warp", options={"sigma_color": 0.2, "num_references": 2}
    )
    assert read_json(run / "results.json")["restorer"] == "warp"
    assert len(read_repairs(run)) > 0


def test_checkpoints_of_ended_trials_are_deleted(sweep):
    assert list(sweep.glob("trials/*/*/checkpoints")) == [] and list(sweep.glob("trials/*/*/after.ply"))


def test_a_driver_on_a_cluster_needs_no_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    config = small(loop={**TREE["loop"], "device": "cuda"})
    assert check_sweep(replace(config, workers=replace(config.workers, num=2)), source="test") == 6
    with pytest.raises(ValueError, match="device = 'cuda'"):
        check_sweep(config, source="test")


def test_a_second_driver_is_refused(tmp_path):
    run_sweep(small(search={"trials": 1}), tmp_path / "out")
    with (
        hold_lease(str(tmp_path / "out"), "splatfix sweep"),
        pytest.raises(ValueError, match=r"out: splatfix sweep \(process \d+ on .*\) is at work here"),
    ):
        run_sweep(small(search={"trials": 1}), tmp_path / "out")


def test_a_password_is_not_written(tmp_path):
    uri = "http://me:secret@127.0.0.1:9/"
    run_sweep(small(search={"trials": 1}, tracking={"uri": uri}), tmp_path / "out")
    for path in (path for path in (tmp_path / "out").rglob("*") if path.is_file()):
        assert b"secret" not in path.read_bytes(), path


@pytest.mark.slow
def test_a_full_disk_ends_the_sweep_and_keeps_its_trials(tmp_path, monkeypatch, capsys):
    real, config = case_rounds.repair_rounds, write_config(tmp_path / "s.yaml", search={"trials": 3})

    def full(run, *arguments, **keywords):
        if "0001" in str(run.path):
            raise OSError(28, "No space left on device", "after.ply")
        yield from real(run, *arguments, **keywords)

    monkeypatch.setattr(case_rounds, "repair_rounds", full)
    arguments = ["sweep", "--config", str(config), "--out", str(tmp_path / "out")]
    assert main(arguments) == 1
    assert "after.ply" in capsys.readouterr().err
    assert [record.status for record in records(tmp_path / "out")] == ["complete", "running"]
    monkeypatch.setattr(case_rounds, "repair_rounds", real)
    assert main(arguments) == 0


def test_without_a_complete_trial_there_is_no_best(tmp_path, monkeypatch, capsys):
    def failing(*_, **__):
        raise FloatingPointError("no")
        yield

    monkeypatch.setattr(case_rounds, "repair_rounds", failing)
    config = write_config(tmp_path / "s.yaml", search={"trials": 2}, reruns=1)
    assert main(["sweep", "--config", str(config), "--out", str(tmp_path / "out")]) == 1
    assert "the first 2 trials failed, the last with: no" in capsys.readouterr().err
    assert not (tmp_path / "out" / "best.yaml").exists()


@pytest.mark.slow
def test_splats_are_dropped_on_request(tmp_path):
    results = run_sweep(small(search={"trials": 2}, keep_splats=False), tmp_path / "out")
    kept = {path.parent.parent.name for path in (tmp_path / "out" / "trials").rglob("after.ply")}
    assert kept == {f"{results.best:04d}"}


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"captures": []}, "captures is empty"),
        ({"captures": ["nowhere/at/all"]}, "captures: .*nowhere/at/all: no such"),
        ({"held_out": [str(sample_path())]}, "held_out: .*tankard is among the captures"),
        ({"captures": [str(sample_path())] * 2}, "captures: .*tankard: is given twice"),
        ({"space": {"restorer": {"choice": ["warp", "magic"]}}}, "restorer 'magic': unknown"),
        ({"space": {"repair.weights": {"uniform": [0, 1]}}}, "did you mean repair.weight"),
        ({"space": {"repair.views": {"integer": [0, 9]}}}, "repair.views = 0"),
        ({"search": {"method": "grid"}}, "space.repair.outward: a grid wants `points: N`"),
        ({"search": {"method": "nsga2"}}, "objectives = .*at least two for nsga2"),
        ({"objectives": ["gain", "seconds"]}, "search.method = 'tpe'"),
        ({"objectives": ["seconds"]}, "objectives = .*gain or gain_worst as the first"),
        ({"halving": {"factor": 1}}, "halving.factor = 1"),
    ],
)
def test_unusable_settings_are_refused_in_one_line_before_anything_runs(tmp_path, capsys, changes, wanted):
    config = write_config(tmp_path / "s.yaml", **changes)
    assert main(["sweep", "--config", str(config), "--out", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err.strip()
    assert re.search(wanted, message) and "\n" not in message
    assert not (tmp_path / "out").exists()


def test_a_baseline_is_kept_and_one_with_other_settings_is_refused(tmp_path):
    capture = tmp_path / "capture"
    shutil.copytree(sample_path(), capture)
    (case,) = find_cases([str(capture)], [0])
    first = fit_baseline(case, small().loop, tmp_path / "out", command="sweep")
    assert fit_baseline(case, small().loop, tmp_path / "out", command="sweep") == first
    with pytest.raises(ValueError, match=r"repair\.steps was \d+, now it is 30"):
        fit_baseline(case, apply(small().loop, {"repair.steps": 30}), tmp_path / "out", command="sweep")


def test_captures_of_the_same_name_get_different_names(tmp_path):
    for place in ("a", "b"):
        (tmp_path / place / "room").mkdir(parents=True)
    (tmp_path / "c" / "room-1").mkdir(parents=True)
    places = [str(tmp_path / place) for place in ("a/room", "b/room", "c/room-1")]
    names = [case.name for case in find_cases(places, [0, 1])]
    assert names == ["room-1-s0", "room-1-s1", "room-2-s0", "room-2-s1", "room-1-1-s0", "room-1-1-s1"]


def test_the_report_of_a_sweep_is_its_page(sweep, tmp_path, capsys):
    assert main(["report", str(sweep), "--out", str(tmp_path / "page.html")]) == 0
    assert (tmp_path / "page.html").read_text() == (sweep / "sweep.html").read_text()
    assert f"report: {tmp_path / 'page.html'}" in capsys.readouterr().out


def test_the_settings_that_a_sweep_was_begun_with_are_taken_on_resuming(sweep, capsys):
    assert main(["sweep", "--out", str(sweep)]) == 0
    said = capsys.readouterr()
    assert "4 trials complete" in said.out and "this sweep is finished" in said.err
    assert main(["sweep", "--out", str(sweep), "--loop.fit.steps", "7"]) == 2
    assert "loop.fit.steps was" in capsys.readouterr().err
    assert yaml.safe_load((sweep / "config.yaml").read_text())["seeds"] == [0, 1]


def test_a_sweep_records_all_files_that_it_writes(sweep, tmp_path):
    copy = shutil.copytree(sweep, tmp_path / "copy")
    (copy / "trials" / "notes.txt").write_text("mine")
    remove_run(copy)
    rest = {path.relative_to(copy).parts[0] for path in copy.rglob("*") if path.is_file()}
    assert rest <= {"trials", "mlflow.db", "mlartifacts", ".driver.lock"}
    assert [path.name for path in (copy / "trials").iterdir()] == ["notes.txt"]
