"""The guide's example runs as it stands, and what it names exists."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from keras_mosaickd import load_teacher, measure_agreement
from keras_mosaickd.cli import flags
from keras_mosaickd.evaluation.verdict import USES

ROOT = Path(__file__).resolve().parent.parent
GUIDE = (ROOT / "docs" / "own_teacher.md").read_text()
EXAMPLE = re.search(r"```python\n(.*?)```", GUIDE, re.DOTALL).group(1)


def test_example_is_short():
    assert len([line for line in EXAMPLE.splitlines() if line.strip()]) <= 25


@pytest.mark.slow
def test_example_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(5, 3, strides=2, activation="relu")(inputs / 127.5 - 1)
    x = keras.layers.GlobalAveragePooling2D()(x)
    keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(x)).save("teacher.keras")
    (tmp_path / "images").mkdir()
    for index, image in enumerate(np.random.default_rng(0).integers(0, 255, (20, 9, 12, 3))):
        Image.fromarray(image.astype("uint8")).save(f"images/{index}.png")
    scope = {}
    exec(compile(EXAMPLE, "own_teacher.md", "exec"), scope)
    teacher = load_teacher("teacher.keras", "0-255")
    again = measure_agreement(teacher, keras.saving.load_model("student.keras"), scope["held_out"])
    assert again == scope["found"] and len(scope["held_out"]) == 2


def test_the_command_parses():
    command = re.search(r"^    bin/train (.*?[^\\])$", GUIDE, re.MULTILINE | re.DOTALL).group(1)
    parsed = flags.parse("train", command.replace("\\\n", " ").split())
    assert parsed.values["select"] == "agreement"


def test_the_thresholds_are_the_verdicts():
    documented = [float(least) for least in re.findall(r"^\| (0\.\d+) \|", GUIDE, re.MULTILINE)]
    assert [*documented, 0.0] == [*USES]
