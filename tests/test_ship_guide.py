"""docs/ship.md: its commands and its code run as they stand, on a run of a few updates."""

import importlib
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_mosaickd.cli import runner
from keras_mosaickd.data import load

# The code is that of plain runtimes, and what it reads is the same from every backend.
pytestmark = [pytest.mark.slow, pytest.mark.backend("tensorflow")]

ROOT = Path(__file__).resolve().parent.parent
GUIDE = (ROOT / "docs" / "ship.md").read_text()
COMMANDS = re.findall(r"^    bin/(\w+) (.+)$", GUIDE, re.MULTILINE)
CODE = re.findall(r"^## (.+?)\n.*?```python\n(.*?)```", GUIDE, re.MULTILINE | re.DOTALL)
SHORTER = (
    "--image_size=8 --teacher=wrn10_1 --teacher_epochs=1 --student_updates=2 --student_steps=2 "
    "--batch_size=16 --evaluations=1"
).split()


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """A directory in which the guide's commands have been given."""
    folder = tmp_path_factory.mktemp("guide")
    (folder / "configs").symlink_to(ROOT / "configs")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), "uint8")
    Image.fromarray(pixels).save(folder / "image.jpg")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, arguments in COMMANDS:
            module = importlib.import_module(f"keras_mosaickd.cli.{name}")
            given = shlex.split(arguments) + (SHORTER if name == "train" else [])
            assert runner.run(module.main, name, given) == 0, (name, arguments)
    return folder


def test_the_guide_has_its_commands_and_code():
    assert [name for name, _ in COMMANDS] == ["train", "export", "export", "evaluate"]
    titles = ["SavedModel, with TensorFlow alone", "Keras", "ONNX", "LiteRT", "From your own code"]
    assert [title for title, _ in CODE] == titles


@pytest.mark.long
def test_the_code_runs_and_its_answers_agree(shipped, monkeypatch, capsys):
    monkeypatch.chdir(shipped)
    digits = load("digits[0-4]", "train", image_size=8).images[:20].astype("float32") / 255
    scope = {"images": digits[:4], "calibration": digits[4:]}
    for title, code in CODE:
        exec(compile(code, f"docs/ship.md, {title}", "exec"), scope)
    assert scope["name"] in "01234" and 0.2 <= scope["probability"] <= 1
    expected = scope["student"].predict_on_batch(digits[:1])
    np.testing.assert_allclose(scope["logits"], expected, atol=1e-4)
    assert scope["logits_int8"].shape == expected.shape
    assert [export["format"] for export in scope["exports"]] == ["saved_model", "litert_int8"]
    assert "0." in capsys.readouterr().out


@pytest.mark.long
def test_the_table_of_files_is_what_a_run_writes(shipped):
    run = shipped / "runs" / "shipped"
    for name in ("student.keras", "saved_model", "student.onnx", "student.tflite"):
        assert f"`{name}" in GUIDE and (run / name).exists()
    assert (run / "student_int8.tflite").exists() and (run / "model_card.md").exists()
    assert (shipped / "small" / "student_int8.tflite").exists()
