"""Between two evaluations nobody waits for the device: no number is taken from it."""

import contextlib
import time

import keras
import numpy as np
import pytest

from keras_mosaickd.callbacks.checkpoint import Checkpoint, StopSignals
from keras_mosaickd.callbacks.divergence import StopWhenInvalid
from keras_mosaickd.callbacks.progress import Progress
from keras_mosaickd.data import mosaic_stream
from keras_mosaickd.errors import DivergedError
from keras_mosaickd.runs import fitting
from tests import game

STEPS = 6


def tensor_class():
    tensor = keras.ops.convert_to_tensor(np.zeros(1, "float32"))
    return next(kind for kind in type(tensor).__mro__ if "__array__" in vars(kind))


# What Python, numpy and each backend's own users take a tensor's numbers by.
TAKEN_BY = ("__array__", "__float__", "__int__", "__bool__", "__index__", "numpy", "item", "tolist")


@contextlib.contextmanager
def counted(taken):
    """Notes in a list every time that a tensor's numbers are taken."""
    kind = tensor_class()
    kept = {name: getattr(kind, name) for name in TAKEN_BY if hasattr(kind, name)}
    own = set(kept) & set(vars(kind))

    def noting(name, function):
        def call(self, *args, **kwargs):
            taken.append(name)
            return function(self, *args, **kwargs)

        return call

    try:
        for name, function in kept.items():
            setattr(kind, name, noting(name, function))
        yield
    finally:
        for name, function in kept.items():
            if name in own:
                setattr(kind, name, function)
            else:
                delattr(kind, name)


class Between(keras.callbacks.Callback):
    """Counts from the end of the first step to that of the last."""

    def __init__(self):
        super().__init__()
        self.taken, self.stack = [], contextlib.ExitStack()
        self.epochs = 0

    def on_train_batch_end(self, batch, logs=None):
        if batch == 0:
            self.stack.enter_context(counted(self.taken))
        elif batch == STEPS - 1:
            self.stack.close()
            self.epochs += 1


def stream(first_step, steps):
    return mosaic_stream(
        game.images(STEPS * game.BATCH),
        game.BATCH,
        student_steps=game.STEPS,
        first_step=first_step,
        steps_per_epoch=steps,
    )


def test_the_counter_counts():
    taken = []
    with counted(taken):
        float(keras.ops.convert_to_tensor(1.0))
    assert taken


@pytest.mark.slow
def test_no_number_is_taken_between_evaluations(tmp_path):
    model, between = game.game(), Between()
    path = tmp_path / "last.keras"
    with StopSignals() as stop:
        bar = Progress(2 * STEPS, seconds=600)
        chosen = [StopWhenInvalid(path, 600), Checkpoint(path, stop=stop), bar]
        fitting._fit_rounds(model, stream, 2, STEPS, 0, [*chosen, between], verbose=0)
    assert between.epochs == 2
    if keras.backend.backend() == "tensorflow":
        # Keras asks the iterator of every step whether there was data; no number is taken.
        assert between.taken.count("__bool__") <= 2 * STEPS
        between.taken = [name for name in between.taken if name != "__bool__"]
    assert between.taken == []


def test_a_loss_that_breaks_is_found_soon_and_its_iteration_named(tmp_path):
    class Spoil(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 1:
                kernel = self.model.student.trainable_variables[0]
                kernel.assign(np.full(kernel.shape, np.nan, "float32"))
            time.sleep(0.02)

    model = game.game()
    chosen = [StopWhenInvalid(tmp_path / "last.keras", 0.05), Spoil()]
    # G's adversarial loss sees the student of the second iteration in the third.
    with pytest.raises(DivergedError, match="^generator: .* in iteration 3 ") as told:
        fitting._fit_rounds(model, stream, 2, STEPS, 0, chosen, verbose=0)
    assert "loss became nan" in str(told.value)
    assert int(model.optimizer.iterations) <= STEPS
