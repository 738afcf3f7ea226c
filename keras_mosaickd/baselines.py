"""What MosaicKD is compared with."""

import keras

from keras_mosaickd.errors import InputError
from keras_mosaickd.student_trainer import StudentTrainer


@keras.saving.register_keras_serializable(package="keras_mosaickd")
class KnowledgeDistillation(StudentTrainer):
    """Plain distillation on out-of-domain pictures, without labels (Hinton et al., 2015).

    The student imitates the teacher on pictures `[batch, height, width, channels]`; nothing is
    generated. It shares evaluation, saving and the treatment of the teacher with MosaicKD, which
    `keras.distillation.Distiller` would not: that one freezes the caller's teacher in place, takes
    a teacher's probabilities for logits, and reports no agreement on unlabelled pictures.

    Args:
        teacher: as of `StudentTrainer`.
        student: as of `StudentTrainer`.
        temperature: temperature of the loss, positive.
        teacher_outputs: as of `StudentTrainer`.
        seed: as of `StudentTrainer`.
        **kwargs: of `keras.Model`.

    Raises:
        InputError: if the temperature is not positive or the networks do not fit together.
    """

    def __init__(
        self, teacher, student, temperature=1.0, teacher_outputs="auto", seed=None, **kwargs
    ):
        if not temperature > 0:
            raise InputError(f"temperature must be positive. Received: {temperature}")
        super().__init__(teacher, student, teacher_outputs=teacher_outputs, seed=seed, **kwargs)
        self.temperature = temperature
        self.loss_terms = {"student_loss": keras.metrics.Mean(name="student_loss")}

    def compile(self, student_optimizer, **kwargs):
        """Sets the optimizer (`keras_mosaickd.optimizers.student_recipe` makes the paper's).

        Args:
            student_optimizer: optimizer of the student.
            **kwargs: `jit_compile`, `run_eagerly`, `steps_per_execution` of `keras.Model.compile`.
        """
        self.compile_phases({"student_optimizer": (student_optimizer, self.student)}, **kwargs)

    def alternate(self, data):
        """One student update on one batch."""
        pictures, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        self.update_student(pictures)
        return self.training_logs()

    def get_config(self):
        """Everything that makes the same trainer again."""
        return {**super().get_config(), "temperature": self.temperature}
