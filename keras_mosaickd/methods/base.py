"""What every method shares: a frozen teacher, a student, and how the student is judged."""

import keras
import numpy as np
from keras import ops

from keras_mosaickd.backend import keras_graph
from keras_mosaickd.backend.fused import Fused
from keras_mosaickd.backend.training import PhaseTrainer
from keras_mosaickd.data.mean_iou import MeanIoU
from keras_mosaickd.data.pixels import VOID, unit_range_tensor
from keras_mosaickd.data.streams.training import checked_images
from keras_mosaickd.errors import InputError
from keras_mosaickd.networks.heads import head_of
from keras_mosaickd.networks.logits import recognized, student_logits, with_shapes
from keras_mosaickd.optimizers import PhaseOptimizers


class StudentTrainer(PhaseTrainer):
    """Trains a student to imitate a frozen teacher; `predict` is the student's.

    Images are uint8 or floats in [0, 1] everywhere; the networks by themselves take the latter.
    `evaluate` and validation take images, with integer (or one-hot) labels or without:

    - `loss`: mean KL(T || S), in nats;
    - `agreement`: share of predictions in which student and teacher choose the same class, which
      needs no labels;
    - `accuracy`: share of correct predictions, where labels are given;

    A teacher that ends in several sigmoids has independent labels instead of classes: KL is summed
    over them, agreement and accuracy are means over them, and labels are rows of 0 and 1. One
    sigmoid, or one logit, is a binary classifier of classes 0 and 1.

    - `mean_iou`: where there is one prediction per pixel, the mean over the classes of intersection
      over union.

    Pixels with the label 255 (void) take no part in `accuracy` and `mean_iou`.

    Args:
        teacher: built Keras classifier from images in [0, 1], `[batch, height, width,
            channels]`, to `[batch, classes]` (or one prediction per pixel). It is called with
            `training=False` always, and its weights never change.
        student: built Keras classifier with the same input and output shape, giving logits; a
            softmax or sigmoid that is a layer of its own is left out of `self.student`.
        teacher_outputs: "auto", "logits" or "probabilities" (see `networks.logits.as_logits`).
        seed: seed of everything drawn in training.
        **kwargs: of `keras.Model`.

    Raises:
        InputError: if teacher and student do not fit together.
    """

    networks: tuple[str, ...] = ("teacher", "student")
    """Names of the attributes that hold networks."""

    def __init__(self, teacher, student, teacher_outputs="auto", seed=None, **kwargs):
        super().__init__(**kwargs)
        for role, model in (("teacher", teacher), ("student", student)):
            if not isinstance(model, keras.Model):
                raise InputError(
                    f"the {role} must be a keras.Model. Received: {type(model).__name__}"
                )
        teacher, student = with_shapes(teacher), with_shapes(student)
        self.teacher, recognized_as = recognized(teacher, teacher_outputs)
        if self.teacher is not teacher:
            print(f"Teacher {teacher.name}: {recognized_as}")
        self.head = head_of(self.teacher)
        self.student = student_logits(student, self.teacher.input_shape[1:])
        check_fit(self.teacher, self.student, self.head)
        self.run_teacher, self.run_student = Fused(self.teacher), Fused(self.student)
        self.seed = seed
        self.accuracy_metric = keras.metrics.Mean(name="accuracy")
        self.agreement_metric = keras.metrics.Mean(name="agreement")
        self.mean_iou_metric = None
        if len(student.output_shape) == 4:
            self.mean_iou_metric = MeanIoU(self.head.classes)
        self.loss_terms = {}
        self.built = True

    def build(self, input_shape=None):
        """Nothing to build: the networks come built."""
        self.built = True

    def call(self, inputs, training=False):
        """The student's logits for images in [0, 1], or as bytes."""
        return self.student(unit_range_tensor(inputs), training=training)

    # ---- training ------------------------------------------------------------------------

    def fit(self, x=None, *args, **kwargs):
        """As `keras.Model.fit`.

        Raises:
            InputError: before training, if arrays of images, those of `validation_data` too,
                are neither uint8 nor floats in [0, 1].
        """
        _check_images(x)
        validation_data = kwargs.get("validation_data")
        if isinstance(validation_data, tuple | list) and validation_data:
            _check_images(validation_data[0])
        return super().fit(x, *args, **kwargs)

    def compile_phases(self, phases, **kwargs):
        """Compiles with one optimizer for each phase.

        Args:
            phases: dict from the optimizer's keyword in `compile` to the pair of the optimizer and
                the network that it trains; the first makes one update per training step.
            **kwargs: of `keras.Model.compile` (`jit_compile`, `run_eagerly`,
                `steps_per_execution`).
        """
        unexpected = {"loss", "metrics", "weighted_metrics", "optimizer"} & set(kwargs)
        if unexpected:
            raise InputError(
                f"compile() takes {', '.join(phases)}; losses and metrics are the method's own. "
                f"Received: {', '.join(sorted(unexpected))}"
            )
        optimizers = {
            key: keras.optimizers.get(optimizer) for key, (optimizer, _) in phases.items()
        }
        if len({id(optimizer) for optimizer in optimizers.values()}) < len(optimizers):
            raise InputError("compile() needs a separate optimizer for each phase")
        self._phase_compile_config = {**optimizers, **kwargs}
        if self.dtype_policy.name == "mixed_float16":
            optimizers = {
                key: keras.optimizers.LossScaleOptimizer(optimizer, name=optimizer.name)
                for key, optimizer in optimizers.items()
            }
        for _, network in phases.values():
            self.check_scope(network.variables)
        self.phase_optimizers = optimizers
        variables = {key: network.trainable_variables for key, (_, network) in phases.items()}
        super().compile(
            optimizer=PhaseOptimizers(optimizers, variables),
            loss=None,
            auto_scale_loss=False,
            **kwargs,
        )

    def track(self, terms):
        """Adds terms of the losses to this epoch's means."""
        for name, value in terms.items():
            self.loss_terms[name].update_state(value)

    def training_logs(self):
        """Means of the tracked terms so far in the epoch, and every phase's learning rate."""
        logs = {"loss": self.loss_terms["student_loss"].result()}
        logs |= {name: metric.result() for name, metric in self.loss_terms.items()}
        for key, optimizer in self.phase_optimizers.items():
            rate = ops.convert_to_tensor(optimizer.learning_rate)
            logs[f"{key.removesuffix('_optimizer')}_learning_rate"] = rate
        return logs

    def update_student(self, images):
        """One student update on given images: minimise the mean KL(T || S)."""
        with self.without_gradient():
            teacher_logits = ops.stop_gradient(self.run_teacher(images, training=False))

        def objective():
            student_logits = self.run_student(images, training=True)
            loss = ops.mean(
                self.head.kl_divergence(teacher_logits, student_logits, self.temperature)
            )
            return loss, {"student_loss": loss}

        optimizer = self.phase_optimizers["student_optimizer"]
        self.track(self.minimize(objective, optimizer, self.student.trainable_variables))

    # ---- evaluation ----------------------------------------------------------------------

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=False):
        """Mean KL(T || S); counts agreement on the way, while the teacher's logits are at hand."""
        teacher_logits = self.teacher(unit_range_tensor(x), training=False)
        self.agreement_metric.update_state(self.head.agreement(teacher_logits, y_pred))
        return ops.mean(self.head.kl_divergence(teacher_logits, y_pred))

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """Loss and agreement, and accuracy where there are labels."""
        logs = {"loss": self._mean_loss.result(), "agreement": self.agreement_metric.result()}
        if y is not None:
            correct = self.head.accuracy(y, y_pred)
            if self.mean_iou_metric is None:
                self.accuracy_metric.update_state(correct)
            else:
                y = ops.reshape(ops.cast(y, "int32"), ops.shape(y_pred)[:-1])
                counted = ops.cast(ops.not_equal(y, VOID), "float32")
                self.accuracy_metric.update_state(correct, counted)
                self.mean_iou_metric.update_state(y, self.head.predictions(y_pred))
                logs["mean_iou"] = self.mean_iou_metric.result()
            logs["accuracy"] = self.accuracy_metric.result()
        return logs

    def evaluate(self, x=None, *args, return_dict=False, **kwargs):
        """As `keras.Model.evaluate`, exact over several devices too.

        Keras reports the mean over the devices of each one's mean, which is another number where
        they saw unequal numbers of images; the metrics' own totals are over all of them.

        Raises:
            InputError: if an array of images is neither uint8 nor floats in [0, 1].
        """
        _check_images(x)
        logs = super().evaluate(x, *args, return_dict=True, **kwargs)
        metrics = {"loss": self._mean_loss, "agreement": self.agreement_metric}
        metrics |= {"accuracy": self.accuracy_metric, "mean_iou": self.mean_iou_metric}
        logs = {name: float(ops.convert_to_numpy(metrics[name].result())) for name in logs}
        return logs if return_dict else list(logs.values())

    @property
    def _mean_loss(self):
        """Keras's own metric of `compute_loss`."""
        return next(metric for metric in self.metrics if metric.name == "loss")

    # ---- saving --------------------------------------------------------------------------

    def get_config(self):
        """Everything that makes the same trainer again; networks as Keras objects."""
        config = {**super().get_config(), "seed": self.seed, "teacher_outputs": "logits"}
        for name in self.networks:
            config[name] = keras.saving.serialize_keras_object(getattr(self, name))
        return config

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Makes the trainer of a `get_config`."""
        config = dict(config)
        for name in cls.networks:
            config[name] = keras.saving.deserialize_keras_object(config[name], custom_objects)
        return cls(**config)

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


def _check_images(x):
    """Raises InputError for an array whose range no network here expects.

    What else `fit` takes is a stream, which has checked its own.
    """
    if isinstance(x, np.ndarray):
        checked_images(x)


def check_fit(teacher, student, head):
    """Raises InputError unless two models of logits can be teacher and student."""
    for what in ("input shape", "output shape"):
        shapes = [getattr(model, what.replace(" ", "_")) for model in (teacher, student)]
        fits = len(shapes[0]) == len(shapes[1]) and all(
            a == b or None in (a, b) for a, b in zip(*shapes, strict=True)
        )
        if what == "output shape":
            # A binary classifier has one unit or two.
            fits = len(shapes[0]) == len(shapes[1]) and head.fits(shapes[1][-1])
        if not fits:
            raise InputError(
                f"teacher and student must have the same {what}. Received: {what} {shapes[0]} of "
                f"the teacher {teacher.name!r} and {shapes[1]} of the student {student.name!r}"
            )
