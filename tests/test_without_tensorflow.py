"""On JAX and PyTorch the library works where TensorFlow is not installed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

PROGRAM = """
import sys
from importlib.machinery import PathFinder

find_spec = PathFinder.find_spec

def without_tensorflow(name, path=None, target=None):
    if name.split(".")[0] in ("tensorflow", "tensorflow_datasets"):
        return None
    return find_spec(name, path, target)

PathFinder.find_spec = without_tensorflow
import numpy as np
from tests.game import BATCH, game, images

model = game()
history = model.fit(images(), batch_size=BATCH, validation_data=(images(),), verbose=0)
assert np.isfinite(history.history["loss"]).all()
assert model.predict(images(), verbose=0).shape == (16, 3)
assert "tensorflow" not in sys.modules
"""

RUN = (
    PROGRAM.split("import numpy", maxsplit=1)[0]
    + """
from keras_mosaickd.cli import train
sys.argv[1:] = (
    "--dataset=digits[0-2] --ood=digits[5-9] --image_size=8 --teacher=wrn10_1 --teacher_epochs=1 "
    "--batch_size=16 --student_updates=2 --student_steps=2"
).split() + sys.argv[1:]
train.console()
"""
)


def run(program, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.backend("jax", "torch")
def test_library():
    finished = run(PROGRAM)
    assert finished.returncode == 0, finished.stderr[-3000:]


@pytest.mark.long
@pytest.mark.backend("jax", "torch")
def test_command(tmp_path):
    finished = run(RUN, f"--run_dir={tmp_path / 'run'}", f"--cache_dir={tmp_path / 'cache'}")
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert "No SavedModel: it needs TensorFlow" in finished.stdout
    assert (tmp_path / "run" / "metrics.json").is_file()
    assert (tmp_path / "run" / "student.keras").is_file()
