"""The viewer starts, serves its page, and stops; without viser it says what to install."""

import sys
import urllib.request
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from splatfix import viewer
from splatfix.cameras import Camera, look_at
from splatfix.captures.capture import Capture, Photo, View
from splatfix.cli import main
from splatfix.gaussians import Gaussians, Splat, write_splat
from splatfix.rendering import render
from splatfix.similarity import Similarity


def some_gaussians(num: int = 50) -> Gaussians:
    generator = torch.Generator().manual_seed(0)
    return Gaussians(
        means=torch.randn(num, 3, generator=generator),
        log_scales=torch.randn(num, 3, generator=generator) - 2,
        quats=torch.randn(num, 4, generator=generator),
        opacity_logits=torch.randn(num, generator=generator),
        sh0=torch.randn(num, 1, 3, generator=generator),
        sh_rest=torch.zeros(num, 3, 3),
    )


def a_splat(num: int = 50, **drawn) -> Splat:
    return Splat(some_gaussians(num), **drawn)


def a_capture() -> Capture:
    intrinsics = np.array([[50.0, 0, 32], [0, 50, 24], [0, 0, 1]])
    views = []
    for k in range(4):
        center = 3 * np.array([np.cos(k), -0.3, np.sin(k)])
        pose = look_at(center, np.zeros(3), np.array([0.0, -1, 0]))
        camera = Camera(f"{k}.jpg", 64, 48, intrinsics, pose)
        views.append(View(camera, lambda: Photo(np.full((48, 64, 3), 0.5, np.float32))))
    return Capture("test", Path("test"), "colmap", tuple(views))


@pytest.mark.parametrize("with_cameras", [False, True])
def test_serves_its_page_and_stops(with_cameras):
    pytest.importorskip("viser")
    server = viewer.serve(a_splat(), a_capture() if with_cameras else None, port=8765)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.get_port()}", timeout=10) as answer:
            assert answer.status == 200
            assert b"<html" in answer.read(2000).lower()
    finally:
        server.stop()


def test_a_taken_port_is_not_fatal():
    pytest.importorskip("viser")
    first = viewer.serve(a_splat(), port=8795)
    try:
        second = viewer.serve(a_splat(), port=first.get_port())
        assert second.get_port() != first.get_port()
        second.stop()
    finally:
        first.stop()


def test_view_says_where_and_how_to_stop(monkeypatch, capsys):
    pytest.importorskip("viser")

    def interrupt(_seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(viewer.time, "sleep", interrupt)
    viewer.view(a_splat(mode="antialiased", background=(1.0, 1.0, 1.0)), port=8825)
    said = capsys.readouterr().out
    for words in ("http://localhost:", "Ctrl-C", "without antialiasing", "view dependence", "stopped"):
        assert words in said


def test_view_says_that_a_splat_is_not_in_the_world_of_its_photos(monkeypatch, capsys):
    class Server:
        get_port, stop = staticmethod(lambda: 8080), staticmethod(lambda: None)

    def interrupt(_seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(viewer, "serve", lambda *_, **__: Server)
    monkeypatch.setattr(viewer.time, "sleep", interrupt)
    viewer.view(a_splat(), a_capture())
    assert "the splat does not fit the photos: its renders reach" in capsys.readouterr().out
    white = (1.0, 1.0, 1.0)
    photo = render(Splat(some_gaussians(), background=white), [a_capture().cameras[0]]).rgb[0].clamp(0, 1).numpy()
    views = (View(a_capture().cameras[0], lambda: Photo(photo)),)
    viewer.view(a_splat(), replace(a_capture(), views=views, background=white))
    assert "does not fit" not in capsys.readouterr().out


def test_view_moves_a_splat_near_the_origin(monkeypatch, tmp_path, capsys):
    seen = []
    monkeypatch.setattr(viewer, "view", lambda splat, *_, **__: seen.append(splat))
    write_splat(tmp_path / "a.ply", a_splat(), file_from_world=Similarity(2.0, (1e6, 0.0, 0.0)))
    assert main(["view", str(tmp_path / "a.ply")]) == 0
    torch.testing.assert_close(seen[0].gaussians.means, some_gaussians().means)
    assert "the browser shows x where the file has 2 x + [1000000, 0, 0]" in capsys.readouterr().out


def test_without_viser_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "viser", None)
    with pytest.raises(ValueError, match=r"pip install 'splatfix\[viewer\]'"):
        viewer.serve(a_splat())


def test_an_empty_splat_is_an_error():
    pytest.importorskip("viser")
    with pytest.raises(ValueError, match="no Gaussians"):
        viewer.serve(a_splat(0))
