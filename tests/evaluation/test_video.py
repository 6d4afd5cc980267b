"""Videos: their frames, size and layout."""

import numpy as np
import pytest

from splatfix.evaluation.video import write_video


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
