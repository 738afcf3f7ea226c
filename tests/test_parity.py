"""The three backends play the same game."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests import parity_program

NETWORKS = {"student", "generator", "discriminator", "teacher"}
ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
@pytest.mark.backend("tensorflow")  # a process of each other backend is started, once is enough
@pytest.mark.parametrize(
    ("policy", "losses"),
    [
        pytest.param("inference", "paper", marks=pytest.mark.long),
        pytest.param("training", "paper", marks=pytest.mark.long),
        # With the features and the teacher's BatchNorm statistics.
        pytest.param("training", "practical", marks=pytest.mark.long),
        # With multipliers that find themselves.
        ("training", "adaptive"),
    ],
)
def test_backends_agree_after_ten_iterations(tmp_path, policy, losses):
    results = {}
    for backend in ("tensorflow", "jax", "torch"):
        out = tmp_path / f"{backend}.npz"
        if backend == "tensorflow":  # this process's
            parity_program.main(str(out), policy, "none", losses)
        else:
            environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)}
            program = str(ROOT / "tests" / "parity_program.py")
            command = [sys.executable, program, str(out), policy, "none", losses]
            finished = subprocess.run(command, env=environment, capture_output=True, text=True)
            assert finished.returncode == 0, finished.stderr[-3000:]
        with np.load(out, allow_pickle=False) as stored:
            results[backend] = dict(stored)
    reference = results["tensorflow"]
    parts = NETWORKS | ({"multipliers"} if losses == "adaptive" else set())
    assert {name.split("/")[0] for name in reference} == parts
    for backend in ("jax", "torch"):
        assert results[backend].keys() == reference.keys()
        for name, value in reference.items():
            np.testing.assert_allclose(
                results[backend][name], value, rtol=0, atol=1e-5, err_msg=f"{backend}: {name}"
            )


@pytest.mark.slow
@pytest.mark.backend("jax")
@pytest.mark.long
def test_two_jax_devices_equal_one(tmp_path):
    results = []
    for strategy in ("none", "mirrored"):
        out = tmp_path / f"{strategy}.npz"
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        }
        program = str(ROOT / "tests" / "parity_program.py")
        command = [sys.executable, program, str(out), "training", strategy, "adaptive"]
        finished = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert finished.returncode == 0, finished.stderr[-3000:]
        with np.load(out, allow_pickle=False) as stored:
            results.append(dict(stored))
    for name, value in results[0].items():
        np.testing.assert_allclose(results[1][name], value, rtol=0, atol=1e-4, err_msg=name)


ANY_NUMBER = """
import keras, numpy as np
from keras_mosaickd import KnowledgeDistillation
from keras_mosaickd.backend.training import distribution
from keras_mosaickd.data import entropies
from keras_mosaickd.data.image_set import ImageSet
from keras_mosaickd.evaluation.scores import scores
from tests import game
images = game.images(7)
expected = keras.ops.convert_to_numpy(game.classifier(1)(images))
assert distribution("mirrored").replicas == 2
model = KnowledgeDistillation(game.classifier(1), game.classifier(2))
model.compile(keras.optimizers.SGD(0.1))
history = model.fit(game.images(8), batch_size=4, validation_data=(images,), verbose=0)
assert np.isfinite(history.history["val_loss"]).all()
np.testing.assert_allclose(
    model.predict(images, batch_size=4, verbose=0),
    keras.ops.convert_to_numpy(model.student(images)), atol=1e-6)
assert entropies(model.teacher, images, batch_size=256).shape == (7,)
labelled = ImageSet(images, expected.argmax(axis=-1), ("a", "b", "c"), "mine", "test", False)
assert scores(model.teacher, labelled, batch_size=4) == {"accuracy": 1.0}
"""


@pytest.mark.slow
@pytest.mark.backend("jax")
def test_two_jax_devices_judge_any_number_of_images():
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    }
    command = [sys.executable, "-c", ANY_NUMBER]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr[-3000:]
