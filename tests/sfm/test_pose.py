"""From photos to a capture: poses against the known ones, resuming, determinism, and poses from chosen photos."""

import shutil
import signal
import subprocess
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pycolmap
import pytest
from PIL import Image

from splatfix import process
from splatfix.captures import open_capture
from splatfix.cli import main
from splatfix.errors import is_disk_full
from splatfix.files import read_json, write_json
from splatfix.report.pose import pose_page
from splatfix.sfm import PoseTask, colmap, describe_poses, mapping, needs_poses, pose_photos, read_pose_record
from splatfix.sfm.doubts import count_shared_points, find_contradictions, find_doubts, find_loose_group
from splatfix.sfm.mapping import drop_misplaced
from splatfix.sfm.poser import PosedModel, find_poser
from splatfix.sfm.run import write_model
from tests.benchmarks.bench_pose import compare_cameras
from tests.restoration.test_plugins import install
from tests.sfm.conftest import CONFIG, STRANGER
from tests.sfm.scenery import HEIGHT, WIDTH, write_photos

MODEL_FILES = ("cameras.bin", "images.bin", "points3D.bin")


def errors(posed, capture):
    truth = {camera.name: camera for camera in posed.cameras}
    return compare_cameras([(truth[camera.name], camera) for camera in capture.cameras])


def unfinished_copy(posed, folder):
    """The capture as an interruption before the mapping leaves it."""
    shutil.copytree(posed.capture, folder, symlinks=True)
    shutil.rmtree(folder / "sparse")
    record = read_json(folder / "run.json")
    write_json(folder / "run.json", {key: record[key] for key in ("command", "inputs", "settings", "files")})
    return folder


def test_poses_agree_with_the_known_cameras(posed):
    capture = open_capture(posed.capture, longest_side_px=None)
    found = errors(posed, capture)
    assert len(capture.views) == 5
    assert found.rotation_deg.max() < 0.5
    assert found.position.max() < 0.01
    assert capture.points is not None and len(capture.points) > 200
    assert all(len(track) >= 2 for track in capture.points.tracks)
    [lens] = posed.record.cameras
    assert lens.focal_px == pytest.approx(215, rel=0.02)


def test_the_record_says_what_became_of_each_photo(posed):
    record = read_pose_record(posed.capture)
    assert record == posed.record
    assert {photo.name for photo in record.registered} == {camera.name for camera in posed.cameras}
    assert all(photo.num_points > 50 and photo.error_px < 1 for photo in record.registered)
    [stranger] = record.unregistered
    assert stranger.name == STRANGER
    assert "photo" in stranger.advice
    assert set(record.estimated_from) == {camera.name for camera in posed.cameras}
    assert not record.doubts
    assert not [path for path in posed.capture.rglob("*") if "partial" in path.name]
    assert not needs_poses(posed.capture)
    assert needs_poses(posed.photos)


def test_an_interrupted_run_resumes_to_the_same_model(posed, tmp_path, monkeypatch):
    monkeypatch.setattr(colmap.pycolmap, "extract_features", None)  # both are in the database
    monkeypatch.setattr(colmap.pycolmap, "match_image_pairs", None)
    again = unfinished_copy(posed, tmp_path / "again")
    record = pose_photos(posed.photos, again, CONFIG)
    for name in MODEL_FILES:
        assert (again / "sparse/0" / name).read_bytes() == (posed.capture / "sparse/0" / name).read_bytes()
    assert record.photos == posed.record.photos


