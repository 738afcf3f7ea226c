"""The README's example runs as it stands; its commands: tests/test_docs.py."""

import re
from pathlib import Path

import keras
import pytest

from keras_mosaickd import measure_agreement
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
    scope = {"images": game.images(64), "held_out": game.images(16, seed=1)}
    exec(compile(EXAMPLE, "README.md", "exec"), scope)
    best = keras.models.load_model("student.keras")
    score = scope["best"].best
    found = measure_agreement(scope["teacher"], best, game.images(16, seed=1))
    assert found.agreement == pytest.approx(score, abs=1e-6)
    assert Path("saved_model/saved_model.pb").is_file()


def test_the_two_commands_are_named():
    for command in ("bin/quickstart", "bin/test"):
        assert re.search(rf"^    {command}$", TEXT, re.MULTILINE)


def test_files_that_it_names_exist():
    for name in re.findall(r"\b((?:bin|docs|configs)/[\w./]+\w)", TEXT):
        assert (ROOT / name).exists(), name
