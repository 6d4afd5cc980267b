"""What is given to pose: photos of every kind, videos, and what is refused."""

import os
import re
import subprocess
import sys

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from splatfix import programs
from splatfix.cli import main
from splatfix.sfm import PoseConfig, needs_poses
from splatfix.sfm.photos import gather_photos, place_photo, read_focal_px
from splatfix.sfm.source import open_source
from splatfix.sfm.video import count_frames, pick_frames, spread_frames
from tests.captures.writers import write_colmap

ORIENTATION, MAKE, MODEL, EXIF_IFD, FOCAL, FOCAL_35 = 0x0112, 0x010F, 0x0110, 0x8769, 0x920A, 0xA405


def write_photo(path, seed=0, width=40, height=30, exif=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 255, (height, width, 3)).astype(np.uint8)
    Image.fromarray(values).save(path, **({} if exif is None else {"exif": exif}), **options)
    return path


def phone_exif(orientation=1, focal_mm=4.2, focal_35=26):
    exif = Image.Exif()
    exif[MAKE], exif[MODEL], exif[ORIENTATION] = "Maker", "Phone", orientation
    details = exif.get_ifd(EXIF_IFD)
    details[FOCAL], details[FOCAL_35] = focal_mm, focal_35
    return exif


def place(folder, photos_folder, **settings):
    photos, _ = gather_photos(photos_folder)
    return {photo.name: place_photo(photo, folder, PoseConfig(**settings)) for photo in photos}


def test_turned_photos_are_written_upright_and_others_are_linked(tmp_path):
    for seed, orientation in enumerate((1, 6, 3)):
        write_photo(tmp_path / "in" / f"{seed}.jpg", seed, exif=phone_exif(orientation))
    placed = place(tmp_path / "images", tmp_path / "in")
    assert [placed[f"{i}.jpg"].was_turned for i in range(3)] == [False, True, True]
    assert (placed["1.jpg"].info.width_px, placed["1.jpg"].info.height_px) == (30, 40)
    assert (tmp_path / "images/0.jpg").samefile(tmp_path / "in/0.jpg")
    with Image.open(tmp_path / "in/1.jpg") as stored, Image.open(tmp_path / "images/1.jpg") as upright:
        assert upright.size == (30, 40)
        assert upright.getexif().get(ORIENTATION, 1) == 1
        assert upright.getexif().get_ifd(EXIF_IFD)[FOCAL_35] == 26
        expected = np.rot90(np.asarray(stored, np.float32), -1)
        assert abs(np.asarray(upright, np.float32) - expected).mean() < 6


def test_photos_of_one_camera_and_size_share_a_lens(tmp_path):
    write_photo(tmp_path / "a.jpg", 0, exif=phone_exif())
    write_photo(tmp_path / "b.jpg", 1, exif=phone_exif())
    write_photo(tmp_path / "zoom.jpg", 2, exif=phone_exif(focal_mm=7.0, focal_35=50))
    write_photo(tmp_path / "upright.jpg", 3, exif=phone_exif(orientation=6))
    write_photo(tmp_path / "large.jpg", 4, width=80, height=60, exif=phone_exif())
    lenses = {name: photo.info.lens for name, photo in place(tmp_path / "images", tmp_path).items()}
    assert lenses["a.jpg"] == lenses["b.jpg"]
    assert len(set(lenses.values())) == 4
    one = {photo.info.lens for photo in place(tmp_path / "images", tmp_path, cameras="one").values()}
    assert len(one) == 3
    each = {photo.info.lens for photo in place(tmp_path / "images", tmp_path, cameras="each").values()}
    assert len(each) == 5


def test_exif_gives_the_focal_length_of_photos_that_were_not_cropped():
    details = {FOCAL_35: 36, 0xA002: 6000, 0xA003: 4000}
    assert read_focal_px(details, 600, 400, None) == pytest.approx(600, rel=0.01)
    assert read_focal_px(details, 400, 600, None) == pytest.approx(600, rel=0.01)
    assert read_focal_px(details, 400, 400, None) is None
    assert read_focal_px({}, 600, 400, 36.0) == pytest.approx(600, rel=0.01)
    assert read_focal_px({FOCAL_35: 0}, 600, 400, None) is None


def test_other_kinds_of_images_are_written_again(tmp_path):
    write_photo(tmp_path / "a.webp", 0)
    write_photo(tmp_path / "b.tiff", 1, exif=phone_exif(orientation=6))
    write_photo(tmp_path / "c.bmp", 2)
    write_photo(tmp_path / "a.jpg", 3)
    (tmp_path / "d.jfif").write_bytes(write_photo(tmp_path / "x" / "d.jpg", 4).read_bytes())
    placed = place(tmp_path / "images", tmp_path)
    assert sorted(placed) == ["a.jpg", "a_webp.jpg", "b.png", "c.png", "d.jpg"]
    for name in placed:
        with Image.open(tmp_path / "images" / name) as image:
            assert image.size == ((30, 40) if name == "b.png" else (40, 30))
            assert image.size == (placed[name].info.width_px, placed[name].info.height_px)


