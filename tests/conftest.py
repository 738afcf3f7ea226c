"""What every test shares. ``bin/test`` runs pytest once per backend, which is the process's."""

from __future__ import annotations

import importlib.util
import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

if importlib.util.find_spec("torch") is not None:
    # In this order only: a process that loads TensorFlow first crashes when it loads PyTorch.
    import torch  # noqa: F401

import hypothesis
import keras
import pytest

# The same examples in every run, however busy the machine is.
hypothesis.settings.register_profile("project", derandomize=True, deadline=None, max_examples=50)
hypothesis.settings.load_profile("project")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out the tests that are marked for other backends than this process's."""
    backend = keras.backend.backend()
    kept, left_out = [], []
    for item in items:
        marker = item.get_closest_marker("backend")
        (kept if marker is None or backend in marker.args else left_out).append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept


@pytest.fixture
def backend() -> str:
    """The Keras backend of this process: tensorflow, jax or torch."""
    return keras.backend.backend()


@pytest.fixture(autouse=True)
def _fresh_keras() -> None:
    """Gives every test the same random numbers and layer names, whatever ran before it."""
    # Collecting garbage around every test takes longer than most tests.
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(20211)
