"""The optimizers of the recipe, and several optimizers presented to Keras as one."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_mosaickd")
class SGD(keras.optimizers.SGD):
    """SGD whose weight decay is coupled L2: the decay is added to the gradient.

    Keras decouples weight decay from the gradient, PyTorch (and so the paper's recipe) does not:
    here the decay passes through the momentum.

    Args:
        l2: coefficient of the L2 term, at least 0.
        **kwargs: as of `keras.optimizers.SGD`.

    Raises:
        ValueError: if `l2` is negative.
    """

    def __init__(self, learning_rate=0.1, momentum=0.9, l2=1e-4, name="SGD", **kwargs):
        super().__init__(learning_rate=learning_rate, momentum=momentum, name=name, **kwargs)
        if l2 < 0:
            raise ValueError(f"l2 must be at least 0. Received: {l2}")
        self.l2 = l2

    def update_step(self, gradient, variable, learning_rate):
        """Updates one variable; here, so that replicas have summed their gradients before."""
        gradient = ops.add(gradient, ops.multiply(ops.cast(self.l2, gradient.dtype), variable))
        super().update_step(gradient, variable, learning_rate)

    def get_config(self):
        """Arguments that make the same optimizer again."""
        return {**super().get_config(), "l2": self.l2}


def cosine(initial_rate, updates):
    """Learning rate that falls from `initial_rate` to 0 along a half cosine over `updates`."""
    return keras.optimizers.schedules.CosineDecay(initial_rate, decay_steps=max(1, updates))


def student_recipe(updates, learning_rate=0.1, weight_decay=1e-4, name="student_optimizer"):
    """The supplement's optimizer for teachers and students (section B).

    Args:
        updates: number of updates that the cosine schedule spans.
        learning_rate: initial learning rate.
        weight_decay: coefficient of the coupled L2 term on all variables.
        name: name of the optimizer, as it appears in logs.

    Returns:
        `SGD` with momentum 0.9.
    """
    return SGD(cosine(learning_rate, updates), momentum=0.9, l2=weight_decay, name=name)


def adversarial_recipe(updates, learning_rate=1e-3, name="generator_optimizer", epsilon=1e-8):
    """The supplement's optimizer for generator and discriminator: Adam, beta 0.5 and 0.999.

    Args:
        updates: number of updates that the cosine schedule spans.
        learning_rate: initial learning rate.
        name: name of the optimizer, as it appears in logs.
        epsilon: the constant in Adam's denominator; 1e-8 is PyTorch's, with which the published
            numbers were made.

    Returns:
        `keras.optimizers.Adam`.
    """
    return keras.optimizers.Adam(
        cosine(learning_rate, updates), beta_1=0.5, beta_2=0.999, epsilon=epsilon, name=name
    )


def recipe(
    iterations,
    student_steps=5,
    student_learning_rate=0.1,
    generator_learning_rate=1e-3,
    weight_decay=1e-4,
):
    """The three optimizers of the paper's recipe, as keywords of `MosaicKD.compile`.

    Args:
        iterations: number of iterations (training steps) that the cosine schedules span.
        student_steps: student updates in one iteration.
        student_learning_rate: initial learning rate of the student.
        generator_learning_rate: initial learning rate of generator and discriminator.
        weight_decay: coefficient of the student's coupled L2 term.

    Returns:
        Dict with keys `student_optimizer`, `generator_optimizer`, `discriminator_optimizer`.
    """
    return {
        # The student's optimizer counts student_steps updates an iteration.
        "student_optimizer": student_recipe(
            iterations * student_steps, student_learning_rate, weight_decay
        ),
        "generator_optimizer": adversarial_recipe(iterations, generator_learning_rate),
        "discriminator_optimizer": adversarial_recipe(
            iterations, generator_learning_rate, name="discriminator_optimizer"
        ),
    }


class PhaseOptimizers(keras.optimizers.Optimizer):
    """One optimizer per phase, seen by Keras as the single `Model.optimizer`.

    JAX's training state, `.keras` files and callbacks all go through `Model.optimizer`. Keras's
    own `MultiOptimizer` does not serve: it wants all gradients at once, refuses a
    `LossScaleOptimizer` inside, and saves its state twice.

    Args:
        phases: dict from phase name to optimizer; the first phase makes one update per training
            step.
        variables: dict from phase name to the variables that its optimizer trains.
    """

    def __init__(self, phases, variables):
        super().__init__(learning_rate=0.0, name="phases")
        self.phases = dict(phases)
        self.trained = {name: list(variables[name]) for name in phases}
        # Not those of a phase's optimizer: it counts no step whose gradients it accumulates, or
        # leaves out where they overflow.
        self.steps = keras.Variable(
            0, dtype="int", trainable=False, aggregation="only_first_replica", name="steps"
        )
        self._counts = True
        for name, optimizer in self.phases.items():
            optimizer.build(self.trained[name])
        self.built = True

    @property
    def optimizers(self):
        """The phases' optimizers: callbacks that log learning rates look for this."""
        return list(self.phases.values())

    @property
    def variables(self):
        """All variables of all phases' optimizers, and the number of steps."""
        variables = [variable for optimizer in self.optimizers for variable in optimizer.variables]
        return [*variables, self.steps]

    @property
    def iterations(self):
        """Number of training steps made."""
        return self.steps if self._counts else self.optimizers[0].iterations

    def count_step(self):
        """Counts a training step."""
        self.steps.assign_add(1)

    @property
    def learning_rate(self):
        """Refused: each phase has its own, see `optimizers`.

        Raises:
            AttributeError: always.
        """
        raise AttributeError("Each phase has its own learning rate: use `.optimizers`.")

    def build(self, variables=None):
        """Nothing to do: the phases' optimizers were built on their own variables."""

    def save_own_variables(self, store):
        """Stores the number of steps; the phases' optimizers are saved as parts of this one."""
        store["steps"] = ops.convert_to_numpy(self.iterations)

    def load_own_variables(self, store):
        """Loads what `save_own_variables` stored; version 0.1 left it to the first optimizer."""
        self._counts = "steps" in set(store.keys())
        if self._counts:
            self.steps.assign(store["steps"])

    def finalize_variable_values(self, var_list):
        """Lets each phase's optimizer finish (moving averages) on its own variables."""
        for name, optimizer in self.phases.items():
            optimizer.finalize_variable_values(self.trained[name])
