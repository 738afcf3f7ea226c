"""What a game needs beside its algorithm: optimizers, data, latent vectors, multipliers."""

import math

import keras
from keras import ops

from keras_mosaickd.data.streams import given
from keras_mosaickd.data.streams.training import mosaic_stream
from keras_mosaickd.errors import InputError
from keras_mosaickd.methods.base import by_name
from keras_mosaickd.methods.imitation import Imitation
from keras_mosaickd.methods.multipliers import LEAST, MOST


class Game(Imitation):
    """An `Imitation` with a generator, and a discriminator or none.

    Where its multipliers find themselves, its logs are `lambda_local` and `lambda_align`, as they
    are at the end of an epoch, and what they hold below epsilon, `r_local` and `r_align`, means
    over the epoch.

    Attributes:
        objectives: `Objectives`.
        multipliers: `Multipliers`, or None where lambda is fixed.
    """

    def compile(
        self, student_optimizer, generator_optimizer, discriminator_optimizer=None, **kwargs
    ):
        """Sets the three optimizers (`keras_mosaickd.recipe` makes the paper's).

        Args:
            student_optimizer: optimizer of S; it makes `student_steps` updates per training step.
            generator_optimizer: optimizer of G.
            discriminator_optimizer: optimizer of D; not used without a discriminator.
            **kwargs: `jit_compile`, `run_eagerly`, `steps_per_execution` of `keras.Model.compile`.

        Raises:
            InputError: if an optimizer is missing or used twice, or a loss or metrics are given.
            RuntimeError: outside the distribution scope in which the networks were made.
        """
        phases = {
            "generator_optimizer": generator_optimizer,
            "student_optimizer": student_optimizer,
        }
        if self.discriminator is not None:
            if discriminator_optimizer is None:
                raise InputError("compile() needs a discriminator_optimizer. Received: None")
            phases["discriminator_optimizer"] = discriminator_optimizer
        self.compile_phases(phases, **kwargs)

    def fit(self, x=None, *args, **kwargs):
        """Trains as `keras.Model.fit`; plain images are turned into the game's stream.

        Args:
            x: elements `(patches, ood)` (a `tf.data.Dataset`, `PyDataset`, generator), or plain
                images: an array `[n, h, w, c]`, a `tf.data.Dataset` of images, or one of batches
                `(images, labels)`, whose labels are left out; of a `PyDataset` or torch
                `DataLoader` of such batches all images are held in memory.
            *args: of `keras.Model.fit`, in its order.
            **kwargs: of `keras.Model.fit`. `y` must be None: the game takes no labels.
                `batch_size` is the global batch size B for plain images; by default that of the
                batches of a stream, and 32 of arrays. `validation_data=(images, labels)` or
                `(images,)`, uint8 or in [0, 1].

        Returns:
            `keras.callbacks.History`.

        Raises:
            InputError: if the images cannot be used, with the shape that was expected.
        """
        kwargs = by_name(keras.Model.fit, args, kwargs)
        batch_size = kwargs.pop("batch_size", None)
        if kwargs.pop("y", None) is not None:
            raise InputError("MosaicKD.fit() takes no labels: pass the images alone, without y")
        if kwargs.get("validation_split"):
            raise InputError(
                "MosaicKD.fit() takes no validation_split: give validation_data=(images,). "
                f"Received: {kwargs['validation_split']}"
            )
        x, first = self._checked(x, may_be_single=True)
        if given.beside(first) is not None:
            self.leave_out_labels(first)
        if given.is_plain(x, first):
            batch_size = batch_size or given.batch_size_of(first) or 32
            x = given.as_pool(x)
            # After what a loaded game, or an earlier `fit`, has seen.
            x = mosaic_stream(
                x,
                batch_size,
                student_steps=self.student_steps,
                seed=self.seed or 0,
                first_step=int(self.optimizer.iterations) if self.compiled else 0,
            )
            batch_size = None
        # A stream has its own order, drawn by seed; Keras would shuffle a PyDataset again.
        return super().fit(x, batch_size=batch_size, **{"shuffle": False, **kwargs})

    def latents(self, batch):
        """Draws z ~ N(0, I) of shape `[batch, latent_dim]`: this replica's rows of one draw."""
        return self.global_normal(batch, self.latent_dim, self.seed_generator)

    def _unpack(self, data):
        patches, ood, _ = keras.utils.unpack_x_y_sample_weight(data)
        if ood is None and self.discriminator is None and self.synthetic_only:
            return patches, None  # of `data_free_stream`: nothing but the size of the batch
        given.check_game_element(patches, ood, self.student_steps)
        return self.in_unit_range(patches), self.in_unit_range(ood)

    # ---- multipliers ---------------------------------------------------------------------

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
