"""Multipliers that find themselves: the constraint of the supplement's equations 2 and 3.

The paper seeks max over G of E[KL(T || S)] subject to R <= epsilon, and then fixes the multiplier
lambda by hand. Here each part of R has a multiplier of its own, which rises while its constraint
`r <= epsilon` is broken and falls while it is kept: gradient ascent on the dual, in log space, with
the damping that keeps it from swinging (docs/algorithm.md derives it).
"""

import math

import keras
from keras import ops

from keras_mosaickd.errors import InputError

REGULARIZATIONS = ("fixed", "adaptive")
LEAST, MOST = 1e-3, 1e2
# What is broken by 0.2 moves a multiplier by two decades in a quarter of the run.
_GAIN = 4 * math.log(100) / 0.2
_SMOOTHING, _DAMPING, _LONGEST_STEP = 0.9, 20.0, 0.1


def ascended(log_multipliers, smoothed, violations, rate):
    """One step of the dual ascent.

        s' = 0.9 s + 0.1 (r - epsilon)
        log lambda' = log lambda + rate (s' + 20 (s' - s))

    The step is at most 0.1, and lambda' stays between `LEAST` and `MOST`. The second part answers a
    constraint that is on its way before it is broken: ascent alone would swing around it, since D
    needs some updates to see what G has changed (Stooke et al. 2020, arXiv 2007.03964; in log space
    as Rezende & Viola 2018, arXiv 1810.00597).

    Args:
        log_multipliers: tensor `[n]`.
        smoothed: tensor `[n]`: the smoothed violations s so far.
        violations: tensor `[n]`: r - epsilon, each from -1 to 1.
        rate: scalar, positive.

    Returns:
        Both tensors after the step.
    """
    before = smoothed
    smoothed = _SMOOTHING * before + (1.0 - _SMOOTHING) * violations
    step = ops.clip(
        rate * (smoothed + _DAMPING * (smoothed - before)), -_LONGEST_STEP, _LONGEST_STEP
    )
    return ops.clip(log_multipliers + step, math.log(LEAST), math.log(MOST)), smoothed


class Multipliers(keras.layers.Layer):
    """The multipliers of a game's constraints, and their state: saved with it, equal on replicas.

    Args:
        epsilons: dict from the constraint's name to the greatest r that it allows, from 0 to 1.
        start: where all multipliers start, from `LEAST` to `MOST`.
    """

    def __init__(self, epsilons, start=1.0):
        super().__init__(name="multipliers", dtype="float32", trainable=False)
        self.epsilons = dict(epsilons)
        self.log_multipliers, self.smoothed = (
            self.add_weight(
                shape=(len(self.epsilons),),
                initializer=keras.initializers.Constant(value),
                trainable=False,
                # All replicas compute the same.
                aggregation="only_first_replica",
                name=name,
            )
            for name, value in (("log_multipliers", math.log(start)), ("smoothed", 0.0))
        )
        self.built = True

    def follow(self, optimizer):
        """Takes the length of the run, and its cosine, from the optimizer of what is constrained.

        Args:
            optimizer: Keras optimizer with a `CosineDecay`.

        Raises:
            InputError: if its learning rate is anything else.
        """
        rate = getattr(optimizer, "inner_optimizer", optimizer).get_config()["learning_rate"]
        if not isinstance(rate, dict) or rate["class_name"] != "CosineDecay":
            raise InputError(
                'regularization="adaptive" takes the length of the run from the generator\'s '
                "schedule: expected a generator_optimizer with a CosineDecay, as "
                f"keras_mosaickd.recipe makes it. Received: learning_rate={rate}"
            )
        schedule = rate["config"]
        self.updates = schedule["decay_steps"] + schedule["warmup_steps"]
        self.peak = schedule["warmup_target"] or schedule["initial_learning_rate"]

    def values(self):
        """Dict from the constraint's name to its multiplier, a scalar."""
        multipliers = ops.exp(self.log_multipliers.value)
        return {name: multipliers[index] for index, name in enumerate(self.epsilons)}

    def ascend(self, constraints, learning_rate):
        """One step, after an update of what is constrained.

        Args:
            constraints: dict from the constraint's name to r, a scalar from 0 to 1, over all
                replicas.
            learning_rate: that of the optimizer that they `follow`, now.
        """
        violations = [constraints[name] - epsilon for name, epsilon in self.epsilons.items()]
        rate = _GAIN / self.updates * ops.cast(learning_rate, "float32") / self.peak
        log_multipliers, smoothed = ascended(
            self.log_multipliers.value,
            self.smoothed.value,
            ops.cast(ops.stack(violations), "float32"),
            rate,
        )
        self.log_multipliers.assign(log_multipliers)
        self.smoothed.assign(smoothed)

    def logs(self):
        """The multipliers by their names in the logs, `lambda_local` and `lambda_align`."""
        return {f"lambda_{name}": value for name, value in self.values().items()}
