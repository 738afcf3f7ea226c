"""Training by two JAX processes that talk over loopback."""

import os
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image

from keras_mosaickd import networks
from tests.documents import ROOT, blocks

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
from keras_mosaickd.backend.training import distribution
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
stream = mosaic_stream(game.images(5 * game.BATCH), game.BATCH, student_steps=game.STEPS)
model.fit(stream, epochs=1, verbose=0)
assert int(model.optimizer.iterations) == 5
assert game.moved(start, model.get_weights())
print(jax.process_count(), jax.process_index())
np.savez(sys.argv[1], *model.get_weights())
"""


def start(program, *arguments, folder=ROOT, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_two(program, arguments, folder=ROOT):
    """Starts both processes of one training, each with its own arguments."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return [
        start(
            program,
            *arguments[index],
            folder=folder,
            KERAS_DISTRIBUTION_JOB_ADDRESSES=f"127.0.0.1:{port}",
            KERAS_DISTRIBUTION_NUM_PROCESSES="2",
            KERAS_DISTRIBUTION_PROCESS_ID=str(index),
        )
        for index in range(2)
    ]


def finish(process):
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err[-3000:]
    return out.split()[-2:]  # Gloo reports its connections first.


def variables(path):
    with np.load(path, allow_pickle=False) as file:
        return [file[name] for name in file.files]


def test_two_processes_give_the_variables_of_one(tmp_path):
    processes = start_two(PROGRAM, [[tmp_path / "0.npz"], [tmp_path / "1.npz"]])
    assert [finish(process) for process in processes] == [["2", "0"], ["2", "1"]]
    assert finish(start(PROGRAM, tmp_path / "one.npz")) == ["1", "0"]
    one, first, second = (variables(tmp_path / f"{name}.npz") for name in ("one", "0", "1"))
    largest = 0.0
    for expected, a, b in zip(one, first, second, strict=True):
        np.testing.assert_array_equal(a, b)
        largest = max(largest, float(np.max(np.abs(expected.astype("float64") - a), initial=0)))
    print("largest difference", largest)
    assert largest < 1e-4


@pytest.mark.long
def test_the_program_of_the_guide_trains_in_two_processes(tmp_path):
    (program,) = (
        block.text
        for block in blocks(ROOT / "docs" / "several_devices.md")
        if block.language == "python"
    )
    for given, small in (("batch_size=256", "batch_size=8"), ("* 20)", "* 1)"), ("=20,", "=1,")):
        assert given in program
        program = program.replace(given, small)
    networks.build("wrn10_1", (16, 16, 3), 5, mean=0.5, std=0.25).save(tmp_path / "teacher.keras")
    (tmp_path / "images").mkdir()
    for number in range(40):
        pixels = np.random.default_rng(number).integers(0, 256, (20, 24, 3), "uint8")
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
    for process in start_two(program, [[], []], folder=tmp_path):
        finish(process)
    student = keras.saving.load_model(tmp_path / "student.keras", compile=False)
    assert student.output_shape == (None, 5)
