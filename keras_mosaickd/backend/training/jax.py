"""PhaseTrainer on JAX: stateless functions under the algorithm's stateful ones."""

import contextlib
from typing import Any

import jax
import keras

from keras_mosaickd.backend import processes
from keras_mosaickd.backend.training.jax_programs import (
    Programs,
    SharedModel,
    SharedPrograms,
    prepared,
)
from keras_mosaickd.backend.training.single_device import (
    ONE_DEVICE,
    Distribution,
    Recorded,
    SingleProgramTrainer,
)

__all__ = ["PhaseTrainer", "SharedModel", "devices", "distribution", "whole_batches"]


class PhaseTrainer(SingleProgramTrainer):
    """See `keras_mosaickd.backend.training`."""

    # Declared for the type checker, which does not see Keras's.
    jit_compile: Any
    train_function: Any
    _programs: Any = None

    def minimize(self, objective, optimizer, variables, through=None):
        """Makes one update of `variables` and returns the objective's terms."""
        chosen, inputs = ([], [through.outputs]) if through else (variables, [])
        others = self._all_but(chosen)

        def loss_of(tensors, held):
            values, inputs = tensors
            with _scope([*chosen, *others], [*values, *held]) as scope:
                loss, terms = objective(*inputs)
                loss = optimizer.scale_loss(loss)
            return loss, (terms, _current(scope, others))

        gradients, (terms, updated) = jax.grad(loss_of, has_aux=True)(
            (_read(chosen), inputs), _read(others)
        )
        _write(others, updated)
        values, optimizer_values = optimizer.stateless_apply(
            _read(optimizer.variables),
            through.pullback(*gradients[1]) if through else gradients[0],
            _read(variables),
        )
        _write(variables, values)
        _write(optimizer.variables, optimizer_values)
        return terms

    def record(self, function, variables):
        """Runs a function once, to be differentiated later."""
        others = self._all_but(variables)

        def outputs_of(values):
            with _scope([*variables, *others], [*values, *_read(others)]) as scope:
                outputs = function()
            return outputs, _current(scope, others)

        outputs, pullback, updated = jax.vjp(outputs_of, _read(variables), has_aux=True)
        _write(others, updated)
        return Recorded(outputs, lambda gradient: pullback(gradient)[0])

    def repeat(self, times, update, *tensors):
        """Calls `update(step, *tensors)` for each step; `Programs` compiles it once."""
        if self._programs is not None:
            self._programs.postponed = times, update, tensors
            return
        for step in range(times):
            update(step, *tensors)

    def make_train_function(self, force=False):
        """As Keras's, but of two programs where it would compile one: see `Programs`."""
        if self.train_function is not None and not force:
            return
        is_compiled = bool(self.jit_compile)
        self._programs = None
        # Keras gives the state its layout on several devices in its own way alone.
        if is_compiled and not self.run_eagerly and keras.distribution.distribution() is None:
            self._programs = Programs(self) if processes.count() == 1 else SharedPrograms(self)
            self.jit_compile = False
        try:
            super().make_train_function(force)
        finally:
            self.jit_compile = is_compiled

    def train_step(self, state, data):
        """One step of `fit`."""
        return (
            self.stateless(state, self.alternate, data)
            if self._programs is None
            else (self._programs(state, data))
        )

    def stateless(self, state, function, *arguments):
        """Calls a function inside one scope that holds the whole state.

        Args:
            state: values of the variables in Keras's four groups.
            function: what changes variables.
            *arguments: its arguments.

        Returns:
            `training_logs()` afterwards, and the new state.
        """
        groups = (
            self.trainable_variables,
            self.non_trainable_variables,
            self.optimizer.variables,
            self.metrics_variables,
        )
        values = [value for values in state for value in values]
        with _scope([v for variables in groups for v in variables], values) as scope:
            function(*arguments)
            logs = self.training_logs()
        return logs, tuple(_current(scope, variables) for variables in groups)

    def fit(self, x=None, *args, **kwargs):
        """As `keras.Model.fit`; of several processes each takes its own rows of every batch."""
        return super().fit(prepared(self, x), *args, **kwargs)

    def without_gradient(self):
        """A context that records nothing: only `minimize` differentiates on JAX."""
        return contextlib.nullcontext()

    def _all_but(self, chosen):
        """Every variable that an objective may read or assign, other phases' optimizers included.

        Scopes do not chain: an inner one has to map them all.
        """
        chosen = {id(variable) for variable in chosen}
        variables = (
            *self.trainable_variables,
            *self.non_trainable_variables,
            *self.optimizer.variables,
        )
        return [variable for variable in variables if id(variable) not in chosen]


def devices():
    """Names of the devices that JAX computes on."""
    return [
        str(device) if device.platform == "cpu" else f"{device} {device.device_kind}"
        for device in jax.devices()
    ]


def has_bfloat16():
    """Whether the devices compute in bfloat16 faster than in float32: TPUs, GPUs from Ampere on."""
    if jax.default_backend() != "gpu":
        return jax.default_backend() == "tpu"
    # Of AMD's GPUs it is a name, such as gfx90a: what it tells is not known here.
    told = [str(getattr(device, "compute_capability", "")) for device in jax.devices()]
    return all(text[:1].isdigit() and float(text) >= 8 for text in told)


def distribution(name):
    """The `Distribution` over the devices, or over all processes.

    Where this process has several, this sets `keras.distribution`'s DataParallel for the whole of
    it: variables that are made from here on lie on every device, and batches are split among them.
    The program stays that of one device; what it computes over a batch, it computes over all of it.

    Args:
        name: "mirrored" for all devices, "none" for one, "auto" for mirrored where there are
            several accelerators; "processes" for all processes of the launcher, and their devices.

    Raises:
        InputError: if there is no launcher.
    """
    if name == "processes" or (name == "mirrored" and jax.process_count() > 1):
        processes.join()
        return Distribution(contextlib.nullcontext, jax.device_count(), is_joint=True)
    several = jax.device_count() > 1
    if name == "none" or not several or (name == "auto" and jax.default_backend() == "cpu"):
        return ONE_DEVICE
    keras.distribution.set_distribution(_DataParallel(auto_shard_dataset=False))
    return Distribution(contextlib.nullcontext, jax.device_count())


class _DataParallel(keras.distribution.DataParallel):
    """Divides batches among the devices, but for those in `whole_batches`."""

    divides = True

    def get_data_layout(self, data_shape):
        """The layout of an array whose first axis is the batch."""
        if self.divides:
            return super().get_data_layout(data_shape)
        return keras.distribution.TensorLayout([None] * len(data_shape), self.device_mesh)

    @contextlib.contextmanager
    def whole(self):
        """See `keras_mosaickd.backend.training`."""
        before, self.divides = self.divides, False
        try:
            yield
        finally:
            self.divides = before


def whole_batches():
    """See `keras_mosaickd.backend.training`."""
    distribution = keras.distribution.distribution()
    divides = isinstance(distribution, _DataParallel)
    return distribution.whole() if divides else contextlib.nullcontext()


def _scope(variables, values):
    """A scope in which the variables have the values, and whose assignments stay inside."""
    return keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True)))


def _read(variables):
    return [variable.value for variable in variables]


def _write(variables, values):
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _current(scope, variables):
    """Values at the end of a scope: what was assigned there, else what was mapped or is held."""
    values = [scope.get_current_value(variable) for variable in variables]
    return [v.value if x is None else x for v, x in zip(variables, values, strict=True)]
