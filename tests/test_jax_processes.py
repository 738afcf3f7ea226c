"""Training by two JAX processes that talk over loopback."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
pytestmark = [pytest.mark.backend("jax"), pytest.mark.slow]

PROGRAM = """
import os, sys
import jax
if "KERAS_DISTRIBUTION_JOB_ADDRESSES" in os.environ:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
import keras, numpy as np
if "KERAS_DISTRIBUTION_JOB_ADDRESSES" in os.environ:
    keras.distribution.initialize()
from keras_mosaickd import mosaic_stream
from keras_mosaickd.training import distribution
from tests import game
distribution("mirrored")
model = game.game(compiled=False)
# Adam would make full steps of rounding errors where a gradient is nearly zero.
model.compile(
    student_optimizer=keras.optimizers.SGD(0.05, momentum=0.9),
    generator_optimizer=keras.optimizers.SGD(1e-3, momentum=0.9),
    discriminator_optimizer=keras.optimizers.SGD(1e-3, momentum=0.9),
)
start = model.get_weights()
stream = mosaic_stream(game.pictures(5 * game.BATCH), game.BATCH, student_steps=game.STEPS)
model.fit(stream, epochs=1, verbose=0)
assert int(model.optimizer.iterations) == 5
assert game.moved(start, model.get_weights())
print(jax.process_count(), jax.process_index())
np.savez(sys.argv[1], *model.get_weights())
"""


def start(path, **environment):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, "-c", PROGRAM, str(path)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process):
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err[-3000:]
    return out.split()[-2:]  # Gloo reports its connections first.


def variables(path):
    with np.load(path, allow_pickle=False) as file:
        return [file[name] for name in file.files]


def test_two_processes_give_the_variables_of_one(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    processes = [
        start(
            tmp_path / f"{index}.npz",
            KERAS_DISTRIBUTION_JOB_ADDRESSES=f"127.0.0.1:{port}",
            KERAS_DISTRIBUTION_NUM_PROCESSES="2",
            KERAS_DISTRIBUTION_PROCESS_ID=str(index),
        )
        for index in range(2)
    ]
    assert [finish(process) for process in processes] == [["2", "0"], ["2", "1"]]
    assert finish(start(tmp_path / "one.npz")) == ["1", "0"]
    one, first, second = (variables(tmp_path / f"{name}.npz") for name in ("one", "0", "1"))
    largest = 0.0
    for expected, a, b in zip(one, first, second, strict=True):
        np.testing.assert_array_equal(a, b)
        largest = max(largest, float(np.max(np.abs(expected.astype("float64") - a), initial=0)))
    print("largest difference", largest)
    assert largest < 1e-4
