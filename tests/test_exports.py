"""Splats in the formats of other programs, read back by their published layouts or by the other program itself."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from plyfile import PlyData

from splatfix import exports
from splatfix.cli import main
from splatfix.evaluation.measure import summarize
from splatfix.evaluation.results import Results, ViewResult, write_results
from splatfix.exports import (
    FORMATS,
    SPLAT_TRANSFORM,
    USD_CONVERTER,
    Format,
    Program,
    export_splat,
    export_viewer,
    recommended_splat,
)
from splatfix.gaussians import SH_C0, Gaussians, Splat, read_ply, write_splat
from splatfix.metrics import psnr
from splatfix.rendering import render
from splatfix.similarity import Similarity
from tests.fake_programs import write_program
from tests.splats.scene import random_gaussians, ring_cameras

READ_USD = """
import json, sys
import numpy as np
from pxr import Usd
stage = Usd.Stage.Open(sys.argv[1])
[prim] = [prim for prim in stage.Traverse() if prim.GetTypeName() == "ParticleField3DGaussianSplat"]
values = {name: prim.GetAttribute(name).Get() for name in sys.argv[2:]}
values["orientations"] = [[quat.GetReal(), *quat.GetImaginary()] for quat in values["orientations"]]
print(json.dumps({name: np.array(value).tolist() for name, value in values.items()}))
"""
SPLAT_ROW = np.dtype([("mean", "<f4", 3), ("scale", "<f4", 3), ("rgba", "u1", 4), ("quat", "u1", 4)])


@pytest.fixture
def gaussians() -> Gaussians:
    return random_gaussians(300, seed=0, sh_rest=3)


@pytest.fixture
def splat(tmp_path, gaussians) -> Path:
    path = tmp_path / "after.ply"
    write_splat(path, Splat(gaussians))
    return path


def test_every_format_of_the_command_line_is_written():
    assert set(get_args(Format)) == set(FORMATS)


def test_a_plain_copy_has_no_loss(splat, tmp_path, gaussians):
    exported = export_splat(splat, "ply", tmp_path / "copy.ply")
    assert exported.losses == ()
    assert torch.equal(read_ply(exported.path).means, gaussians.means)


def test_a_splat_file_holds_the_gaussians(splat, gaussians):
    rows = np.fromfile(export_splat(splat, "splat").path, SPLAT_ROW)
    assert len(rows) == len(gaussians)
    by_x, known = np.argsort(rows["mean"][:, 0]), np.argsort(gaussians.means[:, 0].numpy())
    np.testing.assert_array_equal(rows["mean"][by_x], gaussians.means.numpy()[known])
    np.testing.assert_allclose(rows["scale"][by_x], gaussians.scales.numpy()[known], rtol=1e-5)
    colors = (0.5 + SH_C0 * gaussians.sh0[:, 0]).clamp(0, 1).numpy()[known]
    np.testing.assert_allclose(rows["rgba"][by_x, :3] / 255, colors, atol=1 / 255)
    np.testing.assert_allclose(rows["rgba"][by_x, 3] / 255, gaussians.opacities.numpy()[known], atol=1 / 255)


def test_a_compressed_ply_holds_the_positions(splat, gaussians):
    exported = export_splat(splat, "compressed-ply")
    assert exported.path.name == "after.compressed.ply"
    ply = PlyData.read(str(exported.path))
    chunk, packed = ply["chunk"].data, ply["vertex"].data["packed_position"]
    block = np.arange(len(packed)) // 256
    parts = zip("xyz", ((packed >> 21) / 2047, (packed >> 11 & 1023) / 1023, (packed & 2047) / 2047), strict=True)
    axes = [chunk[f"min_{a}"][block] + t * (chunk[f"max_{a}"] - chunk[f"min_{a}"])[block] for a, t in parts]
    positions = np.sort(np.stack(axes, axis=1)[:, 0])
    extent = np.ptp(gaussians.means[:, 0].numpy())
    np.testing.assert_allclose(positions, np.sort(gaussians.means[:, 0].numpy()), atol=extent / 2000)


def test_a_page_holds_the_splat(splat):
    pytest.importorskip("viser")
    page = export_splat(splat, "html").path.read_text(encoding="utf-8")
    assert page.lstrip().lower().startswith("<!doctype html")
    assert "__VISER_EMBED_DATA__" in page


def test_a_run_gets_a_page_with_before_and_after(tmp_path, gaussians):
    pytest.importorskip("viser")
    write_run(tmp_path, gaussians, before=20, control=20, after=21)
    assert main(["export", str(tmp_path), "--format", "html"]) == 0
    page = (tmp_path / "viewer.html").read_text(encoding="utf-8")
    for arm in ("before", "after"):
        assert f'src="{arm}.html"' in page
        assert "__VISER_EMBED_DATA__" in (tmp_path / f"{arm}.html").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match=r"neither before\.ply nor after\.ply"):
        export_viewer(tmp_path / "images")


PROGRAMS = [("spz", SPLAT_TRANSFORM, "npm"), ("sog", SPLAT_TRANSFORM, "npm"), ("usdz", USD_CONVERTER, "pipx")]


@pytest.mark.parametrize(("form", "program", "tool"), PROGRAMS)
def test_what_is_missing_is_named_with_the_remedy(splat, monkeypatch, form, program, tool):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match=rf"{program.name}, which is not on the PATH; remedy: {tool} install"):
        export_splat(splat, form)
    assert sorted(path.name for path in splat.parent.iterdir()) == ["after.ply", "splat.json"]


@pytest.fixture
def install(tmp_path, monkeypatch) -> Callable[[Program, str], None]:
    """Puts a shell script in the place of a program, first on the PATH."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'tools'}{os.pathsep}{os.environ['PATH']}")
    return lambda program, script: write_program(tmp_path / "tools" / program.name, script)


