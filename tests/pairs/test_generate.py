"""Generation of pairs: resumed, refused with other settings, with a quarantine, and its page and estimate."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Callable
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path

import pytest
import torch

import splatfix
from splatfix import storage
from splatfix.cli import main
from splatfix.config import to_yaml
from splatfix.pairs import read_manifest, read_pairs, sample_pairs
from splatfix.pairs.config import GenerateConfig, read_settings
from splatfix.pairs.estimate import estimate
from splatfix.pairs.generate import Summary, generate, remove_pairs
from splatfix.pairs.ground_truth import DenseConfig
from splatfix.pairs.index import open_index
from splatfix.pairs.provenance import describe_maker
from splatfix.pairs.recipes import Recipe
from splatfix.pairs.tasks import Task
from splatfix.pairs.verify import verify
from splatfix.pairs.worker import PairWorker, TaskResult, WorkerSettings
from splatfix.report.dataset import write_dataset_page
from splatfix.runs import source_digest
from splatfix.sample import sample_path
from splatfix.telemetry import METRICS, run_label
from splatfix.workers import DiskFull, MachineError, RunAborted, WorkersConfig
from tests.fake_ray_metrics import FakeRayMetrics
from tests.pairs.folders import make_empty_captures
from tests.pairs.stub import StubWorker
from tests.test_storage import put_folder

SMALL = Recipe(size_px=48, num_train=(3, 4), num_fits=(1, 1), steps=20, num_random=(50, 100), max_views=3)
IN_PROCESS = WorkersConfig(num=0)
REAL = GenerateConfig(fits_per_capture=2, recipes={"photos": SMALL}, device="cpu", workers=IN_PROCESS)
STUB = GenerateConfig(fits_per_capture=3, device="cpu", workers=IN_PROCESS)


def generate_stubs(captures: list[str], out: str | Path, config: GenerateConfig = STUB) -> Summary:
    """Generate pairs with `StubWorker`, which makes no fits."""
    return generate(captures, str(out), config, make_worker=StubWorker)


def read_shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.tar")}


def test_credentials_of_urls_are_not_written_and_reruns_know_the_capture(tmp_path: Path) -> None:
    root = f"memory://user:hunter2@{tmp_path.name}"
    for name in ("whole", "broken"):
        storage.write_bytes(f"{root}/{name}/transforms.json", b"{}")
    captures = [f"{root}/whole", f"{root}/broken"]
    unlimited = replace(STUB, max_failed=None)
    done = generate_stubs(captures, tmp_path / "pairs", unlimited)
    write_dataset_page(str(tmp_path / "pairs"))
    assert (done.made, done.failed) == (3, 3)
    again = generate_stubs(captures, tmp_path / "pairs", unlimited)
    assert (again.made, again.found) == (0, 3)
    written = {path.name: path.read_bytes() for path in (tmp_path / "pairs").iterdir() if path.is_file()}
    assert {"config.yaml", "quarantine.json", "dataset.html", "fits.json"} <= set(written)
    assert [name for name, content in written.items() if b"hunter2" in content] == []
    assert f"memory://{tmp_path.name}/whole" in written["config.yaml"].decode()


def test_a_rerun_makes_only_the_missing_fits_with_the_same_bytes(tmp_path: Path) -> None:
    done = generate([sample_path()], str(tmp_path), REAL)
    assert (done.made, done.found, done.failed) == (2, 0, 0) and done.pairs > 0
    before = read_shards(tmp_path)
    next(tmp_path.glob("*f001.manifest.json")).unlink()
    again = generate([sample_path()], str(tmp_path), REAL)
    assert (again.made, again.found, again.pairs) == (1, 1, done.pairs)
    assert before and read_shards(tmp_path) == before
    assert verify(tmp_path).problems == ()
    assert len(list(read_pairs(tmp_path))) == done.pairs
    record = open_index(tmp_path)["tankard-f000"].record
    maker = record["made_by"]
    assert (maker["device"], maker["node"]) == ("cpu", socket.gethostname()) and maker.keys() >= {
        "commit",
        "device_name",
    }
    assert (maker["version"], maker["code"]) == (splatfix.__version__, source_digest())
    assert record["recipe"] == "photos" and record["fingerprint"] and set(record["seconds"]) >= {"fit", "render"}


@pytest.mark.slow
def test_clean_renders_share_one_dense_fit(tmp_path: Path) -> None:
    recipes = {"renders": replace(SMALL, clean="renders")}
    config = replace(REAL, recipes=recipes, dense=DenseConfig(size_px=48, steps=40, min_psnr=5.0))
    done = generate([sample_path()], str(tmp_path / "a"), config)
    assert (done.made, done.failed) == (3, 0) and done.pairs > 0
    assert {pair.meta["clean_from"] for pair in read_pairs(tmp_path / "a")} == {"dense fit"}
    assert len(list((tmp_path / "a").glob("*.ply"))) == 1
    demanding = replace(config, dense=replace(config.dense, min_psnr=60.0))
    none = generate([sample_path()], str(tmp_path / "b"), demanding)
    assert (none.made, none.pairs) == (3, 0)
    assert "less than dense.min_psnr = 60" in open_index(tmp_path / "b")["tankard-f000"].record["skipped"]


def test_other_settings_need_another_folder(tmp_path: Path) -> None:
    captures = make_empty_captures(tmp_path / "in", "a", "b")
    generate_stubs(captures[:1], tmp_path / "out")
    with pytest.raises(ValueError, match=r"seed was 0, now it is 1; use the same settings, another --out, or --fresh"):
        generate_stubs(captures, tmp_path / "out", replace(STUB, seed=1))
    other = replace(STUB, recipes={"photos": Recipe(steps=99)})
    with pytest.raises(ValueError, match=r"recipes\.photos\.steps was 2400, now it is 99"):
        generate_stubs(captures, tmp_path / "out", other)
    more = generate_stubs(captures[1:], tmp_path / "out", replace(STUB, fits_per_capture=4))
    assert (more.made, more.pairs) == (4, 2 * 7)
    assert read_settings(str(tmp_path / "out")).captures == tuple(captures)


def test_scenes_keep_their_names_and_groups(tmp_path: Path) -> None:
    first, second = make_empty_captures(tmp_path / "a", "room"), make_empty_captures(tmp_path / "b", "room")
    generate_stubs(first, tmp_path / "out")
    with pytest.raises(
        ValueError, match=r"already have a scene 'room', from .*/a/room; give this capture another name"
    ):
        generate_stubs(second, tmp_path / "out")
    both = generate_stubs([*first, *second], tmp_path / "out")  # the new scene is named by its parent folder too
    assert (both.found, both.made) == (3, 3)
    assert {fit.record["scene"] for fit in open_index(tmp_path / "out").values()} == {"room", "b-room"}
    with pytest.raises(ValueError, match="are in the group 'room', now it is 'rooms'"):
        generate_stubs(first, tmp_path / "out", replace(STUB, groups={"a-room": "rooms", "room": "rooms"}))
    swapped = {name: Recipe(weight=weight) for name, weight in (("x", 1), ("y", 2))}
    generate_stubs(first, tmp_path / "two", replace(STUB, recipes=swapped))
    with pytest.raises(ValueError, match=r"order of recipes was \['x', 'y'\], now it is \['y', 'x'\]"):
        generate_stubs(first, tmp_path / "two", replace(STUB, recipes=dict(reversed(swapped.items()))))


def test_an_output_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(ValueError, match="out: is a file; wanted a folder"):
        generate_stubs(make_empty_captures(tmp_path / "in", "a"), tmp_path / "out")


def test_failed_fits_are_quarantined_and_the_others_continue(tmp_path: Path, caplog) -> None:
    logging.getLogger("splatfix").propagate = True
    captures = make_empty_captures(tmp_path / "in", "a", "broken", "c")
    done = generate_stubs(captures, tmp_path / "out")
    assert (done.made, done.failed, done.pairs) == (6, 3, 12)
    quarantine = json.loads((tmp_path / "out" / "quarantine.json").read_text())["fits"]
    assert sorted(quarantine) == ["broken-f000", "broken-f001", "broken-f002"]
    entry = quarantine["broken-f000"]
    assert entry["reason"] == f"{captures[1]}: cannot be fitted" and entry["attempts"] == 1
    assert (
        entry["traceback"][-1] == f"ValueError: {captures[1]}: cannot be fitted" and "stub.py" in entry["traceback"][-3]
    )
    assert "quarantine.json in the output says why fits failed" in done.text()
    assert "broken-f000: in quarantine after 1 attempts" in caplog.text
    again = generate(captures, str(tmp_path / "out"), STUB, make_worker=_create_mended_worker)
    assert (again.made, again.found, again.failed) == (3, 6, 0)
    assert not (tmp_path / "out" / "quarantine.json").exists()


def _create_mended_worker(settings: WorkerSettings) -> StubWorker:
    """A worker that no longer fails for broken captures."""

    class Mended(StubWorker):
        def run(self, task, upcoming):
            source = replace(task.source, name=task.source.name.replace("broken", "mended"))
            committed = super().run(replace(task, source=source), upcoming)
            fit = committed.fit
            storage.write_bytes(f"{self.settings.out}/{task.stem}.manifest.json", b'{"schema": 1, "shards": []}')
            return replace(committed, fit=replace(fit, stem=task.stem))

    return Mended(settings)


def test_the_same_photos_in_two_groups_cause_a_warning(tmp_path: Path, caplog) -> None:
    logging.getLogger("splatfix").propagate = True
    (tmp_path / "copy").symlink_to(sample_path())
    captures = [sample_path(), tmp_path / "copy"]
    generate(captures, str(tmp_path / "out"), replace(REAL, fits_per_capture=1))
    assert "tankard and copy hold the same photos" in caplog.text
    caplog.clear()
    grouped = replace(REAL, fits_per_capture=1, groups={"copy": "tankard"})
    generate(captures, str(tmp_path / "grouped"), grouped)
    assert "the same photos" not in caplog.text


def test_a_full_disk_leaves_a_consistent_output(tmp_path: Path, monkeypatch) -> None:
    captures = make_empty_captures(tmp_path / "in", "a", "b", "c")
    real_create, num_writes = storage.create, 6  # of settings, the lease, and four manifests

    def create(url: str, content: bytes) -> bool:
        nonlocal num_writes
        num_writes -= 1
        if num_writes < 0:
            raise OSError(28, "No space left on device", url)
        return real_create(url, content)

    monkeypatch.setattr("splatfix.storage.create", create)
    with pytest.raises(DiskFull, match=r"the disk is full .* finished work is kept"):
        generate_stubs(captures, tmp_path / "out")
    monkeypatch.undo()
    verification = verify(tmp_path / "out")
    assert (verification.num_samples, verification.problems) == (2 * 4, ())
    done = generate_stubs(captures, tmp_path / "out")
    assert (done.found, done.made) == (4, 5)
    assert verify(tmp_path / "out").problems == ()


def test_an_output_without_write_permission_ends_the_run(tmp_path: Path, monkeypatch) -> None:
    import obstore
    from obstore.exceptions import PermissionDeniedError

    captures, real_put, num_writes = make_empty_captures(tmp_path / "in", "a", "b", "c"), obstore.put, 7

    def put(*arguments: object, **more: object) -> object:
        nonlocal num_writes
        num_writes -= 1
        if num_writes < 0:
            raise PermissionDeniedError("Access Denied\nby a policy")
        return real_put(*arguments, **more)

    monkeypatch.setattr(obstore, "put", put)
    url = f"memory://{tmp_path.name}"
    with pytest.raises(RunAborted, match=r"cannot be written to .*Access Denied.* finished fits are intact"):
        generate_stubs(captures, url)
    monkeypatch.undo()
    again = generate_stubs(captures, url)
    assert (again.found, again.made, again.failed) == (2, 7, 0)
    assert verify(url).problems == ()


def test_a_second_driver_is_refused_on_an_object_store(bucket: str, tmp_path: Path) -> None:
    captures = make_empty_captures(tmp_path / "in", "a", "b", "c")
    refusals: list[object] = []

    class Second(StubWorker):
        def run(self, task, upcoming):
            if not refusals:
                with pytest.raises(ValueError, match=r"splatfix generate \(process .* is at work here") as refusal:
                    generate_stubs(captures, f"{bucket}/x")
                refusals.append(refusal)
            return super().run(task, upcoming)

    summary = generate(captures, f"{bucket}/x", STUB, make_worker=Second)
    assert (summary.made, summary.pairs, len(refusals)) == (9, 18, 1)
    verification = verify(f"{bucket}/x")
    assert (verification.num_samples, verification.problems) == (18, ())
    keys = [pair.key for pair in read_pairs(f"{bucket}/x")]
    assert len(keys) == len(set(keys)) == 18
    shards = read_manifest(f"{bucket}/x")
    streams = [[pair.key for pair in islice(sample_pairs(f"{bucket}/x", shards, seed=0, segment=1), 30)] for _ in "ab"]
    assert streams[0] == streams[1] and set(streams[0]) <= set(keys)
    assert generate_stubs(captures, f"{bucket}/x").found == 9
    assert all("/" not in name and not name.startswith(".") for name in storage.list_tree(f"{bucket}/x"))


def test_a_run_ends_early_when_too_many_fits_fail(tmp_path: Path) -> None:
    captures = make_empty_captures(tmp_path / "in", "a", "broken", *"bcdefghij")
    config, out = replace(STUB, fits_per_capture=5), tmp_path / "out"
    with pytest.raises(
        RunAborted,
        match=r"5 of 55 fits failed, more than max_failed = 0\.05 allows; quarantine\.json has all .* cannot be fitted",
    ):
        generate_stubs(captures, out, config)
    assert len(open_index(out)) == 15 and not (out / ".driver.json").exists()  # 20 had ended
    done = generate_stubs(captures, out, replace(config, max_failed=None))
    assert (done.made, done.found, done.failed) == (35, 15, 5)


def test_the_exit_code_says_that_fits_are_in_quarantine(tmp_path: Path, capsys) -> None:
    captures = make_empty_captures(tmp_path / "in", "a")
    arguments = ["generate", *captures, "--out", str(tmp_path / "out"), "--workers.num", "0", "--device", "cpu"]
    assert main(arguments) == 3
    assert "0 made, 0 found, 4 in quarantine" in capsys.readouterr().out


def test_fits_on_another_disk_are_an_error(tmp_path: Path) -> None:
    class Elsewhere(StubWorker):
        def run(self, task, upcoming):
            elsewhere = replace(self.settings, out=str(tmp_path / "other"))
            return StubWorker(elsewhere).run(task, upcoming)

    captures = make_empty_captures(tmp_path / "in", "a", "b")
    with pytest.raises(
        RunAborted, match=r"out: 6 of 6 fits that workers committed are not there, a-f000 for one: work"
    ):
        generate(captures, str(tmp_path / "out"), STUB, make_worker=Elsewhere)


def test_a_worker_that_does_not_see_the_output_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("splatfix.shared_folder.PATIENCE_SECONDS", 0.0)

    def create(settings: WorkerSettings) -> PairWorker:
        assert settings.token is not None
        return PairWorker(replace(settings, out=str(tmp_path / "other")))

    captures = make_empty_captures(tmp_path / "in", "a", "b")
    with pytest.raises(MachineError, match=r"other is not the folder that the driver writes to; mount the same disk"):
        generate(captures, str(tmp_path / "out"), STUB, make_worker=create)


def test_fits_that_were_made_differently_are_announced(tmp_path: Path, monkeypatch, caplog) -> None:
    out = str(tmp_path / "out")
    maker: dict[str, str | None] = {"version": "0.0.9", "code": "0123456789ab", "device": "cpu"}

    class Marked(StubWorker):
        def run(self, task, upcoming):
            monkeypatch.setattr("tests.pairs.stub.MORE", {"made_by": maker})
            return super().run(task, upcoming)

    captures = make_empty_captures(tmp_path / "in", "a", "b")
    generate(captures[:1], out, STUB, make_worker=Marked)
    assert "made by" not in caplog.text
    maker = {**describe_maker(torch.device("cpu")), "device": "cuda"}
    generate(captures, out, STUB, make_worker=Marked)
    mix = (
        "other code made some before (3 by splatfix 0.0.9 (code 01234567) on cpu); they may differ, --fresh or another"
    )
    assert f"more fits are made by splatfix {maker['version']} (code {str(maker['code'])[:8]}), {mix}" in caplog.text
    assert caplog.text.count("they may differ") == 1
    assert sorted(verify(out).makers.values()) == [3, 3]
    assert "These fits were made differently" in Path(write_dataset_page(out)).read_text()
    caplog.clear()
    maker = {**maker, "device": "cpu"}
    generate(captures, str(tmp_path / "other"), STUB, make_worker=_alternate(maker, monkeypatch))
    assert caplog.text.count("fits are made differently (1 by splatfix") == 1


def _alternate(maker: dict, monkeypatch) -> Callable[[WorkerSettings], StubWorker]:
    """A worker whose fits were made on the CPU and on a GPU by turns."""
    devices = cycle(["cpu", "cuda"])

    class Alternating(StubWorker):
        def run(self, task, upcoming):
            monkeypatch.setattr("tests.pairs.stub.MORE", {"made_by": maker | {"device": next(devices)}})
            return super().run(task, upcoming)

    return Alternating


def test_a_run_that_is_told_to_stop_lists_files_and_writes_its_index_once(tmp_path: Path, monkeypatch, caplog) -> None:
    caplog.set_level("INFO")
    out, real_list = tmp_path / "out", storage.list_folder
    listed: list[str] = []

    def list_folder(url: str | Path) -> tuple[list[str], list[str]]:
        listed.append(str(url))
        return real_list(url)

    monkeypatch.setattr(storage, "list_folder", list_folder)

    class Stopping(StubWorker):
        def run(self, task, upcoming):
            if task.stem == "b-f001":
                super().run(task, upcoming)  # committed, but the driver does not hear of it
                listed.clear()
                monkeypatch.setattr("splatfix.process._requested", "terminated")
                raise KeyboardInterrupt
            return super().run(task, upcoming)

    with pytest.raises(KeyboardInterrupt):
        generate(make_empty_captures(tmp_path / "in", "a", "b"), str(out), STUB, make_worker=Stopping)
    assert listed.count(str(out)) == 1
    assert "out: 2 fits remain; writing the index" in caplog.text
    assert len(read_manifest(out)) == 5 and storage.list_names(out / ".tokens") == []


@pytest.mark.slow
def test_the_estimate_uses_short_fits_or_the_fits_of_the_output(tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    before = estimate([sample_path()], out, REAL, on_workers=10, speed=2.0)
    assert before.fits == {"photos": 2} and before.done == 0 and before.pairs > 0 and before.bytes > 0
    assert before.hours == pytest.approx(before.seconds / 10 / 3600)
    assert "just now" in before.text() and not Path(out).exists()
    done = generate([sample_path()], out, replace(REAL, fits_per_capture=1))
    after = estimate([sample_path()], out, replace(REAL, fits_per_capture=3))
    assert (after.done, after.pairs) == (1, 2 * done.pairs)
    assert "1 fits of this output" in after.text()
    url = f"memory://{tmp_path.name}"
    put_folder(sample_path(), f"{url}/tankard")
    remote = estimate([f"{url}/tankard"], f"{url}/pairs", REAL)
    assert remote.fits == before.fits and remote.pairs > 0 and storage.list_tree(f"{url}/pairs") == []
    with pytest.raises(ValueError, match=r"speed = 0: wanted a factor above 0"):
        estimate([sample_path()], out, REAL, speed=0)


def test_the_commands_generate_and_verify(tmp_path: Path, capsys) -> None:
    (tmp_path / "c.yaml").write_text(to_yaml(REAL))
    out = tmp_path / "out"
    arguments = ["generate", str(sample_path()), "--out", str(out), "--config", str(tmp_path / "c.yaml")]
    assert main([*arguments, "--dry-run"]) == 0
    assert "fits: 2 (photos: 2)" in capsys.readouterr().out and not out.exists()
    assert main(arguments) == 0
    printed = capsys.readouterr()
    assert "fits: 2 made" in printed.out and printed.err.count("black pixels are the surroundings of an object") == 1
    page = (out / "dataset.html").read_text()
    assert "tankard: 36 of 36 images have a mask file: black" in page
    assert "tankard" in page and "data:image/jpeg" in page and "http" not in page.split("</head>")[1]
    assert main(["verify", str(out)]) == 0
    shard = next(out.glob("*f000*.tar"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    assert main(["verify", str(out)]) == 2
    assert shard.name in capsys.readouterr().out
    assert main(["verify", str(out), "--repair"]) == 0
    assert shard.read_bytes() == whole
    assert main(["verify", str(out)]) == 0
    assert main(["generate", "--out", str(out)]) == 0  # the settings and captures in the folder
    assert "fits: 0 made, 2 found" in capsys.readouterr().out
    assert main(["generate", "--out", str(out), "--seed", "5"]) == 2
    assert f"{out}: seed was {REAL.seed}, now it is 5; use the same" in capsys.readouterr().err
    assert main(["loop", str(sample_path()), "--out", str(out)]) == 2
    assert "holds config.yaml, which no run of this version recorded" in capsys.readouterr().err
    (out / "notes.txt").write_text("kept")
    assert main([*arguments, "--fresh"]) == 0
    assert "fits: 2 made" in capsys.readouterr().out and shard.read_bytes() == whole
    remove_pairs(str(out))
    assert [path.name for path in out.iterdir()] == ["notes.txt"]


def test_the_page_of_an_empty_or_partly_broken_output(tmp_path: Path) -> None:
    captures = make_empty_captures(tmp_path / "in", "a", "broken", "c")
    generate_stubs(captures, tmp_path / "out")
    next((tmp_path / "out").glob("a-f000*.tar")).write_bytes(b"")
    page = Path(write_dataset_page(str(tmp_path / "out"))).read_text()
    assert "12 pairs of 2 scenes" in page and "cannot be fitted" in page and "Notes on" not in page
    assert "0 pairs" in Path(write_dataset_page(str(tmp_path / "nothing"))).read_text()


def test_a_generation_sends_its_metrics(tmp_path: Path, ray_metrics: FakeRayMetrics) -> None:
    generate_stubs(make_empty_captures(tmp_path / "in", "a", "broken"), tmp_path / "out")
    assert ray_metrics.runs == {run_label(tmp_path / "out")}
    assert ray_metrics.total("splatfix_fits_total", outcome="done") == 3
    assert ray_metrics.total("splatfix_fits_total", outcome="failed") == 3
    assert ray_metrics.total("splatfix_failed_attempts_total", kind="content") == 3
    assert ray_metrics.total("splatfix_pairs_total") == 6
    assert ray_metrics.sent["splatfix_stage_seconds"] == {(("stage", "fit"),): [0.0] * 3}
    assert ray_metrics.sent["splatfix_fits_left"][()][0] == 6 and ray_metrics.last("splatfix_fits_left") == 0
    assert ray_metrics.last("splatfix_output_free_bytes") > 0
    declared = {name for name, metric in METRICS.items() if "generate" in metric.senders}
    assert declared - set(ray_metrics.sent) <= {"splatfix_seconds_left"}  # none yet within the first second


class _BadMachineWorker(StubWorker):
    """Fails each attempt as a machine does that lacks a library."""

    def run(self, task: Task, upcoming: Task | None) -> TaskResult:  # noqa: ARG002
        raise ImportError("libGL.so.1: cannot open shared object file: No such file or directory")


@pytest.mark.parametrize(("attempts", "num_failed"), [(1, 3), (2, 6)])
def test_failures_of_machines_are_counted_as_such(
    tmp_path: Path, ray_metrics: FakeRayMetrics, attempts: int, num_failed: int
) -> None:
    config = replace(STUB, workers=WorkersConfig(num=0, attempts=attempts))
    captures = make_empty_captures(tmp_path / "in", "a")
    assert generate(captures, str(tmp_path / "out"), config, make_worker=_BadMachineWorker).failed == 3
    assert ray_metrics.total("splatfix_failed_attempts_total", kind="machine") == num_failed
    assert ray_metrics.total("splatfix_failed_attempts_total", kind="content") == 0
