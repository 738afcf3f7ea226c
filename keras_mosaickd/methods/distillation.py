"""The baselines that train the student alone: on labels, or on the teacher's predictions."""

import keras
from keras import ops

from keras_mosaickd.data.pixels import VOID
from keras_mosaickd.errors import InputError
from keras_mosaickd.methods.base import StudentTrainer
from keras_mosaickd.methods.imitation import Imitation


class OnePhase(StudentTrainer):
    """A `StudentTrainer` that trains the student alone."""

    def compile(self, student_optimizer, **kwargs):
        """Sets the optimizer (`keras_mosaickd.optimizers.student_recipe` makes the paper's).

        Args:
            student_optimizer: optimizer of the student.
            **kwargs: `jit_compile`, `run_eagerly`, `steps_per_execution` of `keras.Model.compile`.
        """
        self.compile_phases({"student_optimizer": student_optimizer}, **kwargs)


@keras.saving.register_keras_serializable(package="keras_mosaickd")
class Supervised(OnePhase):
    """The student on labelled images of the domain; the teacher takes part in evaluation only.

    `fit` takes images `[batch, height, width, channels]` and integer labels, `[batch]` or, for
    one prediction per pixel, `[batch, height, width]`. There the pixels with the label 255 (void)
    are left out of the mean.

    Args:
        teacher: as of `StudentTrainer`.
        student: as of `StudentTrainer`.
        teacher_outputs: as of `StudentTrainer`.
        seed: as of `StudentTrainer`.
        **kwargs: of `keras.Model`.

    Raises:
        InputError: if the networks do not fit together.
    """

    learns_labels = True

    def __init__(self, teacher, student, teacher_outputs="auto", seed=None, **kwargs):
        super().__init__(teacher, student, teacher_outputs=teacher_outputs, seed=seed, **kwargs)
        self.loss_terms = {"student_loss": keras.metrics.Mean(name="student_loss")}

    def alternate(self, data):
        """One student update on one batch of images and labels."""
        images, labels, _ = keras.utils.unpack_x_y_sample_weight(data)
        images = self.in_unit_range(images)
        expected = self.student.output_shape[:-1]
        if self.head.kind == "labels":
            expected = self.student.output_shape
        if labels is None or len(labels.shape) != len(expected):
            raise InputError(
                f"each element of the training data must be (images, integer labels {expected}). "
                f"Received: labels of shape {None if labels is None else tuple(labels.shape)}"
            )

        def objective():
            loss = self.cross_entropy(labels, self.run_student(images, training=True))
            return loss, {"student_loss": loss}

        self.update("student", objective, count=ops.shape(images)[0])

    def cross_entropy(self, labels, logits):
        """Mean cross entropy in nats, in float32, over all labels that are not void.

        Args:
            labels: integers `[batch]` or `[batch, height, width]`.
            logits: tensor of shape `[batch, classes]` or `[batch, height, width, classes]`.

        Returns:
            Scalar, at least 0; 0 where every label is void.
        """
        labels = ops.cast(labels, "int32")
        if len(logits.shape) == 2:
            # Whole images are never void: 255 is a class like any other here.
            return ops.mean(self.head.cross_entropy(labels, logits))
        known = ops.not_equal(labels, VOID)
        # Void is no class.
        loss = self.head.cross_entropy(ops.where(known, labels, 0), logits)
        known = ops.cast(known, "float32")
        # Every replica divides by the same count, so that a pixel weighs the same on each.
        count = ops.maximum(self.mean_over_replicas(ops.sum(known)), 1.0)
        return ops.sum(loss * known) / count


@keras.saving.register_keras_serializable(package="keras_mosaickd")
class KnowledgeDistillation(OnePhase, Imitation):
    """Plain distillation on out-of-domain images, without labels (Hinton et al., 2015).

    The student imitates the teacher on images `[batch, height, width, channels]`; nothing is
    generated. It shares evaluation, saving and the treatment of the teacher with MosaicKD, which
    `keras.distillation.Distiller` would not: that one freezes the caller's teacher in place, takes
    a teacher's probabilities for logits, and reports no agreement on unlabelled images.

    Its arguments are those of `Imitation`.
    """

    def alternate(self, data):
        """One student update on one batch."""
        images, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        self.update_student(self.in_unit_range(images))
