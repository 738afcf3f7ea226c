"""What is watched on the device during training, and asked for seldom."""

import functools

import keras
from keras import ops

from keras_mosaickd.data.streams import given


class FirstInvalid(keras.metrics.Metric):
    """The iteration of an epoch after which a loss was no number any more: noted on the device.

    Args:
        names: of the losses.
    """

    def __init__(self, names):
        super().__init__(name="first_invalid")
        self.iterations = {
            name: self.add_variable(
                (), "zeros", dtype="int32", aggregation="only_first_replica", name=name
            )
            for name in names
        }

    def update_state(self, logs, iteration):
        """Looks at means over the epoch so far, which stay what they are from then on."""
        iteration = ops.cast(iteration, "int32")
        for name, first in self.iterations.items():
            before = ops.convert_to_tensor(first)
            is_broken = ops.logical_not(ops.isfinite(logs[name]))
            is_new = ops.logical_and(ops.equal(before, 0), is_broken)
            first.assign(ops.where(is_new, iteration, before))

    def result(self):
        """The last of them, 0 as long as all are numbers."""
        noted = [ops.cast(first, "float32") for first in self.iterations.values()]
        return functools.reduce(ops.maximum, noted)


class OutOfRange(keras.metrics.Metric):
    """How far images have been below 0 and above 1: seen on the device, asked for seldom."""

    def __init__(self):
        super().__init__(name="out_of_range")
        self.below, self.above = (
            self.add_variable((), "zeros", name=name) for name in ("below", "above")
        )

    def update_state(self, images):
        """Looks at floats of any shape."""
        images = ops.cast(images, "float32")
        self.below.assign(ops.maximum(self.below, -ops.min(images)))
        self.above.assign(ops.maximum(self.above, ops.max(images) - 1.0))

    def result(self):
        """The greater one, 0 where all were in [0, 1]."""
        return ops.maximum(self.below, self.above)

    def check(self):
        """Raises InputError unless all images were in [0, 1]."""
        below, above = (float(ops.convert_to_numpy(value)) for value in (self.below, self.above))
        self.reset_state()  # Whoever comes next is not blamed.
        given.check_extremes(0.0 - below, 1.0 + above)


class CheckRange(keras.callbacks.Callback):
    """Refuses, at the end of an epoch, what a stream gave after its first element."""

    def on_epoch_end(self, epoch, logs=None):
        """Checks."""
        self.model.out_of_range.check()
