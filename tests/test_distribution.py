"""Training under MirroredStrategy, on two logical CPU devices."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
pytestmark = [pytest.mark.backend("tensorflow"), pytest.mark.slow]

DEVICES = """
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
"""

# Which rows of z each replica draws, what it does to a mean, and where to compile.
REPLICAS = (
    DEVICES
    + """
import keras, numpy as np
from keras_mosaickd.backend.training import distribution
from tests import game
place = distribution("mirrored")
assert place.replicas == 2
from keras_mosaickd import recipe, mosaic_stream
keras.Model._resolve_auto_jit_compile = lambda self: True  # as where there are GPUs
with place.scope():
    # epsilon_local as no batch has it: both multipliers move.
    model = game.game(compiled=False, regularization="adaptive", epsilon_local=0.9)
    model.compile(**recipe(4, game.STEPS))
assert model.jit_compile is False  # XLA has no program over several devices.
single = keras.random.SeedGenerator(3)
expected = keras.ops.convert_to_numpy(keras.random.normal((8, game.LATENT), seed=single))
with place.scope():
    mirrored = tf.distribute.get_strategy()
    drawn = mirrored.run(lambda: model.latents(4))
    rows = np.concatenate([part.numpy() for part in drawn.values])
    means = mirrored.run(lambda: model.mean_over_replicas(
        tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, "float32")))
np.testing.assert_allclose(rows, expected, rtol=1e-6)
assert [float(value) for value in means.values] == [0.5, 0.5]
before = game.values(model.teacher.variables)
history = model.fit(mosaic_stream(game.images(16), 8, student_steps=game.STEPS), epochs=2,
                    validation_data=(game.images(8),), verbose=0)
assert np.isfinite(history.history["loss"]).all()
assert int(model.optimizer.iterations.numpy()) == 4
assert int(model.phase_optimizers["student_optimizer"].iterations.numpy()) == 8
assert not game.moved(before, game.values(model.teacher.variables))
state = model.multipliers.weights
for variable in state:
    first, second = [part.numpy() for part in variable.value.values]
    np.testing.assert_array_equal(first, second)
    assert (first != 0).all(), variable.path
odd = game.images(11)
expected = np.mean(model.student.predict(odd, verbose=0).argmax(-1)
                   == model.teacher.predict(odd, verbose=0).argmax(-1))
measured = model.evaluate(odd, batch_size=6, verbose=0, return_dict=True)
np.testing.assert_allclose(measured["agreement"], expected, rtol=1e-6)
logits = [network.predict(odd, verbose=0) for network in (model.teacher, model.student)]
divergence = keras.ops.convert_to_numpy(model.head.kl_divergence(*logits))
# Not closer: each replica normalises by the moving statistics that it has seen.
np.testing.assert_allclose(measured["loss"], divergence.mean(), rtol=1e-2)
for variable in model.student.trainable_variables:
    first, second = [part.numpy() for part in variable.value.values]
    np.testing.assert_array_equal(first, second)

with place.scope():
    model = game.game(compiled=False)
try:
    model.compile(**recipe(10, game.STEPS))
except RuntimeError as error:
    assert "inside the same `with strategy.scope():`" in str(error), error
else:
    raise AssertionError("compile outside the scope was accepted")
"""
)

# Two replicas of B/2 against one of B: the same weights, z, images; the paper's networks.
EQUIVALENCE = (
    DEVICES
    + """
import keras, numpy as np
from keras_mosaickd import MosaicKD, mosaic_stream, networks
from keras_mosaickd.backend.training import distribution
from keras_mosaickd.optimizers import cosine
from tests import game
SHAPE, CLASSES, BATCH = (16, 16, 1), 4, 8

def build():
    keras.utils.set_random_seed(0)
    options = {"synchronized_batch_norm": True}
    model = MosaicKD(
        networks.build("wrn10_1", SHAPE, CLASSES, mean=0.5, std=0.5),
        networks.build("wrn10_1", SHAPE, CLASSES, mean=0.5, std=0.5, **options),
        networks.generator(SHAPE, **options),
        networks.discriminator(SHAPE, **options),
        student_steps=2,
        seed=1,
        regularization="adaptive",
        epsilon_local=0.2,
    )
    # Adam would make full steps of rounding errors where a gradient is nearly zero.
    model.compile(
        student_optimizer=keras.optimizers.SGD(0.05, momentum=0.9),
        generator_optimizer=keras.optimizers.SGD(cosine(1e-4, 10), momentum=0.9),
        discriminator_optimizer=keras.optimizers.SGD(1e-4, momentum=0.9),
    )
    return model

images = np.random.default_rng(0).random((5 * BATCH, *SHAPE), dtype="float32")
single = build()
start = single.get_weights()
with distribution("mirrored").scope():
    mirrored = build()
mirrored.set_weights(start)
for model in (single, mirrored):
    model.fit(mosaic_stream(images, BATCH, student_steps=2), epochs=1, verbose=0)
assert int(mirrored.optimizer.iterations.numpy()) == int(single.optimizer.iterations.numpy()) == 5
largest = 0.0
for network in ("student", "generator", "discriminator", "teacher", "multipliers"):
    pairs = zip(getattr(single, network).variables, getattr(mirrored, network).variables)
    for one, two in pairs:
        one, two = (keras.ops.convert_to_numpy(value) for value in (one, two))
        largest = max(largest, float(np.max(np.abs(one.astype("float64") - two))))
print("largest difference", largest)
assert largest < 1e-4, largest
assert game.moved(start, single.get_weights())
"""
)

COMMAND = (
    DEVICES
    + """
import sys
from keras_mosaickd.cli import train
train.console()
"""
)


def run(program, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program, *arguments]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr[-3000:]


def test_replicas_share_one_draw_and_one_mean_and_stay_equal():
    run(REPLICAS)


@pytest.mark.long
def test_two_replicas_of_half_a_batch_equal_one_of_the_whole():
    run(EQUIVALENCE)


def test_several_machines_are_refused_with_the_reason(monkeypatch):
    from keras_mosaickd.backend.training import distribution
    from keras_mosaickd.errors import InputError

    monkeypatch.setenv("TF_CONFIG", '{"cluster": {"worker": ["a:1", "b:1"]}}')
    with pytest.raises(InputError, match="MultiWorkerMirroredStrategy, under which fit fails"):
        distribution("auto")


@pytest.mark.long
def test_command_with_two_devices(tmp_path):
    run(
        COMMAND,
        *"--dataset=digits[0-2] --ood=digits[5-9] --image_size=8 --teacher=wrn10_1".split(),
        *"--teacher_epochs=1 --batch_size=16 --student_updates=4 --student_steps=2".split(),
        "--strategy=mirrored",
        f"--run_dir={tmp_path / 'run'}",
        f"--cache_dir={tmp_path / 'cache'}",
    )
    assert (tmp_path / "run" / "saved_model" / "saved_model.pb").is_file()
