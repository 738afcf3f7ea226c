"""The README's example runs as it stands; its commands: tests/test_docs.py."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from tests import game
from tests.documents import ROOT, blocks

README = ROOT / "README.md"
TEXT = README.read_text()
(EXAMPLE,) = (block.text for block in blocks(README) if block.language == "python")


def test_example_is_short():
    assert len([line for line in EXAMPLE.splitlines() if line.strip()]) <= 20


@pytest.mark.slow
def test_example_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    teacher = game.classifier()
    inputs = keras.Input(game.SHAPE)
    keras.Model(inputs, keras.layers.Softmax()(teacher(inputs))).save("teacher.keras")
    Path("pictures").mkdir()
    for index, pixels in enumerate(game.pictures(50)[..., 0] * 255):
        Image.fromarray(pixels.astype("uint8")).save(f"pictures/{index}.png")
    scope = {}
    exec(compile(EXAMPLE, "README.md", "exec"), scope)
    assert len(scope["held_out"]) == 5 and len(scope["pictures"]) == 45
    best = keras.models.load_model("best.keras")
    np.testing.assert_array_equal(
        scope["student"].predict(game.pictures(), verbose=0),
        best.predict(game.pictures(), verbose=0),
    )
    assert Path("saved_model/saved_model.pb").is_file()


def test_the_two_commands_are_named():
    for command in ("bin/quickstart", "bin/test"):
        assert re.search(rf"^    {command}$", TEXT, re.MULTILINE)


def test_files_that_it_names_exist():
    for name in re.findall(r"(?<![\w/])((?:bin|docs|configs)/[\w./]+\w)", TEXT):
        assert (ROOT / name).exists(), name
