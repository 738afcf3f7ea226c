"""What JAX and PyTorch share: every leading axis is the global batch already."""

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_mosaickd.backend import processes


class Distribution(NamedTuple):
    """Where networks are built and trained.

    Attributes:
        scope: gives the context in which to build networks, optimizers and trainer, and compile.
        replicas: number of parts into which a global batch is split.
        is_per_replica: whether the program sees its own part alone, so that BatchNorm has to be
            synchronized; otherwise it is written, and compiled, for the global batch.
        is_joint: whether the replicas are processes, each with files and networks of its own.
    """

    scope: Callable[[], Any]
    replicas: int
    is_per_replica: bool = False
    is_joint: bool = False


class Recorded(NamedTuple):
    """A pass that `PhaseTrainer.record` made.

    Attributes:
        outputs: what the function gave, as a constant.
        pullback: gives, for the gradient of a loss with respect to `outputs`, the gradients with
            respect to the variables; once.
    """

    outputs: Any
    pullback: Callable[[Any], list]


ONE_DEVICE = Distribution(contextlib.nullcontext, 1)


def whole_batches():
    """See `keras_mosaickd.backend.training`: a batch of any size is whole here."""
    return contextlib.nullcontext()


def unsupported_by_xla(network, shape):
    """None: what JAX computes, XLA has compiled; PyTorch's compiler leaves what it cannot."""
    return []


class SingleProgramTrainer(keras.Model):
    """Replica helpers for backends on which one program sees the whole batch."""

    def repeat(self, times, update, *tensors):
        """Calls `update(step, *tensors)` for each step."""
        for step in range(times):
            update(step, *tensors)

    def global_normal(self, batch, size, seed_generator):
        """Normal draw of shape `[batch, size]`."""
        return keras.random.normal((batch, size), seed=seed_generator)

    def part_of_replica(self, mean):
        """The mean itself: there is one replica."""
        return mean

    def mean_over_replicas(self, values):
        """The values themselves: there is one replica."""
        return values

    def check_scope(self, variables):
        """Nothing to check: these backends have no distribution scope."""


class GlobalLogs(keras.callbacks.Callback):
    """Makes means over one process's rows, which are as many in each, means over all rows.

    Put it first: Keras gives all callbacks of an epoch's end one dict, in their order. Validation's
    logs are of all rows already.
    """

    def on_epoch_end(self, epoch, logs=None):
        """Replaces the logs of training."""
        names = [name for name in logs or {} if not name.startswith("val_")]
        own = np.array([float(logs[name]) for name in names])
        logs.update(zip(names, np.mean(processes.gather(own), axis=0).tolist(), strict=True))