def test_nothing_is_matched_where_photos_are_transparent(tmp_path):
    """Around a cut-out, the colors under alpha 0 show a background that stands still while the object turns."""
    truth = write_photos(tmp_path / "photos", 4)
    still = np.random.default_rng(2).integers(0, 255, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    alpha = np.zeros((HEIGHT, WIDTH), np.uint8)
    alpha[30:-30, 40:-40] = 255
    for camera in truth[1:]:  # the first photo has no alpha channel
        path = tmp_path / "photos" / camera.name
        photo = np.where(alpha[..., None] > 0, np.asarray(Image.open(path)), still)
        Image.fromarray(np.dstack([photo, alpha])).save(path)
    record = pose_photos(tmp_path / "photos", tmp_path / "out", CONFIG)
    assert any("3 of 4 photos have transparent pixels (alpha): nothing is matched there" in x for x in record.notes)
    with colmap.pycolmap.Database.open(tmp_path / "out" / "sfm" / "colmap" / "database.db") as database:
        first, *others = [database.read_keypoints(image.image_id) for image in database.read_all_images()]
    assert len(first) > 100
    for keypoints in others:
        x, y = keypoints[:, :2].astype(int).T
        assert len(keypoints) > 50
        assert alpha[y, x].all()
    capture = open_capture(tmp_path / "out", longest_side_px=None)
    found = compare_cameras([(truth[[each.name for each in truth].index(c.name)], c) for c in capture.cameras])
    assert len(capture.cameras) == 4
    assert found.rotation_deg.max() < 0.5


def test_a_finished_run_is_returned_as_it_is(posed):
    before = (posed.capture / "run.json").stat().st_mtime_ns
    assert pose_photos(posed.photos, posed.capture, CONFIG) == posed.record
    assert (posed.capture / "run.json").stat().st_mtime_ns == before


def test_other_photos_change_nothing_where_some_are_chosen(posed, tmp_path):
    names = [camera.name for camera in posed.cameras]
    out = unfinished_copy(posed, tmp_path / "chosen")
    record = pose_photos(posed.photos, out, CONFIG, choose=lambda _: names[:4])
    capture = open_capture(out, longest_side_px=None)
    assert record.estimated_from == tuple(names[:4])
    assert set(capture.names) == set(names)
    assert all(track <= set(names[:4]) for track in capture.points.tracks)
    found = errors(posed, capture)
    assert found.rotation_deg.max() < 0.5
    assert found.position.max() < 0.01
    assert "training photos alone" in describe_poses(record, names[:4], names[4:])
    assert "know of photos that the fit has not seen" in describe_poses(posed.record, names[:4], names[4:])


def test_chosen_photos_that_need_the_others_are_refused(posed, tmp_path, monkeypatch):
    names = [camera.name for camera in posed.cameras]
    found = colmap.map_photos
    monkeypatch.setattr(colmap, "map_photos", lambda *task: found(*task[:2], task[2][:3], task[3]))
    with pytest.raises(ValueError, match=f"1 of 4 chosen photos have no camera .*first: {names[3]}"):
        pose_photos(posed.photos, unfinished_copy(posed, tmp_path / "out"), CONFIG, choose=lambda _: names[:4])


@pytest.mark.slow
def test_global_mapping_agrees_with_the_known_cameras(posed, tmp_path):
    record = pose_photos(posed.photos, tmp_path / "out", replace(CONFIG, mapping="global"))
    found = errors(posed, open_capture(tmp_path / "out", longest_side_px=None))
    assert record.method == "global"
    assert len(record.registered) == 5
    assert found.rotation_deg.max() < 0.5
    assert found.position.max() < 0.01


def test_a_stop_ends_global_mapping(posed, tmp_path, monkeypatch):
    children, popen = [], subprocess.Popen

    def start_and_stop(*args, **options):
        children.append(popen(*args, **options))
        process._requested = "terminated"  # as SIGTERM leaves it where a library swallows the exception
        return children[0]

    monkeypatch.setattr(process, "_requested", None)  # restored at the end
    monkeypatch.setattr(subprocess, "Popen", start_and_stop)
    out = unfinished_copy(posed, tmp_path / "out")
    settings = read_json(out / "run.json")
    settings["settings"]["mapping"] = "global"
    write_json(out / "run.json", settings)
    with pytest.raises(KeyboardInterrupt, match="terminated"):
        pose_photos(posed.photos, out, replace(CONFIG, mapping="global"))
    assert [child.returncode for child in children] == [-signal.SIGKILL]
    assert not list((out / "sfm").glob("global.db*"))


@pytest.mark.parametrize("step", ["map_photos", "locate_photos"])
def test_a_stop_ends_incremental_mapping(posed, tmp_path, monkeypatch, step):
    names, cancelled = [camera.name for camera in posed.cameras], []
    run_step, run_mapping = getattr(colmap, step), mapping.pycolmap.incremental_mapping

    def note_cancelled(*args, **options):
        try:
            return run_mapping(*args, **options)
        except InterruptedError:
            cancelled.append(step)
            raise

    def stop_in_step(*args):
        monkeypatch.setattr(process, "_requested", "interrupted")
        monkeypatch.setattr(mapping.pycolmap, "incremental_mapping", note_cancelled)
        return run_step(*args)

    monkeypatch.setattr(colmap, step, stop_in_step)
    with pytest.raises(KeyboardInterrupt, match="interrupted"):
        pose_photos(posed.photos, unfinished_copy(posed, tmp_path / "out"), CONFIG, choose=lambda _: names[:3])
    assert cancelled == [step]


def test_global_mapping_that_fails_is_a_warning_and_no_model(tmp_path, caplog):
    (tmp_path / "database.db").write_bytes(b"no database")
    task = PoseTask(images=tmp_path, photos=(), estimate_from=(), folder=tmp_path, config=CONFIG)
    assert mapping.map_globally(tmp_path / "database.db", tmp_path, ["a.png"], task) is None
    assert "global mapping failed (exit code" in caplog.text
    assert not (tmp_path / "global.db").exists()


def test_the_page_shows_photos_cameras_and_advice(posed):
    page = pose_page(posed.record, open_capture(posed.capture))
    assert "5 of 6" in page
    assert 'class="cloud"' in page
    assert posed.record.unregistered[0].advice[1:] in page
    for camera in posed.cameras:
        assert camera.name in page


def test_photos_that_show_nothing_in_common_are_refused(tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    for seed in range(3):
        noise = np.random.default_rng(seed).integers(0, 255, (24, 32, 3)).astype(np.uint8)
        Image.fromarray(noise).resize((128, 96)).save(tmp_path / "photos" / f"{seed}.png")
    assert main(["pose", str(tmp_path / "photos"), "--out", str(tmp_path / "out"), "--threads", "1"]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert "no cameras found" in message
    assert "more photos" in message


def test_posers_are_found_by_name(tmp_path, monkeypatch):
    source = "def estimate(task):\n    return None\n"
    install(tmp_path, "vggt-poser", "vggt_poser", source, {"vggt": "vggt_poser:estimate"})
    info = tmp_path / "vggt_poser-1.2.dist-info" / "entry_points.txt"
    info.write_text(info.read_text().replace("splatfix.restorers", "splatfix.posers"))
    monkeypatch.syspath_prepend(tmp_path)
    assert find_poser("vggt").__module__ == "vggt_poser"
    with pytest.raises(ValueError, match="poser 'mast3r': unknown; wanted one of colmap, vggt"):
        find_poser("mast3r")


def tied(num, *pairs):
    ties = np.eye(num, dtype=bool)
    for a, b in pairs:
        ties[a, b] = ties[b, a] = True
    return ties


def test_photos_that_one_photo_ties_to_the_others_are_loose():
    ring = [(0, 1), (1, 2), (2, 3), (3, 0)]
    assert find_loose_group(tied(4, *ring)) == []
    assert find_loose_group(tied(7, *ring, (3, 4), (4, 5), (5, 3), (4, 6), (6, 5))) == [4, 5, 6]
    assert find_loose_group(tied(5, *ring)) == [4]
    assert find_loose_group(tied(2, (0, 1))) == []


def test_many_photos_are_matched_with_neighbors_and_with_those_that_look_alike(posed):
    config = replace(CONFIG, matching="near", neighbors=1)
    with colmap.pycolmap.Database.open(posed.capture / "sfm" / "colmap" / "database.db") as database:
        ids = {image.name: image.image_id for image in database.read_all_images()}
        every = colmap.choose_pairs(database, ids, CONFIG)
        near = colmap.choose_pairs(database, ids, config)
        alike = colmap.compare_photos([colmap.read_largest(database, ids[label]) for label in sorted(ids)])
    labels = sorted(ids)
    assert len(every) == 15
    assert set(pairwise(labels)) <= set(near) < set(every)
    assert [int(row.argmax()) for row in alike[:5]] == [1, 2, 1, 2, 3]
    assert alike[5, :5].max() < alike[:5, :5].max(0).min() / 2  # the last is the stranger


def test_pairs_whose_matches_the_model_does_not_hold_contradict_it(posed):
    reconstruction = colmap.pycolmap.Reconstruction(posed.capture / "sparse" / "0")
    names = [camera.name for camera in posed.cameras]
    _, shared = count_shared_points(reconstruction)
    agreeing = {(names[i], names[j]): int(shared[i, j]) for i in range(5) for j in range(i)}
    assert find_doubts(reconstruction, posed.record.cameras, agreeing) == []
    alike = {pair: 10 * num if names[0] in pair else num for pair, num in agreeing.items()}
    strong, contradicting = find_contradictions(reconstruction, alike)
    assert len(strong) == 10
    assert {pair[1] for pair in contradicting} == {names[0]}
    [doubt] = find_doubts(reconstruction, posed.record.cameras, alike)
    assert "4 of 10 pairs" in doubt
    assert "look alike" in doubt
    drop_misplaced(reconstruction, agreeing)
    assert reconstruction.num_reg_images() == 5
    drop_misplaced(reconstruction, alike)
    assert {image.name for image in reconstruction.images.values() if image.has_pose} == set(names[1:])


def test_a_model_that_the_disk_has_no_room_for_is_an_error(posed, tmp_path):
    """COLMAP does not tell: its file is cut short."""
    whole = pycolmap.Reconstruction(posed.capture / "sparse" / "0")

    class Cut:
        def write_binary(self, folder):
            whole.write_binary(folder)
            file = folder / "points3D.bin"
            file.write_bytes(file.read_bytes()[:-9])

    task = PoseTask(images=posed.photos, photos=(), estimate_from=(), folder=tmp_path / "sfm", config=CONFIG)
    with pytest.raises(OSError, match="No space left") as raised:
        write_model(PosedModel(reconstruction=Cut(), estimated_from=(), method=""), tmp_path, task)
    assert is_disk_full(raised.value) and not (tmp_path / "sparse").exists()
