"""The notebook of the documentation: it uses the Python API alone, and runs from its first cell to its last."""

import ast
import os
import re
from pathlib import Path

import pytest

import splatfix

jupytext = pytest.importorskip("jupytext")
nbclient = pytest.importorskip("nbclient")

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "docs/notebooks/repair_a_splat.py"


def test_notebook_uses_the_python_api_alone():
    tree = ast.parse(NOTEBOOK.read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {
        name for node in imports for name in [getattr(node, "module", None), *(a.name for a in node.names)] if name
    }
    assert {name for name in names if name.startswith("splatfix")} == {"splatfix"}
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "splatfix"
    }
    assert {"fit_capture", "run_loop"} <= used <= set(splatfix.__all__)


def test_links_of_the_notebook_lead_to_pages():
    links = re.findall(r"\]\(([^)#]+)", NOTEBOOK.read_text())
    assert len(links) > 5
    assert not [link for link in links if not (NOTEBOOK.parent / link).is_file()]


@pytest.mark.slow
def test_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("SPLATFIX_NOTEBOOK_SMALL", "1")
    monkeypatch.setenv("SPLATFIX_NOTEBOOK_OUT", str(tmp_path / "out"))
    notebook = jupytext.read(NOTEBOOK)
    # jupyter_client starts the kernel python3 with this interpreter
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()

    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    tables = [output["data"]["text/markdown"] for output in outputs if "text/markdown" in output.get("data", {})]
    assert len(pictures) == 8
    assert [table.split()[1] for table in tables] == ["PSNR", "SSIM"]
    for table in tables:
        rows = table.splitlines()[2:]
        assert [row.split()[1] for row in rows] == ["all", "near", "mid", "far"]
        assert all(re.fullmatch(r"\| \w+( \| [+-]?\d+\.\d+){4} \|", row) for row in rows)
    text = "".join(output["text"] for output in outputs if output.get("name") == "stdout")
    assert "36 photos; 6 to fit, 6 to test on" in text
    assert re.search(r"The repair (helped|made no difference|HURT)", text)
    best = re.search(r"best\.ply: (\w+), (\d+) Gaussians", text)
    assert best is not None
    assert len(splatfix.read_splat(tmp_path / "out/best.ply").gaussians) == int(best[2])
    assert (tmp_path / "out/loop/report.html").is_file()