@pytest.mark.parametrize(("form", "program", "_"), PROGRAMS)
def test_the_program_that_runs_is_named_before_it_runs(splat, install, monkeypatch, caplog, form, program, _):
    install(program, "exec sleep 60")
    monkeypatch.setattr(exports, "MAX_SECONDS", 0.1)
    caplog.set_level("INFO", "splatfix.exports")
    with pytest.raises(OSError, match=rf"^{program.name} has not ended after 0.1 s; it was stopped$"):
        export_splat(splat, form)
    assert caplog.messages == [f"{program.name} is converting 300 Gaussians, which may take minutes (at most 0 s)"]


@pytest.mark.parametrize(("form", "program", "_"), PROGRAMS)
def test_a_failure_of_the_program_is_one_line_and_leaves_nothing(splat, install, tmp_path, form, program, _):
    install(program, 'echo "reading" >&2; echo "  bad input: 0 splats" >&2; exit 3')
    with pytest.raises(OSError, match=rf"^{program.name} failed: bad input: 0 splats$"):
        export_splat(splat, form)
    assert not list(tmp_path.glob(f"*.{form}*"))


@pytest.mark.skipif(shutil.which(SPLAT_TRANSFORM.name) is None, reason=f"{SPLAT_TRANSFORM.name} is not installed")
@pytest.mark.parametrize(("form", "least_db"), [("compressed-ply", 38), ("splat", 25), ("spz", 35), ("sog", 35)])
def test_splat_transform_reads_what_was_exported(splat, tmp_path, gaussians, form, least_db):
    again = tmp_path / "again.ply"
    subprocess.run([SPLAT_TRANSFORM.name, "--quiet", str(export_splat(splat, form).path), str(again)], check=True)
    cameras = ring_cameras(3)
    with torch.no_grad():
        wanted = render(Splat(gaussians), cameras).rgb.clamp(0, 1)
        seen = render(Splat(read_ply(again)), cameras).rgb.clamp(0, 1)
    assert min(psnr(a, b) for a, b in zip(seen, wanted, strict=True)) > least_db


