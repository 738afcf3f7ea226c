"""PhaseTrainer on JAX: stateless functions under the algorithm's stateful ones."""

import contextlib

import jax
import keras

from keras_mosaickd.training.single_device import (
    ONE_DEVICE,
    Distribution,
    SingleProgramTrainer,
)

__all__ = ["PhaseTrainer", "devices", "distribution"]


class PhaseTrainer(SingleProgramTrainer):
    """See `keras_mosaickd.training`."""

    def minimize(self, objective, optimizer, variables):
        """Makes one update of `variables` and returns the objective's terms.

        Scopes do not chain, so the inner one maps every variable that the objective may read or
        assign, other phases' optimizers included.
        """
        chosen = {id(variable) for variable in variables}
        others = [v for v in self._state_variables() if id(v) not in chosen]

        def loss_of(values, other_values):
            mapping = [
                *zip(variables, values, strict=True),
                *zip(others, other_values, strict=True),
            ]
            with keras.StatelessScope(state_mapping=mapping) as scope:
                loss, terms = objective()
                loss = optimizer.scale_loss(loss)
            return loss, (terms, _current(scope, others))

        values = _read(variables)
        gradients, (terms, updated) = jax.grad(loss_of, has_aux=True)(values, _read(others))
        _write(others, updated)
        values, optimizer_values = optimizer.stateless_apply(
            _read(optimizer.variables), gradients, values
        )
        _write(variables, values)
        _write(optimizer.variables, optimizer_values)
        return terms

    def train_step(self, state, data):
        """One step of `fit`: `alternate` inside one scope that holds the whole state."""
        groups = (
            self.trainable_variables,
            self.non_trainable_variables,
            self.optimizer.variables,
            self.metrics_variables,
        )
        mapping = [
            pair
            for variables, values in zip(groups, state, strict=True)
            for pair in zip(variables, values, strict=True)
        ]
        with keras.StatelessScope(state_mapping=mapping) as scope:
            logs = self.alternate(data)
        return logs, tuple(_current(scope, variables) for variables in groups)

    def without_gradient(self):
        """A context that records nothing: only `minimize` differentiates on JAX."""
        return contextlib.nullcontext()

    def _state_variables(self):
        return [
            *self.trainable_variables,
            *self.non_trainable_variables,
            *self.optimizer.variables,
        ]


def devices():
    """Names of the devices that JAX computes on."""
    return [str(device) for device in jax.devices()]


def distribution(name):
    """The `Distribution` over the devices, of all processes where `jax.distributed` runs.

    Where there are several, this sets `keras.distribution`'s DataParallel for the whole process:
    variables that are made from here on lie on every device, and batches are split among them. The
    program stays that of one device; what it computes over a batch, it computes over all of it.

    Args:
        name: "mirrored" for all devices, "none" for one, "auto" for mirrored where there are
            several accelerators.
    """
    several = jax.device_count() > 1
    if name == "none" or not several or (name == "auto" and jax.default_backend() == "cpu"):
        return ONE_DEVICE
    keras.distribution.set_distribution(keras.distribution.DataParallel())
    return Distribution(contextlib.nullcontext, jax.device_count())


def _read(variables):
    return [variable.value for variable in variables]


def _write(variables, values):
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _current(scope, variables):
    """Values at the end of a scope: what was assigned there, else what was mapped or is held."""
    values = [scope.get_current_value(variable) for variable in variables]
    return [v.value if x is None else x for v, x in zip(variables, values, strict=True)]
