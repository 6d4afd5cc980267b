"""Videos: their frames, size and layout."""

from collections.abc import Callable

import numpy as np
import pytest

from splatfix.errors import is_disk_full
from splatfix.evaluation.video import write_video
from tests.fake_programs import write_program
from tests.test_full_disk import files_up_to


def test_video_has_the_frames_there_and_back_at_an_even_size(tmp_path):
    imageio = pytest.importorskip("imageio.v2")
    path = tmp_path / "new" / "path.mp4"
    frames = [np.full((49, 65, 3), 40 * i, np.uint8) for i in range(5)]
    write_video(path, iter(frames), fps=10)
    with imageio.get_reader(path) as reader:
        assert reader.get_meta_data()["size"] == (64, 48)
        read = [frame.mean() for frame in reader]
    assert len(read) == 8 and np.allclose(read, [0, 40, 80, 120, 160, 120, 80, 40], atol=6)
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # plays while it loads
    assert [entry.name for entry in path.parent.iterdir()] == ["path.mp4"]


def test_video_of_nothing_or_of_mixed_sizes_leaves_no_file(tmp_path):
    with pytest.raises(ValueError, match="no frames"):
        write_video(tmp_path / "a.mp4", [])
    with pytest.raises(ValueError, match="one size"):
        write_video(tmp_path / "a.mp4", [np.zeros((8, 8, 3), np.uint8), np.zeros((8, 10, 3), np.uint8)])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_video_that_the_disk_has_no_room_for_is_an_error_and_leaves_no_file(tmp_path, share):
    noise = np.random.default_rng(0)
    frames = [noise.integers(0, 255, (64, 96, 3), np.uint8) for _ in range(8)]
    write_video(tmp_path / "whole.mp4", frames)
    size = (tmp_path / "whole.mp4").stat().st_size
    with files_up_to(int(share * size)), pytest.raises(OSError, match=r"cut\.mp4") as raised:
        write_video(tmp_path / "cut.mp4", frames)
    assert is_disk_full(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["whole.mp4"]


@pytest.fixture
def use_ffmpeg(tmp_path, monkeypatch) -> Callable[[str], None]:
    """Takes a shell script for ffmpeg."""
    program = tmp_path / "ffmpeg"
    monkeypatch.setattr("imageio_ffmpeg.get_ffmpeg_exe", lambda: str(program))
    return lambda script: write_program(program, script)


def test_an_ffmpeg_that_does_not_end_is_stopped(tmp_path, use_ffmpeg, monkeypatch):
    use_ffmpeg("cat > /dev/null\nexec sleep 600")
    monkeypatch.setattr("splatfix.evaluation.video.END_SECONDS", 0.3)
    with pytest.raises(OSError, match=r"a\.mp4: ffmpeg has not ended 0\.3 s after the last frame, and was stopped"):
        write_video(tmp_path / "a.mp4", [np.zeros((8, 8, 3), np.uint8)])
    assert [path.name for path in tmp_path.iterdir()] == ["ffmpeg"]


def test_an_ffmpeg_that_takes_no_more_frames_is_stopped(tmp_path, use_ffmpeg, monkeypatch):
    use_ffmpeg("exec sleep 600")
    monkeypatch.setattr("splatfix.programs.STALL_SECONDS", 0.3)
    with pytest.raises(OSError, match=r"a\.mp4: ffmpeg was stopped: it has taken nothing for 0\.3 s; check the disk"):
        write_video(tmp_path / "a.mp4", [np.zeros((512, 512, 3), np.uint8)])  # more than a pipe holds
    assert [path.name for path in tmp_path.iterdir()] == ["ffmpeg"]


def test_a_stop_while_frames_are_written_stays_a_stop(tmp_path, use_ffmpeg):
    use_ffmpeg("head -c 192 > /dev/null\nexec 0<&-\nexec sleep 600")  # reads one frame; then its pipe is broken

    def frames():
        yield np.zeros((8, 8, 3), np.uint8)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_video(tmp_path / "a.mp4", frames())
    assert [path.name for path in tmp_path.iterdir()] == ["ffmpeg"]
