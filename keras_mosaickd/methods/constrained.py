"""A game whose regularization is a constraint: what `multipliers` need of the trainer."""

import math

import keras
from keras import ops

from keras_mosaickd.methods.imitation import Imitation
from keras_mosaickd.methods.multipliers import LEAST, MOST


class Constrained(Imitation):
    """An `Imitation` with a generator whose multipliers may find themselves.

    Its logs are then `lambda_local` and `lambda_align`, as they are at the end of an epoch, and
    what they hold below epsilon, `r_local` and `r_align`, means over the epoch.

    Attributes:
        objectives: `Objectives`.
        multipliers: `Multipliers`, or None where lambda is fixed.
    """

    @property
    def constraint_terms(self):
        """Names of the logs that are means over an epoch."""
        return [f"r_{name}" for name in self.multipliers.epsilons] if self.multipliers else []

    def compile_phases(self, phases, **kwargs):
        """As of `StudentTrainer`; the multipliers follow the generator's schedule."""
        if self.multipliers is not None:
            self.multipliers.follow(keras.optimizers.get(phases["generator_optimizer"]))
        super().compile_phases(phases, **kwargs)

    def update_multipliers(self, terms):
        """Raises or lowers lambda by how far the constraints are broken; nothing where it is fixed.

        Args:
            terms: dict of the terms of D's loss and of G's in this iteration.
        """
        if self.multipliers is None:
            return
        names = [name for name in ("discriminator_loss", "align_loss") if name in terms]
        # One reduction for both.
        means = self.mean_over_replicas(ops.stack([terms[name] for name in names]))
        constraints = self.objectives.constraints(
            self.head, dict(zip(names, ops.unstack(means), strict=True)), self._map_cells()
        )
        for name, value in constraints.items():
            self.loss_terms[f"r_{name}"].update_state(value)
        rate = self.phase_optimizers["generator_optimizer"].learning_rate
        self.multipliers.ascend(constraints, rate)

    def _map_cells(self):
        """Number of logits that D gives for an image."""
        if self.discriminator is None:
            return None
        images = (1, *self.generator.output_shape[1:])
        return math.prod(self.discriminator.compute_output_shape(images))

    def training_logs(self):
        """As of `StudentTrainer`, and the multipliers."""
        return super().training_logs() | (self.multipliers.logs() if self.multipliers else {})

    def own_callbacks(self):
        """As of `StudentTrainer`, and what tells that a multiplier is at a bound."""
        notices = [SaturationNotice(self.multipliers)] if self.multipliers else []
        return [*super().own_callbacks(), *notices]


class SaturationNotice(keras.callbacks.Callback):
    """Says, once for each, that a multiplier has come to a bound.

    Args:
        multipliers: `Multipliers` of the model that is fitted.
    """

    def __init__(self, multipliers):
        super().__init__()
        self.multipliers = multipliers
        self._said = set()

    def on_epoch_end(self, epoch, logs=None):
        """Looks at the logs."""
        for name, epsilon in self.multipliers.epsilons.items():
            value, constraint = (float((logs or {})[f"{key}_{name}"]) for key in ("lambda", "r"))
            state = f"(epoch {epoch + 1}: r_{name} {constraint:.3f}, epsilon_{name} {epsilon:g})"
            if value > MOST * 0.999 and constraint > epsilon:
                self._say(
                    f"Warning: lambda_{name} is at its upper bound {MOST:g} and its constraint is "
                    f"not met {state}; a higher epsilon_{name} can be met"
                )
            elif value < LEAST * 1.001 and constraint <= epsilon:
                self._say(
                    f"lambda_{name} is at its lower bound {LEAST:g}: its constraint holds by "
                    f"itself {state}; a lower epsilon_{name} would bind"
                )

    def _say(self, line):
        bound = line.partition("(")[0]
        if bound not in self._said:
            self._said.add(bound)
            print(line)
