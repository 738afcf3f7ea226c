"""Training steps as compiled programs on JAX: of one process, and of several together."""

from typing import Any

import jax
import keras
import numpy as np

from keras_mosaickd.backend import processes
from keras_mosaickd.backend.processes.jax import Together
from keras_mosaickd.errors import InputError


class Programs:
    """A training step of two compiled programs.

    The first is what `alternate` does until it calls `repeat`, the second one of the repeated
    updates, which is called that many times.

    As one program the repeated update is written out, optimised and compiled once for each
    repetition: five times the compiler's time and memory (docs/speed.md). A loop inside of the
    program takes 15 times as long to run.
    """

    def __init__(self, trainer):
        self.trainer = trainer
        self.postponed = None
        # Kept from the first call on: later ones run what was compiled, and trace nothing.
        self.times, self.update = 0, None
        self.begin = jax.jit(self._begin, donate_argnums=0)
        self.proceed = jax.jit(self._proceed, donate_argnums=0)

    def __call__(self, state, data):
        """The step: logs and the new state."""
        logs, state, tensors = self.begin(state, data)
        for step in range(self.times):
            logs, state = self.proceed(state, np.int32(step), tensors)
        return logs, state

    def _begin(self, state, data):
        self.postponed = 0, None, ()
        logs, state = self.trainer.stateless(state, self.trainer.alternate, data)
        self.times, self.update, tensors = self.postponed
        self.postponed = None
        return logs, state, tensors

    def _proceed(self, state, step, tensors):
        return self.trainer.stateless(state, self.update, step, *tensors)


class SharedPrograms(Programs):
    """`Programs` over the rows of all processes."""

    def __init__(self, trainer):
        super().__init__(trainer)
        self.begin = Together(self._begin, more=1)
        self.proceed = Together(self._proceed)
        self.known = Known(self.begin)

    def __call__(self, state, data):
        """The step: logs and the new state, which are the same in all processes."""
        state = self.known.shared(state)
        logs, state, tensors = self.begin(state, self.begin.divide(data))
        for step in range(self.times):
            logs, state = self.proceed(state, np.int32(step), tensors)
        return self.begin.own(logs), self.known.own(state)


class Known:
    """The state between steps: this process's copies, and the arrays of all that they are of.

    Args:
        together: a `Together`.
    """

    def __init__(self, together):
        self.together = together
        self.own_leaves, self.shared_leaves = [], []

    def shared(self, state):
        """The arrays of all; those of the last step where nothing has been assigned since."""
        leaves, structure = jax.tree.flatten(state)
        is_same = len(leaves) == len(self.own_leaves)
        known = zip(leaves, self.own_leaves, self.shared_leaves, strict=True) if is_same else ()
        found = [there if leaf is own else None for leaf, own, there in known]
        found = found or [None] * len(leaves)
        leaves = [
            self.together.replicate(leaf) if there is None else there
            for leaf, there in zip(leaves, found, strict=True)
        ]
        self.own_leaves, self.shared_leaves = [], []
        return jax.tree.unflatten(structure, leaves)

    def own(self, state):
        """This process's copies."""
        self.shared_leaves, structure = jax.tree.flatten(state)
        self.own_leaves = [self.together.own(leaf) for leaf in self.shared_leaves]
        return jax.tree.unflatten(structure, self.own_leaves)


@keras.saving.register_keras_serializable(package="keras_mosaickd")
class SharedModel(keras.Model):
    """A functional model that `fit` trains in several processes on a loss of `compile`."""

    # Declared for the type checker, which does not see Keras's.
    jit_compile: Any
    _program: Any = None

    def make_train_function(self, force=False):
        """As Keras's, around a step that is compiled for all processes."""
        if self.train_function is not None and not force:
            return
        is_compiled = self.jit_compile
        self._program = None
        if processes.count() > 1:
            self._program = Together(super().train_step)
            self._known = Known(self._program)
            self.jit_compile = False
        try:
            super().make_train_function(force)
        finally:
            self.jit_compile = is_compiled

    def train_step(self, state, data):
        """One step of `fit`."""
        if self._program is None:
            return super().train_step(state, data)
        logs, state = self._program(self._known.shared(state), self._program.divide(data))
        return self._program.own(logs), self._known.own(state)

    def fit(self, x=None, *args, **kwargs):
        """As `keras.Model.fit`; each process takes its own rows of every batch."""
        return super().fit(prepared(self, x), *args, **kwargs)


def prepared(model, stream):
    """The stream that `fit` takes; in several processes own rows, and equal weights at first."""
    if processes.count() == 1:
        return stream
    if not model.jit_compile or model.run_eagerly:
        raise InputError(
            "--jit_compile must be auto or on in several processes, on JAX. Received: off"
        )
    processes.copy_from_chief([*model.variables, *model.optimizer.variables])
    return processes.own_rows(stream)