def test_transparent_photos_keep_their_alpha(tmp_path):
    for name, alpha in (("a.webp", 0), ("b.png", 0), ("c.png", 255), ("d.tif", 0)):
        values = np.random.default_rng(0).integers(0, 255, (30, 40, 4)).astype(np.uint8)
        values[..., 3] = 255
        values[:, :20, 3] = alpha
        Image.fromarray(values).save(tmp_path / name)
    placed = place(tmp_path / "images", tmp_path)
    found = {name: photo.info.has_transparency for name, photo in placed.items()}
    assert found == {"a.png": True, "b.png": True, "c.png": False, "d.png": True}
    with Image.open(tmp_path / "images" / "a.png") as image:
        assert np.asarray(image)[:, :20, 3].max() == 0


def test_a_photo_that_is_there_twice_is_used_once(tmp_path):
    for seed in range(3):
        write_photo(tmp_path / f"{seed}.png", seed)
    (tmp_path / "copy.png").write_bytes((tmp_path / "0.png").read_bytes())
    photos, notes = gather_photos(tmp_path)
    assert len(photos) == 3
    assert notes == ["copy.png is the same file as 0.png: used once"]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([], ["no photos in it", "at least 3"]),
        (["a.png", "b.png"], ["2 photos", "at least 3 different photos"]),
        (["left/a.png", "right/a.png"], ["several folders", "left, right"]),
        (["a.mp4", "b.mp4"], ["2 videos", "pass one of them"]),
    ],
)
def test_a_folder_that_cannot_be_posed_is_refused_in_a_line(tmp_path, files, words):
    for seed, name in enumerate(files):
        if name.endswith(".png"):
            write_photo(tmp_path / name, seed)
        else:
            (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match=str(tmp_path)) as caught:
        open_source(tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words)


