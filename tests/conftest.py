"""What every test shares. `bin/test` runs pytest once per backend, which is the process's.

Most of the package knows no backend, so most tests run once: on TensorFlow, or on PyTorch where
they are whole jobs, since PyTorch traces and compiles nothing. What differs between backends (the
training step, the fast operations, saving and resuming, one job of the command line) runs on each.
A test that carries `@pytest.mark.backend(...)` runs on the backends that it names;
`@pytest.mark.long_on(...)` leaves it to `bin/test --all` on those: JAX compiles what is not its own
matter.
"""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
# As the commands do (keras_mosaickd/cli/process.py).
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import hypothesis
import pytest

# The same examples in every run, however busy the machine is.
hypothesis.settings.register_profile("project", derandomize=True, deadline=None, max_examples=50)
hypothesis.settings.load_profile("project")


ALL = ("tensorflow", "jax", "torch")
BACKEND = os.environ["KERAS_BACKEND"]
HOMES = {
    "test_baselines": ALL,
    "test_checkpoints": ALL,
    "test_devices": ALL,
    "test_fused": ALL,
    "test_given": ("tensorflow", "torch"),
    "test_heads": ("torch",),
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
    "test_user_code": ("torch",),
    "test_own_teacher_doc": ("torch",),
    "test_transfer_set": ("torch",),
    "test_import_weights": ("torch",),
    "test_remote": ("torch",),
}


# Tests of what a step does, not of its graph: without one TensorFlow needs two thirds of the time.
# Those that take many steps are marked `graph` and keep it.
WITHOUT_GRAPH = ("test_mosaic_kd", "test_heads", "test_baselines", "test_imitation", "test_given")


def home(path: Path) -> tuple[str, ...]:
    """The backends on which a file's tests run, unless one says otherwise."""
    return HOMES.get(path.stem, ("tensorflow",))


def pytest_configure(config: pytest.Config) -> None:
    """Loads PyTorch before any test can load TensorFlow: the other way round a process crashes."""
    hands_out_tests = config.getoption("numprocesses", None) and not hasattr(config, "workerinput")
    if not hands_out_tests and importlib.util.find_spec("torch") is not None:
        import torch  # noqa: F401


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Does not import files of which no test runs on this backend: that takes longer than they."""
    is_test = collection_path.name.startswith("test_") and collection_path.suffix == ".py"
    if not is_test or BACKEND in home(collection_path):
        return None
    named = re.findall(r"mark\.backend\((.*?)\)", collection_path.read_text(encoding="utf-8"))
    return None if any(BACKEND in names for names in named) else True


def homes(item: pytest.Item) -> tuple[str, ...]:
    """The backends on which a test runs."""
    marker = item.get_closest_marker("backend")
    return marker.args if marker else home(item.path)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out the tests that run on other backends than this process's."""
    for item in items:
        if BACKEND in [name for marker in item.iter_markers("long_on") for name in marker.args]:
            item.add_marker("long")
    kept, left_out = [], []
    for item in items:
        (kept if BACKEND in homes(item) else left_out).append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept


@pytest.fixture
def backend() -> str:
    """The Keras backend of this process: tensorflow, jax or torch."""
    return BACKEND


@pytest.fixture(autouse=True)
def _fresh_keras() -> None:
    """Gives every test the same random numbers and layer names, whatever ran before it."""
    import keras

    # Collecting garbage around every test takes longer than most tests.
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(20211)


@pytest.fixture
def without_graph(request: pytest.FixtureRequest) -> None:
    """Runs TensorFlow's functions as they stand."""
    if BACKEND != "tensorflow":
        return
    import tensorflow

    was_eager = tensorflow.config.functions_run_eagerly()
    tensorflow.config.run_functions_eagerly(True)
    request.addfinalizer(lambda: tensorflow.config.run_functions_eagerly(was_eager))


@pytest.fixture(autouse=True)
def _without_graph(request: pytest.FixtureRequest) -> None:
    """As `without_graph`, in the files of `WITHOUT_GRAPH`."""
    if request.path.stem in WITHOUT_GRAPH and not request.node.get_closest_marker("graph"):
        request.getfixturevalue("without_graph")
