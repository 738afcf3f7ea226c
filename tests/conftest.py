"""What every test shares. `bin/test` runs pytest once per backend, which is the process's.

Most of the package knows no backend, so most tests run once: on TensorFlow, or on PyTorch where
they are whole jobs, since PyTorch traces and compiles nothing. What differs between backends (the
training step, the fast operations, saving and resuming, one job of the command line) runs on each.
A test that carries `@pytest.mark.backend(...)` runs on the backends that it names.
"""

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


ALL = ("tensorflow", "jax", "torch")
HOMES = {
    "test_baselines": ALL,
    "test_checkpoints": ALL,
    "test_fused": ALL,
    "test_given": ("tensorflow", "torch"),
    "test_heads": ALL,
    "test_host": ALL,
    "test_imitation": ALL,
    "test_keras_graph": ALL,
    "test_losses": ALL,
    "test_mosaic_kd": ALL,
    "test_multipliers": ALL,
    "test_optimizers": ALL,
    "test_streams": ALL,
    "test_label_streams": ALL,
    "test_without_tensorflow": ALL,
    "test_processes": ("jax", "torch"),
    "test_own_teacher": ("tensorflow", "torch"),
    "test_teacher_kinds": ("tensorflow", "torch"),
    # Whole jobs.
    "test_experiment": ("torch",),
    "test_methods": ("torch",),
    "test_faults": ("torch",),
    "test_fuzz": ("torch",),
    "test_without_labels": ("torch",),
    "test_own_teacher_doc": ("torch",),
    "test_transfer_set": ("torch",),
    "test_import_weights": ("torch",),
    "test_remote": ("torch",),
}


def homes(item: pytest.Item) -> tuple[str, ...]:
    """The backends on which a test runs."""
    marker = item.get_closest_marker("backend")
    return marker.args if marker else HOMES.get(item.path.stem, ("tensorflow",))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out the tests that run on other backends than this process's."""
    backend = keras.backend.backend()
    kept, left_out = [], []
    for item in items:
        (kept if backend in homes(item) else left_out).append(item)
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