@pytest.mark.parametrize("url", ["http://host/walk.mp4", "https://host/photos/", "s3://bucket/photos"])
def test_a_url_is_refused_in_a_line_that_says_to_download_it(tmp_path, url, capsys):
    assert main(["pose", url, "--out", str(tmp_path / "out")]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert f"{url}: is a URL" in line
    assert "download it first" in line
    assert not needs_poses(url)
    assert not (tmp_path / "out").exists()


def test_what_is_no_photo_is_refused_by_name(tmp_path, monkeypatch):
    for seed in range(3):
        write_photo(tmp_path / f"{seed}.jpg", seed)
    whole = (tmp_path / "1.jpg").read_bytes()
    (tmp_path / "1.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"1\.jpg: cannot be decoded .* is the file whole"):
        place(tmp_path / "images", tmp_path)
    (tmp_path / "1.jpg").write_bytes(b"text")
    with pytest.raises(ValueError, match=r"1\.jpg: cannot be read as an image"):
        place(tmp_path / "images", tmp_path)
    (tmp_path / "1.jpg").unlink()
    (tmp_path / "1.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ValueError, match=r"1\.HEIC: a HEIC image, which pillow-heif reads: pip install .*export JPEG"):
        place(tmp_path / "images", tmp_path)


def test_a_capture_has_poses_already(tmp_path):
    write_colmap(tmp_path / "capture")
    assert not needs_poses(tmp_path / "capture")
    assert not needs_poses(tmp_path)  # holds a capture
    write_photo(tmp_path / "metashape" / "a.jpg")
    (tmp_path / "metashape" / "cameras.xml").touch()
    assert not needs_poses(tmp_path / "metashape")  # has poses that can be converted
    with pytest.raises(ValueError, match="is a capture with poses already"):
        open_source(tmp_path / "capture")


def write_video(path, num=24):
    """A texture that moves by 3 px per frame, then stands still; every other frame is blurred."""
    import imageio_ffmpeg
    from scipy import ndimage

    texture = ndimage.gaussian_filter(np.random.default_rng(0).random((96, 300)), 1.0)
    texture = np.uint8(255 * (texture - texture.min()) / np.ptp(texture))
    writer = imageio_ffmpeg.write_frames(str(path), (128, 96), fps=8, quality=9, macro_block_size=1)
    writer.send(None)
    for index in range(num):
        frame = texture[:, (left := 3 * min(index, num // 2)) : left + 128]
        frame = ndimage.gaussian_filter(frame, 2.5) if index % 2 else frame
        writer.send(np.ascontiguousarray(np.repeat(frame[..., None], 3, axis=2)))
    writer.close()
    return path


def test_frames_of_a_video_are_sharp_and_spread_over_the_motion(tmp_path):
    video = write_video(tmp_path / "walk.mp4")
    paths, notes = pick_frames(video, tmp_path / "images", tmp_path / "work", 5)
    indices = [int(path.stem.split("_")[1]) for path in paths]
    assert len(paths) == 5
    assert all(index % 2 == 0 for index in indices)
    assert sum(index <= 12 for index in indices) >= 4  # most of them while the image moves
    assert "5 of 24 frames were picked from walk.mp4" in notes[0]
    for path in paths:
        with Image.open(path) as image:
            assert image.size == (128, 96)
    stamps = [path.stat().st_mtime_ns for path in paths]
    assert pick_frames(video, tmp_path / "images", tmp_path / "work", 5)[0] == paths
    assert [path.stat().st_mtime_ns for path in paths] == stamps


def test_more_than_a_hundred_frames_are_picked(tmp_path):
    paths, _ = pick_frames(write_video(tmp_path / "walk.mp4", 110), tmp_path / "images", tmp_path / "work", 110)
    assert len(paths) == 110
    assert all(path.is_file() for path in paths)


def test_frames_of_a_still_camera_are_spread_over_time():
    picked = spread_frames(np.ones(10), np.zeros(10), 4)
    assert len(picked) == 4
    assert np.diff(picked).max() <= 4
    assert spread_frames(np.ones(3), np.zeros(3), 5) == [0, 1, 2]


def test_a_video_that_was_cut_short_is_named(tmp_path):
    import imageio_ffmpeg

    video = write_video(tmp_path / "walk.mp4")
    front = tmp_path / "front.mp4"  # with its index in front of the frames
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        "-v",
        "error",
        "-i",
        video,
        "-c",
        "copy",
        "-movflags",
        "+faststart",
        front,
    ]
    subprocess.run(command, check=True)
    for path, share in ((video, 0.5), (front, 0.6)):
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match="its index is missing: the recording or the copy was cut short"):
        pick_frames(video, tmp_path / "images", tmp_path / "work", 4)
    _, notes = pick_frames(front, tmp_path / "images", tmp_path / "work", 4)
    assert re.fullmatch(r"front\.mp4 ends after \d+ of some 24 frames: is the file whole\?", notes[0])


def test_frames_are_counted_with_a_bar(tmp_path, capsys):
    assert count_frames(write_video(tmp_path / "walk.mp4")) == (24, [])
    assert "counting frames: 100%" in capsys.readouterr().err


def test_a_video_of_which_no_frame_comes_is_not_waited_for_without_end(tmp_path, monkeypatch):
    stuck, walk = tmp_path / "ffmpeg", write_video(tmp_path / "walk.mp4")
    stuck.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 60\n")
    stuck.chmod(0o755)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(stuck))
    monkeypatch.setattr(programs, "STALL_SECONDS", 1.0)
    with pytest.raises(OSError, match=r"walk\.mp4: ffmpeg was stopped: it has done nothing for 1 s; can its disk"):
        count_frames(walk)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.parametrize("content", [b"", b"not a video at all"])
def test_a_file_that_is_no_video_is_refused_in_a_line(tmp_path, content, capsys):
    (tmp_path / "clip.mp4").write_bytes(content)
    assert main(["pose", str(tmp_path / "clip.mp4"), "--out", str(tmp_path / "out")]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "clip.mp4: cannot be read as a video" in line
    assert "folder of photos" in line
    assert not (tmp_path / "out").exists()


def test_one_photo_is_not_enough(tmp_path, capsys):
    assert main(["pose", str(write_photo(tmp_path / "a.jpg")), "--out", str(tmp_path / "out")]) == 2
    assert "1 photo; wanted at least 3 different photos" in capsys.readouterr().err


def test_archives_and_too_few_photos_are_named_before_anything_else(tmp_path, capsys):
    (tmp_path / "photos.zip").write_bytes(b"PK")
    assert main(["pose", str(tmp_path / "photos.zip"), "--out", str(tmp_path / "out")]) == 2
    assert "photos.zip: an archive; wanted a folder: unpack it" in capsys.readouterr().err
    (tmp_path / "photos").mkdir()
    for name in ("a.jpg", "b.jpg"):
        write_photo(tmp_path / "photos" / name)
    assert main(["loop", str(tmp_path / "photos"), "--out", str(tmp_path / "out")]) == 2
    assert "2 photos; wanted at least 3 different photos" in capsys.readouterr().err
