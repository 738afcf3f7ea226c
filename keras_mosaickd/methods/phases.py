"""Training in phases: a network and an optimizer for each, their updates, logs and saved state."""

import keras
from keras import ops

from keras_mosaickd.backend import keras_graph
from keras_mosaickd.backend.training import PhaseTrainer, unsupported_by_xla
from keras_mosaickd.errors import InputError
from keras_mosaickd.files import say_once
from keras_mosaickd.methods.watched import FirstInvalid
from keras_mosaickd.optimizers import PhaseOptimizers


class Phases(PhaseTrainer):
    """A `PhaseTrainer` whose updates are named by the network that learns in them.

    Attributes:
        loss_terms: dict from the name of a logged term to its metric.
        phase_optimizers: dict from "student_optimizer" and the like to the optimizer.
    """

    networks: tuple[str, ...] = ("teacher", "student")
    """Names of the attributes that hold networks."""

    def compile_phases(self, phases, **kwargs):
        """Compiles with one optimizer for each phase.

        Args:
            phases: dict from the optimizer's keyword in `compile`, "student_optimizer" and the
                like, to the optimizer; the first makes one update per training step.
            **kwargs: of `keras.Model.compile` (`jit_compile`, `run_eagerly`,
                `steps_per_execution`).
        """
        own = {"loss", "loss_weights", "metrics", "weighted_metrics", "optimizer"}
        unexpected = (own | {"auto_scale_loss"}) & set(kwargs)
        if unexpected:
            raise InputError(
                f"compile() takes {', '.join(phases)}; losses and metrics are the method's own. "
                f"Received: {', '.join(sorted(unexpected))}"
            )
        optimizers = {key: keras.optimizers.get(value) for key, value in phases.items()}
        if len({id(optimizer) for optimizer in optimizers.values()}) < len(optimizers):
            raise InputError("compile() needs a separate optimizer for each phase")
        self._phase_compile_config = {**optimizers, **kwargs}
        networks = {key: self.trained_network(key.removesuffix("_optimizer")) for key in optimizers}
        for key, network in networks.items():
            if key == "student_optimizer" and not network.trainable_variables:
                raise InputError(
                    "the student must have weights that can be trained (trainable=True). "
                    f"Received: {network.name!r}, which is frozen"
                )
            self.check_scope(network.variables)
            if self.dtype_policy.name == "mixed_float16" or _is_mixed_float16(network):
                optimizers[key] = _scaling(optimizers[key])
            if network.losses:
                say_once(
                    f"The regularizers (or add_loss) of {network.name!r} take no part: weight "
                    "decay is the optimizer's"
                )
        self.phase_optimizers = optimizers
        self.first_invalid = FirstInvalid(["loss", *self.loss_terms])
        variables = {key: network.trainable_variables for key, network in networks.items()}
        super().compile(
            optimizer=PhaseOptimizers(optimizers, variables),
            loss=None,
            auto_scale_loss=False,
            **kwargs,
        )
        if self.jit_compile:
            self._check_compiler(is_asked_for=kwargs.get("jit_compile") is True)

    def _check_compiler(self, is_asked_for):
        """Goes without XLA where it cannot compile a network; an error where it is asked for."""
        images = self.student.input_shape[1:]
        for name in self.networks:
            network = getattr(self, name)
            if network is None:
                continue
            shape = network.input_shape[1:] if name == "generator" else images
            if not (unsupported := unsupported_by_xla(network, shape)):
                continue
            found = f"the {name} {network.name} with {', '.join(unsupported)}"
            if is_asked_for:
                raise InputError(
                    "jit_compile must be auto or False (--jit_compile=auto or off) with what XLA "
                    f"cannot compile. Received: True, and {found}"
                )
            print(f"jit_compile is off: XLA cannot compile {found}")
            self.jit_compile = False
            return

    def trained_network(self, role):
        """The network that "student", "generator" or "discriminator" learns with."""
        return getattr(self, role)

    def update(self, role, objective, through=None, count=None):
        """Makes one update of a role's network by its optimizer; the loss's terms are logged.

        Args:
            role: such as "student": the name of its optimizer less "_optimizer".
            objective: as of `minimize`.
            through: as of `minimize`.
            count: of how many images the terms are means, where not every batch has as many: so
                much they weigh in the mean over an epoch.

        Returns:
            Dict of the terms.
        """
        optimizer = self.phase_optimizers[f"{role}_optimizer"]
        if optimizer is next(iter(self.phase_optimizers.values())):
            self.optimizer.count_step()
        variables = self.trained_network(role).trainable_variables
        terms = self.minimize(objective, optimizer, variables, through)
        for name, value in terms.items():
            self.loss_terms[name].update_state(value, sample_weight=count)
        return terms

    def training_logs(self):
        """Means of the tracked terms so far in the epoch, and every phase's learning rate."""
        logs = {"loss": self.loss_terms["student_loss"].result()}
        logs |= {name: metric.result() for name, metric in self.loss_terms.items()}
        for key, optimizer in self.phase_optimizers.items():
            rate = ops.convert_to_tensor(optimizer.learning_rate)
            logs[f"{key.removesuffix('_optimizer')}_learning_rate"] = rate
        self.first_invalid.update_state(logs, self.optimizer.iterations)
        return logs

    # ---- saving --------------------------------------------------------------------------

    def get_compile_config(self):
        """Arguments of `compile`."""
        if not self.compiled:
            return {}
        return {
            key: keras_graph.portable(keras.saving.serialize_keras_object(value))
            for key, value in self._phase_compile_config.items()
        }

    def compile_from_config(self, config):
        """Compiles as `get_compile_config` says."""
        self.compile(**keras.saving.deserialize_keras_object(config))

    def save_own_variables(self, store):
        """Saves the state of every seed, which Keras leaves out: here and in all networks."""
        for index, state in enumerate(keras_graph.seed_states(self)):
            store[f"seed_{index}"] = ops.convert_to_numpy(state.value)

    def load_own_variables(self, store):
        """Loads what `save_own_variables` saved."""
        for index, state in enumerate(keras_graph.seed_states(self)):
            state.assign(store[f"seed_{index}"])


def _is_mixed_float16(layer):
    """Whether a network, or a layer in it, computes in float16 on variables in float32."""
    if layer.dtype_policy.name == "mixed_float16":
        return True
    return any(map(_is_mixed_float16, getattr(layer, "layers", ())))


def _scaling(optimizer):
    """The optimizer of a loss that is scaled, so that its gradients are not lost in float16."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return optimizer
    return keras.optimizers.LossScaleOptimizer(optimizer, name=optimizer.name)
