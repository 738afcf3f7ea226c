"""A saved network is a plain Keras model: it loads safely, without this package."""

from __future__ import annotations

import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_mosaickd import networks

_LOAD = """
import sys
sys.modules["keras_mosaickd"] = None  # any import of the package fails
import keras
import numpy as np
inputs = np.load("inputs.npz")
outputs = {}

def zeros(self, shape, dtype=None):  # JAX would compile a random draw for every shape
    return keras.ops.convert_to_tensor(np.zeros(shape, "float32"), dtype)

keras.initializers.VarianceScaling.__call__ = zeros
for name, x in inputs.items():
    model = keras.saving.load_model(f"{name}.keras", safe_mode=True)
    outputs[name] = keras.ops.convert_to_numpy(model(x, training=False))
np.savez("outputs.npz", **outputs)
"""


@pytest.mark.slow
def test_saved_networks_load_where_this_package_is_missing(tmp_path, outputs_of):
    generator = np.random.default_rng(0)
    statistics = {"mean": (0.1, 0.2, 0.3), "std": (0.2, 0.3, 0.4)}
    shape = (16, 16, 3)
    made = {
        "student": networks.build("wrn10_1", shape, 10, **statistics),
        "generator": networks.generator(shape, preset="official"),
        "paper": networks.discriminator(shape, overlap_stride=3, **statistics),
        "official": networks.discriminator(
            shape, preset="official", overlap_stride=2, **statistics
        ),
    }
    inputs, expected = {}, {}
    for name, model in made.items():
        # Weights that no initialiser would give, moving statistics included.
        model.set_weights(
            [weight + generator.uniform(0, 0.1, weight.shape) for weight in model.get_weights()]
        )
        size = (2, *model.input.shape[1:])
        inputs[name] = generator.random(size).astype("float32")
        expected[name] = outputs_of(model, inputs[name])
        model.save(tmp_path / f"{name}.keras")
    np.savez(tmp_path / "inputs.npz", **inputs)

    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["KERAS_BACKEND"] = keras.backend.backend()
    subprocess.run([sys.executable, "-c", _LOAD], cwd=tmp_path, env=environment, check=True)
    found = np.load(tmp_path / "outputs.npz")
    for name in made:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-6, atol=1e-6)