@pytest.mark.skipif(shutil.which(USD_CONVERTER.name) is None, reason=f"{USD_CONVERTER.name} is not installed")
def test_openusd_reads_what_was_exported(splat, gaussians):
    """The OpenUSD of the converter's environment finds the Gaussians of the splat."""
    python = Path(shutil.which(USD_CONVERTER.name)).read_text().splitlines()[0].removeprefix("#!").strip()
    wanted = {
        "positions": gaussians.means,
        "scales": gaussians.scales,
        "orientations": torch.nn.functional.normalize(gaussians.quats, dim=1),
        "opacities": gaussians.opacities,
        "radiance:sphericalHarmonicsCoefficients": torch.cat([gaussians.sh0, gaussians.sh_rest], dim=1).flatten(0, 1),
    }
    values = json.loads(subprocess.check_output([python, "-c", READ_USD, export_splat(splat, "usdz").path, *wanted]))
    for name, value in wanted.items():
        torch.testing.assert_close(torch.tensor(values[name]), value, rtol=1e-5, atol=1e-6)


def write_run(folder: Path, gaussians: Gaussians, *, before: float, control: float, after: float) -> None:
    values = {"before": {"psnr": before}, "control": {"psnr": control}, "after": {"psnr": after}}
    view = ViewResult(name="a", band="near", distance=0.1, post=None, **values)
    for arm in values:
        write_splat(folder / f"{arm}.ply", Splat(gaussians))
    write_results(
        folder,
        Results(
            capture="room",
            restorer="warp",
            seed=0,
            size_px=64,
            views=(view,),
            summary=summarize([view]),
            elongation={},
            seconds={},
            num_gaussians=dict.fromkeys(values, len(gaussians)),
            reasons={},
        ),
    )


@pytest.mark.parametrize(
    ("before", "control", "after", "best"),
    [
        (20.0, 20.5, 21.0, "after"),
        (20.0, 21.0, 20.5, "control"),
        (21.5, 21.0, 20.5, "before"),
        (20, 21, 20.98, "control"),  # within noise: the one without repaired views
        (20, 21, 21.02, "control"),
    ],
)
def test_of_a_run_the_best_splat_is_exported(tmp_path, gaussians, before, control, after, best):
    write_run(tmp_path, gaussians, before=before, control=control, after=after)
    assert recommended_splat(tmp_path) == tmp_path / f"{best}.ply"


def test_the_command_says_what_it_wrote_and_what_it_leaves_out(tmp_path, gaussians, capsys):
    write_run(tmp_path, gaussians, before=20, control=20, after=21)
    write_splat(tmp_path / "after.ply", Splat(gaussians, "antialiased"))
    assert main(["export", str(tmp_path), "--format", "splat"]) == 0
    said = capsys.readouterr().out
    assert str(tmp_path / "after.splat") in said
    assert "without view dependence" in said
    assert "fitted antialiased" in said


@pytest.mark.parametrize(
    ("form", "name", "message"),
    [("ply", "after.ply", "is the splat itself"), ("splat", "after.ply2", r"wanted a name that ends in \.splat")],
)
def test_names_that_would_mislead_are_refused(splat, form, name, message):
    with pytest.raises(ValueError, match=message):
        export_splat(splat, form, splat.with_name(name))


def test_a_splat_in_map_coordinates_is_exported_near_the_origin_and_says_so(tmp_path, gaussians, capsys):
    far = Similarity(1.0, (430_000.0, 5_410_000.0, 180.0))
    write_splat(tmp_path / "after.ply", Splat(gaussians), file_from_world=far)
    assert main(["export", str(tmp_path / "after.ply"), "--format", "splat"]) == 0
    assert "x + [430000, 5410000, 180]" in capsys.readouterr().out
    rows = np.fromfile(tmp_path / "after.splat", SPLAT_ROW)
    np.testing.assert_allclose(np.sort(rows["mean"][:, 0]), np.sort(gaussians.means[:, 0].numpy()), atol=1e-6)
    copy = export_splat(tmp_path / "after.ply", "ply", tmp_path / "copy.ply")
    assert copy.losses == ()
    torch.testing.assert_close(read_ply(copy.path, file_from_world=far).means, gaussians.means)


@pytest.mark.parametrize(("form", "program", "_"), PROGRAMS)
def test_an_empty_conversion_is_a_failure(splat, install, form, program, _):
    install(program, 'for last; do :; done; : > "$last"')
    with pytest.raises(OSError, match=rf"^{program.name} failed: it wrote no file, or an empty one$"):
        export_splat(splat, form)
