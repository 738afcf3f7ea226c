"""The seam between the algorithm and the backends.

`PhaseTrainer` is a `keras.Model` that offers, on every backend:

- `minimize(objective, optimizer, variables)`: one update of `variables`. `objective` takes no
  argument and returns `(loss, terms)`, with `terms` a dict of tensors to report; `minimize`
  returns `terms`.
- `record(function, variables)`: runs `function` once, for several objectives to see what it gives;
  returns a `Recorded`, whose `outputs` are constants to whoever sees them, but
  `minimize(objective, optimizer, variables, through=recorded)` updates `variables` by the gradient
  of `objective(recorded.outputs)` through them.
- `repeat(times, update, *tensors)`: calls `update(step, *tensors)` for each step from 0 on. It is
  the last thing that `alternate` does.
- `without_gradient()`: a context in which nothing is recorded for differentiation.
- `global_normal(batch, size, seed_generator)`: this replica's rows of one global normal draw.
- `mean_over_replicas(values)`: the mean over replicas, differentiable.
- `part_of_replica(mean)`: what a replica's mean adds to the mean over all of them.
- `check_scope(variables)`: raises if the variables live under another distribution strategy.

and calls `alternate(data)` and `training_logs()`, which a subclass writes once for all backends, in
each training step.
`devices()` names what the backend computes on, `has_bfloat16()` tells whether that is fast there,
`device_lines()` says it, `unsupported_by_xla(network, shape)` names what of a network cannot be
compiled, and `distribution(name)` gives the `Distribution` in whose scope networks are built and
compiled to train on several of them.
`whole_batches()` is a context for predictions and evaluations by Keras's loops, whose last batch is
of any size: where JAX divides batches among devices, it computes them whole on each of them there.
`shared(model)` is what a model of Keras's own losses has to be for `fit` in several processes.
Nothing in this package knows a loss or a phase.
"""

import os
from pathlib import Path

import keras

from keras_mosaickd.backend import processes

if keras.backend.backend() == "tensorflow":
    from keras_mosaickd.backend.training.single_device import whole_batches
    from keras_mosaickd.backend.training.tensorflow import (
        PhaseTrainer,
        devices,
        distribution,
        has_bfloat16,
        unsupported_by_xla,
    )
elif keras.backend.backend() == "jax":
    from keras_mosaickd.backend.training.jax import (
        PhaseTrainer,
        SharedModel,
        devices,
        distribution,
        has_bfloat16,
        whole_batches,
    )
    from keras_mosaickd.backend.training.single_device import unsupported_by_xla
elif keras.backend.backend() == "torch":
    from keras_mosaickd.backend.training.single_device import unsupported_by_xla, whole_batches
    from keras_mosaickd.backend.training.torch import (
        PhaseTrainer,
        SharedModel,
        devices,
        distribution,
        has_bfloat16,
    )
else:
    raise ImportError(
        "keras_mosaickd trains on the Keras backends tensorflow, jax and torch. "
        f"Received: KERAS_BACKEND={keras.backend.backend()}"
    )


def device_lines():
    """What the backend computes on, as lines; with a warning of a GPU that is there and unused."""
    names = devices()
    yield f"device             {', '.join(names)}"
    # Whoever sets this variable to nothing hides the GPU on purpose.
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "all") in ("", "-1")
    present = [*Path("/dev").glob("nvidia[0-9]*")]
    if present and not hidden and all("cpu" in name.lower() for name in names):
        yield (
            f"Warning: there is a GPU ({present[0]}), and {keras.backend.backend()} does not use "
            "it: is its package the one with CUDA, and the driver new enough?"
        )


def shared(model):
    """A functional model as `fit` trains it: in several processes a `SharedModel` of its layers."""
    if processes.count() == 1:
        return model
    return SharedModel(model.inputs, model.outputs, name=model.name)


def plain(model):
    """The model of stock layers that `shared` was given."""
    if type(model).__name__ != "SharedModel":
        return model
    return keras.Model(model.inputs, model.outputs, name=model.name)


__all__ = [
    "PhaseTrainer",
    "device_lines",
    "devices",
    "distribution",
    "has_bfloat16",
    "plain",
    "shared",
    "unsupported_by_xla",
    "whole_batches",
]
