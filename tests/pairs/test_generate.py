"""Pairs of several captures: resumed, refused, quarantined, verified and shown."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import pytest

from splatfix import storage
from splatfix.cli import main
from splatfix.config import to_yaml
from splatfix.pairs import read_manifest, read_pairs, sample_pairs
from splatfix.pairs.config import GenerateConfig, read_settings
from splatfix.pairs.estimate import estimate
from splatfix.pairs.generate import Summary, generate, remove_pairs
from splatfix.pairs.ground_truth import DenseConfig
from splatfix.pairs.index import open_index
from splatfix.pairs.recipes import Recipe
from splatfix.pairs.verify import verify
from splatfix.report.dataset import write_dataset_page
from splatfix.sample import sample_path
from splatfix.workers import DiskFull, RunAborted, WorkersConfig
from tests.pairs.stub import StubWorker

SMALL = Recipe(size_px=48, num_train=(3, 4), num_fits=(1, 1), steps=20, num_random=(50, 100), max_views=3)
HERE = WorkersConfig(num=0)
REAL = GenerateConfig(fits_per_capture=2, recipes={"photos": SMALL}, device="cpu", workers=HERE)
STUBBED = GenerateConfig(fits_per_capture=3, device="cpu", workers=HERE)


def mark(root: Path, *names: str) -> list[str]:
    for name in names:
        (root / name).mkdir(parents=True)
        (root / name / "transforms.json").write_text("{}")
    return [str(root / name) for name in names]


def stubbed(captures: list[str], out: str | Path, config: GenerateConfig = STUBBED, **more) -> Summary:
    return generate(captures, str(out), config, make_worker=partial(StubWorker, **more))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_rerun_does_only_what_is_missing_and_makes_the_same_bytes(tmp_path: Path) -> None:
    done = generate([sample_path()], str(tmp_path), REAL)
    assert (done.made, done.found, done.failed) == (2, 0, 0) and done.pairs > 0
    before = files(tmp_path)
    next(tmp_path.glob("*f001.manifest.json")).unlink()
    again = generate([sample_path()], str(tmp_path), REAL)
    assert (again.made, again.found, again.pairs) == (1, 1, done.pairs)
    after = files(tmp_path)
    assert {name for name in before if name.endswith(".tar")} == {name for name in after if name.endswith(".tar")}
    assert all(after[name] == content for name, content in before.items() if name.endswith(".tar"))
    assert verify(tmp_path).problems == ()
    assert len(list(read_pairs(tmp_path))) == done.pairs
    record = open_index(tmp_path)["tankard-f000"].record
    assert record["recipe"] == "photos" and record["fingerprint"] and set(record["seconds"]) >= {"fit", "render"}


def test_clean_renders_of_a_dense_fit_that_is_made_once(tmp_path: Path) -> None:
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
    captures = mark(tmp_path / "in", "a", "b")
    stubbed(captures[:1], tmp_path / "out")
    with pytest.raises(ValueError, match=r"seed was 0, now it is 1; use the same settings, another --out, or --fresh"):
        stubbed(captures, tmp_path / "out", replace(STUBBED, seed=1))
    other = replace(STUBBED, recipes={"photos": Recipe(steps=99)})
    with pytest.raises(ValueError, match=r"recipes\.photos\.steps was 2400, now it is 99"):
        stubbed(captures, tmp_path / "out", other)
    more = stubbed(captures[1:], tmp_path / "out", replace(STUBBED, fits_per_capture=4))
    assert (more.made, more.pairs) == (4, 2 * 7)
    assert read_settings(str(tmp_path / "out")).captures == tuple(captures)


def test_scenes_keep_their_names_and_groups(tmp_path: Path) -> None:
    first, second = mark(tmp_path / "a", "room"), mark(tmp_path / "b", "room")
    stubbed(first, tmp_path / "out")
    with pytest.raises(
        ValueError, match=r"already have a scene 'room', from .*/a/room; give this capture another name"
    ):
        stubbed(second, tmp_path / "out")
    both = stubbed([*first, *second], tmp_path / "out")  # the new one takes its folder's name in
    assert (both.found, both.made) == (3, 3)
    assert {fit.record["scene"] for fit in open_index(tmp_path / "out").values()} == {"room", "b-room"}
    with pytest.raises(ValueError, match="are in the group 'room', now it is 'rooms'"):
        stubbed(first, tmp_path / "out", replace(STUBBED, groups={"a-room": "rooms", "room": "rooms"}))
    swapped = {name: Recipe(weight=weight) for name, weight in (("x", 1), ("y", 2))}
    stubbed(first, tmp_path / "two", replace(STUBBED, recipes=swapped))
    with pytest.raises(ValueError, match=r"order of recipes was \['x', 'y'\], now it is \['y', 'x'\]"):
        stubbed(first, tmp_path / "two", replace(STUBBED, recipes=dict(reversed(swapped.items()))))


def test_an_output_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(ValueError, match="out: is a file; wanted a folder"):
        stubbed(mark(tmp_path / "in", "a"), tmp_path / "out")


def test_what_cannot_be_made_is_quarantined_and_the_rest_goes_on(tmp_path: Path, caplog) -> None:
    logging.getLogger("splatfix").propagate = True
    captures = mark(tmp_path / "in", "a", "broken", "c")
    done = stubbed(captures, tmp_path / "out")
    assert (done.made, done.failed, done.pairs) == (6, 3, 12)
    held = json.loads((tmp_path / "out" / "quarantine.json").read_text())["fits"]
    assert sorted(held) == ["broken-f000", "broken-f001", "broken-f002"]
    assert (
        held["broken-f000"]["reason"] == f"{captures[1]}: meant to be broken" and held["broken-f000"]["attempts"] == 1
    )
    assert "broken-f000: in quarantine after 1 attempts" in caplog.text
    again = generate(captures, str(tmp_path / "out"), STUBBED, make_worker=_mended)
    assert (again.made, again.found, again.failed) == (3, 6, 0)
    assert not (tmp_path / "out" / "quarantine.json").exists()


def _mended(settings) -> StubWorker:
    class Mended(StubWorker):
        def run(self, task, upcoming):
            source = replace(task.source, name=task.source.name.replace("broken", "mended"))
            committed = super().run(replace(task, source=source), upcoming)
            fit = committed.fit
            storage.write_bytes(f"{self.settings.out}/{task.stem}.manifest.json", b'{"schema": 1, "shards": []}')
            return replace(committed, fit=replace(fit, stem=task.stem))

    return Mended(settings)


def test_the_same_photos_in_two_groups_are_told(tmp_path: Path, caplog) -> None:
    logging.getLogger("splatfix").propagate = True
    (tmp_path / "twin").symlink_to(sample_path())
    captures = [sample_path(), tmp_path / "twin"]
    generate(captures, str(tmp_path / "out"), replace(REAL, fits_per_capture=1))
    assert "tankard and twin hold the same photos" in caplog.text
    caplog.clear()
    grouped = replace(REAL, fits_per_capture=1, groups={"twin": "tankard"})
    generate(captures, str(tmp_path / "grouped"), grouped)
    assert "the same photos" not in caplog.text


def test_a_full_disk_leaves_a_consistent_output(tmp_path: Path, monkeypatch) -> None:
    captures = mark(tmp_path / "in", "a", "b", "c")
    put, room = storage.create, 5

    def create(url: str, content: bytes) -> bool:
        nonlocal room
        room -= 1
        if room < 0:
            raise OSError(28, "No space left on device", url)
        return put(url, content)

    monkeypatch.setattr("splatfix.storage.create", create)
    with pytest.raises(DiskFull, match=r"the disk is full .* finished fits are intact"):
        stubbed(captures, tmp_path / "out")
    monkeypatch.undo()
    found = verify(tmp_path / "out")
    assert (found.num_samples, found.problems) == (2 * 4, ())
    done = stubbed(captures, tmp_path / "out")
    assert (done.found, done.made) == (4, 5)
    assert verify(tmp_path / "out").problems == ()


def test_an_output_that_may_not_be_written_to_ends_the_run(tmp_path: Path, monkeypatch) -> None:
    import obstore
    from obstore.exceptions import PermissionDeniedError

    captures, put, room = mark(tmp_path / "in", "a", "b", "c"), obstore.put, 5

    def refused(*arguments: object, **more: object) -> object:
        nonlocal room
        room -= 1
        if room < 0:
            raise PermissionDeniedError("Access Denied\nby a policy")
        return put(*arguments, **more)

    monkeypatch.setattr(obstore, "put", refused)
    url = f"memory://{tmp_path.name}"
    with pytest.raises(RunAborted, match=r"cannot be written to .*Access Denied.* finished fits are intact"):
        stubbed(captures, url)
    monkeypatch.undo()
    again = stubbed(captures, url)
    assert (again.found, again.made, again.failed) == (2, 7, 0)
    assert verify(url).problems == ()


def test_onto_an_object_store_with_two_drivers_at_once(bucket: str, tmp_path: Path) -> None:
    from threading import Thread

    captures = mark(tmp_path / "in", "a", "b", "c")
    summaries: list[Summary] = []
    drivers = [Thread(target=lambda: summaries.append(stubbed(captures, f"{bucket}/x"))) for _ in range(2)]
    for driver in drivers:
        driver.start()
    for driver in drivers:
        driver.join()
    assert sum(summary.made for summary in summaries) == 9
    assert all(summary.pairs == 18 for summary in summaries)
    found = verify(f"{bucket}/x")
    assert (found.num_samples, found.problems) == (18, ())
    keys = [pair.key for pair in read_pairs(f"{bucket}/x")]
    assert len(keys) == len(set(keys)) == 18
    shards = read_manifest(f"{bucket}/x")
    streams = [[pair.key for pair in islice(sample_pairs(f"{bucket}/x", shards, seed=0, segment=1), 30)] for _ in "ab"]
    assert streams[0] == streams[1] and set(streams[0]) <= set(keys)
    assert stubbed(captures, f"{bucket}/x").found == 9


def test_the_estimate_measures_before_and_after(tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    before = estimate([sample_path()], out, REAL, on_workers=10, speed=2.0)
    assert before.fits == {"photos": 2} and before.done == 0 and before.pairs > 0 and before.bytes > 0
    assert before.hours == pytest.approx(before.seconds / 10 / 3600)
    assert "just now" in before.text() and not Path(out).exists()
    done = generate([sample_path()], out, replace(REAL, fits_per_capture=1))
    after = estimate([sample_path()], out, replace(REAL, fits_per_capture=3))
    assert (after.done, after.pairs) == (1, 2 * done.pairs)
    assert "1 fits of this output" in after.text()
    with pytest.raises(ValueError, match=r"speed = 0: wanted a factor above 0"):
        estimate([sample_path()], out, REAL, speed=0)


def test_from_the_command_line_to_the_page_and_through_repair(tmp_path: Path, capsys) -> None:
    (tmp_path / "c.yaml").write_text(to_yaml(REAL))
    out = tmp_path / "out"
    arguments = ["generate", str(sample_path()), "--out", str(out), "--config", str(tmp_path / "c.yaml")]
    assert main([*arguments, "--dry-run"]) == 0
    assert "fits: 2 (2 photos)" in capsys.readouterr().out and not out.exists()
    assert main(arguments) == 0
    assert "fits: 2 made" in capsys.readouterr().out
    page = (out / "dataset.html").read_text()
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
    (out / "notes.txt").write_text("mine")
    assert main([*arguments, "--fresh"]) == 0
    assert "fits: 2 made" in capsys.readouterr().out and shard.read_bytes() == whole
    remove_pairs(str(out))
    assert [path.name for path in out.iterdir()] == ["notes.txt"]


def test_the_page_of_an_empty_or_partly_broken_output(tmp_path: Path) -> None:
    captures = mark(tmp_path / "in", "a", "broken", "c")
    stubbed(captures, tmp_path / "out")
    next((tmp_path / "out").glob("a-f000*.tar")).write_bytes(b"")
    page = Path(write_dataset_page(str(tmp_path / "out"))).read_text()
    assert "12 pairs of 2 scenes" in page and "meant to be broken" in page
    assert "0 pairs" in Path(write_dataset_page(str(tmp_path / "nothing"))).read_text()


def test_telemetry_declares_what_is_sent(tmp_path: Path, monkeypatch) -> None:
    from splatfix.telemetry import METRICS, Telemetry

    sent: list[str] = []

    def note(_self: Telemetry, name: str, _value: float = 1, **labels: str) -> None:
        assert tuple(labels) == METRICS[name].labels
        sent.append(name)

    for method in ("count", "set", "observe"):
        monkeypatch.setattr(Telemetry, method, note)
    stubbed(mark(tmp_path / "in", "a", "broken"), tmp_path / "out")
    assert {"splatfix_fits_total", "splatfix_pairs_total", "splatfix_stage_seconds", "splatfix_fits_left"} <= set(sent)
    assert all(metric.kind != "counter" or name.endswith("_total") for name, metric in METRICS.items())
