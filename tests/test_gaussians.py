"""Gaussians and splats, and their files."""

import json

import numpy as np
import pytest
import torch
from numpy.lib.recfunctions import append_fields
from plyfile import PlyData, PlyElement

from splatfix.cameras import rotation_from_quaternion
from splatfix.gaussians import (
    Gaussians,
    Splat,
    covariances,
    elongation,
    read_ply,
    read_recorded_world,
    read_splat,
    write_ply,
    write_splat,
)
from splatfix.similarity import IDENTITY, Similarity


def some_gaussians(num=7, rest=8) -> Gaussians:
    generator = torch.Generator().manual_seed(0)
    shapes = ((num, 3), (num, 3), (num, 4), (num,), (num, 1, 3), (num, rest, 3))
    return Gaussians(*(torch.randn(shape, generator=generator) for shape in shapes))


def test_covariances_are_rotated_squared_scales():
    gaussians = some_gaussians()
    for k, covariance in enumerate(covariances(gaussians.quats, gaussians.scales)):
        rotation = rotation_from_quaternion(gaussians.quats[k].double().numpy())
        expected = rotation @ np.diag(gaussians.scales[k].double().numpy() ** 2) @ rotation.T
        assert np.allclose(covariance.numpy(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rest", [0, 3, 8, 15])
def test_ply_round_trip_is_exact(tmp_path, rest):
    gaussians = some_gaussians(rest=rest)
    write_ply(tmp_path / "a.ply", gaussians)
    again = read_ply(tmp_path / "a.ply")
    for name in ("means", "log_scales", "quats", "opacity_logits", "sh0", "sh_rest"):
        assert torch.equal(getattr(again, name), getattr(gaussians, name)), name
    assert again.sh_degree == {0: 0, 3: 1, 8: 2, 15: 3}[rest]
    assert not list(tmp_path.glob(".*"))


def test_ply_has_the_standard_columns_in_the_standard_order(tmp_path):
    gaussians = some_gaussians(rest=3)
    write_ply(tmp_path / "a.ply", gaussians)
    vertex = PlyData.read(str(tmp_path / "a.ply"))["vertex"].data
    rest = [f"f_rest_{i}" for i in range(9)]
    head = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"]
    tail = ["opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    assert list(vertex.dtype.names) == [*head, *rest, *tail]
    # channel-major: f_rest_1 is the second coefficient of red
    np.testing.assert_array_equal(vertex["f_rest_1"], gaussians.sh_rest[:, 1, 0].numpy())
    np.testing.assert_array_equal(vertex["f_rest_3"], gaussians.sh_rest[:, 0, 1].numpy())


def test_empty_splats_round_trip(tmp_path):
    write_ply(tmp_path / "a.ply", some_gaussians(num=0))
    assert len(read_ply(tmp_path / "a.ply")) == 0


def test_infinite_opacity_logits_become_finite(tmp_path):
    gaussians = some_gaussians()
    gaussians.opacity_logits[0] = float("inf")
    gaussians.opacity_logits[1] = float("-inf")
    write_ply(tmp_path / "a.ply", gaussians)
    assert read_ply(tmp_path / "a.ply").opacity_logits[:2].tolist() == [30.0, -30.0]


def test_errors_of_broken_files_name_the_fault(tmp_path):
    path = tmp_path / "a.ply"
    with pytest.raises(ValueError, match=r"a\.ply: no such file"):
        read_ply(path)
    write_ply(path, some_gaussians())
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"a\.ply: cannot be read as PLY"):
        read_ply(path)
    path.write_bytes(b"not a ply at all")
    with pytest.raises(ValueError, match=r"a\.ply: cannot be read as PLY"):
        read_ply(path)
    points = np.zeros(3, [("x", "f4"), ("y", "f4"), ("z", "f4")])
    PlyData([PlyElement.describe(points, "vertex")]).write(str(path))
    with pytest.raises(ValueError, match="is missing; wanted a 3DGS"):
        read_ply(path)
    gaussians = some_gaussians()
    gaussians.means[3, 1] = float("nan")
    write_ply(path, gaussians)
    with pytest.raises(ValueError, match=r"vertex 3: \['x', 'y', 'z'\]"):
        read_ply(path)


def rewrite(path, change) -> None:
    """Change the vertices of a .ply: a function of their structured array."""
    vertex = change(PlyData.read(str(path))["vertex"].data.copy())
    PlyData([PlyElement.describe(vertex, "vertex")]).write(str(path))


def add_columns(vertex, names, value):
    return append_fields(vertex, names, [np.full(len(vertex), value, "f4")] * len(names), usemask=False)


def test_a_few_broken_rows_are_left_out_and_counted(tmp_path, caplog):
    path, gaussians = tmp_path / "a.ply", some_gaussians(num=40)
    write_ply(path, gaussians)

    def spoil(vertex):
        vertex["x"][3], vertex["f_rest_2"][7], vertex[11] = np.nan, np.inf, np.zeros(1, vertex.dtype)[0]
        return vertex

    rewrite(path, spoil)
    keep = [row for row in range(40) if row not in (3, 7, 11)]
    assert torch.equal(read_ply(path).means, gaussians.means[keep])
    assert torch.equal(read_ply(path).sh_rest, gaussians.sh_rest[keep])
    assert "a.ply: 3 of 40 vertices are zeros or not finite (the first: 3): left out" in caplog.text


def test_a_file_of_which_a_part_is_zero_is_refused(tmp_path):
    path = tmp_path / "a.ply"
    write_ply(path, some_gaussians(num=40))

    def zero(vertex):
        vertex[30:] = np.zeros(1, vertex.dtype)[0]
        return vertex

    rewrite(path, zero)
    with pytest.raises(ValueError, match=r"vertex 30: .* 10 of 40 vertices .*is the file whole\? Export it again$"):
        read_ply(path)


def test_the_filter_of_mip_splatting_is_applied(tmp_path, caplog):
    path, gaussians = tmp_path / "a.ply", some_gaussians()
    write_ply(path, gaussians)
    rewrite(path, lambda vertex: add_columns(vertex, ["filter_3D"], 0.5))
    read = read_ply(path)
    variances = gaussians.scales.double() ** 2
    torch.testing.assert_close(read.scales.double(), (variances + 0.25).sqrt(), rtol=1e-5, atol=0)
    factor = (variances / (variances + 0.25)).prod(1).sqrt()
    torch.testing.assert_close(read.opacities.double(), gaussians.opacities * factor, rtol=1e-5, atol=0)
    assert "filter_3D" in caplog.text


def test_bands_of_degree_4_are_left_out(tmp_path, caplog):
    path, gaussians = tmp_path / "a.ply", some_gaussians(rest=15)
    write_ply(path, gaussians)

    def widen(vertex):
        rest = np.stack([vertex[f"f_rest_{i}"] for i in range(45)], axis=1).reshape(-1, 3, 15)
        rest = np.concatenate([rest, np.full((len(vertex), 3, 9), 9, "f4")], axis=2).reshape(-1, 72)
        vertex = add_columns(vertex, [f"f_rest_{i}" for i in range(45, 72)], 0)
        for i in range(72):
            vertex[f"f_rest_{i}"] = rest[:, i]
        return vertex

    rewrite(path, widen)
    assert torch.equal(read_ply(path).sh_rest, gaussians.sh_rest)
    assert "degree 4" in caplog.text


@pytest.mark.parametrize("name", ["a.splat", "a.spz", "a.ksplat", "a.sog", "a.compressed.ply", "renamed.ply"])
def test_splats_in_other_formats_are_named_with_a_converter(tmp_path, name):
    path = tmp_path / name
    packed = np.zeros(4, [("packed_position", "u4"), ("packed_color", "u4")])
    PlyData([PlyElement.describe(packed, "vertex")]).write(str(path))
    with pytest.raises(ValueError, match=rf"{name}: .*wanted a 3DGS \.ply: convert it.*splat-transform {name} "):
        read_ply(path)


def test_elongation_is_longest_over_shortest():
    gaussians = some_gaussians(num=3)
    gaussians.log_scales[:] = torch.tensor([[0.0, 0, 0], [0, 0, np.log(2)], [0, np.log(8), np.log(2)]])
    assert elongation(gaussians)["median"] == pytest.approx(2)
    assert elongation(some_gaussians(num=0)) == {"median": None, "p95": None}


@pytest.mark.parametrize("background", [None, (1.0, 0.5, 0.0)])
def test_mode_and_background_of_a_splat_round_trip(tmp_path, background):
    path, gaussians = tmp_path / "after.ply", some_gaussians()
    write_splat(path, Splat(gaussians, "antialiased", background))
    splat = read_splat(path)
    assert (splat.mode, splat.background) == ("antialiased", background)
    assert torch.equal(splat.gaussians.means, gaussians.means)
    given = read_splat(path, mode="classic", background=(0.0, 0.0, 1.0))
    assert (given.mode, given.background) == ("classic", (0.0, 0.0, 1.0))
    write_ply(tmp_path / "bare.ply", gaussians)
    assert path.read_bytes() == (tmp_path / "bare.ply").read_bytes()
    record = json.loads((tmp_path / "splat.json").read_text())
    assert record == {"schema": 1, "mode": "antialiased", "background": None if background is None else [1, 0.5, 0]}


def test_a_ply_without_splat_json_is_classic_over_black(tmp_path):
    write_ply(tmp_path / "a.ply", some_gaussians())
    splat = read_splat(tmp_path / "a.ply")
    assert (splat.mode, splat.background) == ("classic", None)
    assert read_splat(tmp_path / "a.ply", mode="antialiased").mode == "antialiased"


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ([], "wanted a mapping with schema = 1"),
        ({"schema": 2}, "wanted a mapping with schema = 1"),
        ({"schema": 1, "mode": "soft"}, "mode = 'soft'; wanted one of classic, antialiased"),
        ({"schema": 1, "mode": "classic", "background": [1, 2]}, "wanted three numbers or null"),
        ({"schema": 1, "mode": "classic", "background": "red"}, "wanted three numbers or null"),
    ],
)
def test_an_invalid_splat_json_is_an_error(tmp_path, record, words):
    write_ply(tmp_path / "a.ply", some_gaussians())
    (tmp_path / "splat.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=rf"splat\.json: .*{words}"):
        read_splat(tmp_path / "a.ply")


def test_the_world_of_a_splat_is_recorded(tmp_path):
    path = tmp_path / "a.ply"
    write_splat(path, Splat(some_gaussians()))
    assert read_recorded_world(path) == IDENTITY
    move = Similarity(0.25, (1e6, 2e6, 0.0))
    write_splat(path, Splat(some_gaussians()), file_from_world=move)
    assert read_recorded_world(path) == move
    record = json.loads((tmp_path / "splat.json").read_text())
    record["file_from_world"]["scale"] = -1
    (tmp_path / "splat.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"splat\.json: file_from_world = .*wanted a scale above 0"):
        read_recorded_world(path)
