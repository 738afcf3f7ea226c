"""The notebooks of docs/: kept without outputs, and run from top to bottom.

bin/docs runs all of them for the site, on TensorFlow; here they run on the other backends.
"""

from __future__ import annotations

import json
from pathlib import Path

import keras
import pytest

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "notebooks"
NAMES = sorted(path.name for path in FOLDER.glob("*.ipynb"))
# Where each runs besides on the site.
ELSEWHERE = {"own_teacher.ipynb": ("torch",), "game.ipynb": ("jax", "torch")}


def code(name):
    cells = json.loads((FOLDER / name).read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.backend("tensorflow")
def test_there_are_three_and_they_hold_no_outputs():
    assert NAMES == ["game.ipynb", "own_teacher.ipynb", "paper_in_small.ipynb"]
    for name in NAMES:
        assert 5 <= len(code(name)) <= 15
        for cell in code(name):
            assert cell["outputs"] == [] and cell["execution_count"] is None, name
            compile("".join(cell["source"]), name, "exec")


@pytest.mark.long
@pytest.mark.backend("jax", "torch")
@pytest.mark.parametrize("name", ELSEWHERE)
def test_runs(name, tmp_path, monkeypatch):
    """Each cell shows what the reader is told to look at: a figure, or a line."""
    if keras.backend.backend() not in ELSEWHERE[name]:
        pytest.skip("runs on another backend")
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    notebook = nbformat.read(FOLDER / name, as_version=4)
    monkeypatch.setenv("KERAS_BACKEND", keras.backend.backend())
    nbclient.NotebookClient(
        notebook, timeout=1200, resources={"metadata": {"path": tmp_path}}
    ).execute()
    shown = [
        output["data"]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "data" in output
    ]
    assert sum("image/png" in data for data in shown) >= 2
