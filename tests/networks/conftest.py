"""Weights and forward passes that cost little to make on every backend."""

from __future__ import annotations

import math
from collections.abc import Callable

import keras
import numpy as np
import pytest


@pytest.fixture
def real_initializers() -> None:
    """A test that asks for this draws weights as a user does."""


@pytest.fixture(autouse=True)
def _numpy_weights(request, monkeypatch):
    """Draws kernels in numpy: JAX compiles a random draw anew for every shape that it meets."""
    if "real_initializers" in request.fixturenames:
        return

    def draw(self, shape, dtype=None):
        fan_out = math.prod(shape[:-2]) * shape[-1]
        kernel = np.random.normal(scale=math.sqrt(2 / fan_out), size=shape)
        return keras.ops.convert_to_tensor(kernel.astype("float32"), dtype)

    monkeypatch.setattr(keras.initializers.VarianceScaling, "__call__", draw)


@pytest.fixture
def outputs_of(backend: str) -> Callable[[keras.Model, np.ndarray], np.ndarray]:
    """Returns a function: a model's outputs in inference mode, as float32 numpy."""

    def outputs(model: keras.Model, x: np.ndarray) -> np.ndarray:
        x = x.astype("float32")
        if backend == "jax":  # Operation by operation, JAX compiles each of them.
            return model.predict(x, verbose=0)
        return keras.ops.convert_to_numpy(keras.ops.cast(model(x, training=False), "float32"))

    return outputs
