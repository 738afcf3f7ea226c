"""FitNet: distillation with a hint from a middle layer of the teacher."""

import keras
from keras import ops

from keras_mosaickd.errors import InputError
from keras_mosaickd.methods.distillation import KnowledgeDistillation
from keras_mosaickd.methods.feature_maps import feature_map, layer_like, to_one_size


@keras.saving.register_keras_serializable(package="keras_mosaickd")
class FitNet(KnowledgeDistillation):
    """Distillation with hints (Romero et al. 2015, arXiv 1412.6550), in one stage.

        loss = KL(T || S) + hint_weight * mean((teacher's map - regressor(student's map))^2)

    The regressor is a learned 1 x 1 convolution from the channels of the student's (guided) map to
    those of the teacher's (hint) map; it learns with the student's optimizer and is no part of the
    student. Where the two maps have different sizes, the larger is averaged down to the smaller.
    Both parts of the loss are minimised together, as the tables of Fang et al. (2021) compare it;
    Romero et al. train on the hint first. The hint is half the squared distance there and a mean
    here, so that its weight does not depend on the size of the map.

    `student_loss` is the whole loss, `distillation_loss` and `hint_loss` are its parts.

    Args:
        teacher: as of `StudentTrainer`; functional or sequential.
        student: as of `StudentTrainer`; functional or sequential.
        temperature: temperature of the KL divergence, positive.
        hint_layer: name of the teacher's layer whose output is the hint. By default the last layer
            of the teacher's middle resolution, or of that of a given `guided_layer`.
        guided_layer: name of the student's layer that is guided. By default the last layer with a
            map of the hint's size, or of the student's own middle resolution if it has none.
        hint_weight: weight of the mean squared error, at least 0.
        teacher_outputs: as of `StudentTrainer`.
        seed: as of `StudentTrainer`; also of the regressor's initial weights.
        **kwargs: of `keras.Model`.

    Raises:
        InputError: if an argument is out of range, the networks do not fit together, a layer is
            not found, or the two maps cannot be brought to one size.
    """

    def __init__(
        self,
        teacher,
        student,
        temperature=1.0,
        hint_layer=None,
        guided_layer=None,
        hint_weight=1.0,
        teacher_outputs="auto",
        seed=None,
        **kwargs,
    ):
        if not hint_weight >= 0:
            raise InputError(f"hint_weight must be at least 0. Received: {hint_weight}")
        super().__init__(
            teacher,
            student,
            temperature=temperature,
            teacher_outputs=teacher_outputs,
            seed=seed,
            **kwargs,
        )
        self.hint_weight = hint_weight
        teacher, student = self.teacher, self.student
        if hint_layer is None:
            size = guided_layer and feature_map(student, "student", guided_layer).shape[1:3]
            hint_layer = layer_like(teacher, "teacher", size)
        hint = feature_map(teacher, "teacher", hint_layer)
        guided_layer = guided_layer or layer_like(student, "student", hint.shape[1:3])
        guided = feature_map(student, "student", guided_layer)
        self.hint_layer = hint_layer
        self.guided_layer = guided_layer
        hint, guided = to_one_size(hint, guided)
        self.regressor = keras.layers.Conv2D(
            hint.shape[-1],
            1,
            kernel_initializer=keras.initializers.GlorotUniform(seed),
            dtype="float32",
            name="hint_regressor",
        )
        # One pass gives map and logits, so that BatchNorm's statistics move once per update. The
        # layers are the networks' own. In the order of names, in which Keras saves, these come
        # behind the networks, so that weights are filed under "teacher" and "student".
        self.teacher_with_hint = keras.Model(teacher.inputs[0], [hint, teacher.outputs[0]])
        self.student_with_hint = keras.Model(
            student.inputs[0], [self.regressor(guided), student.outputs[0]]
        )
        for name in ("distillation_loss", "hint_loss"):
            self.loss_terms[name] = keras.metrics.Mean(name=name)

    def trained_network(self):
        """The student and the regressor."""
        return self.student_with_hint

    def update_student(self, images):
        """One update of student and regressor on given images."""
        with self.without_gradient():
            hint, teacher_logits = map(
                ops.stop_gradient, self.teacher_with_hint(images, training=False)
            )

        def objective():
            regressed, student_logits = self.student_with_hint(images, training=True)
            divergence = self.head.kl_divergence(teacher_logits, student_logits, self.temperature)
            terms = {
                "distillation_loss": ops.mean(divergence),
                "hint_loss": mean_squared_error(hint, regressed),
            }
            loss = terms["distillation_loss"] + self.hint_weight * terms["hint_loss"]
            return loss, {**terms, "student_loss": loss}

        self.track(
            self.minimize(
                objective,
                self.phase_optimizers["student_optimizer"],
                self.student_with_hint.trainable_variables,
            )
        )

    def get_config(self):
        """Everything that makes the same trainer again; the layers that were chosen, by name."""
        return {
            **super().get_config(),
            "hint_layer": self.hint_layer,
            "guided_layer": self.guided_layer,
            "hint_weight": self.hint_weight,
        }


def mean_squared_error(hint, regressed):
    """Mean over all elements of the squared difference, in float32.

    Args:
        hint: teacher's feature map `[batch, height, width, channels]`.
        regressed: tensor of the same shape.

    Returns:
        Scalar, at least 0.
    """
    return ops.mean(ops.square(ops.cast(hint, "float32") - ops.cast(regressed, "float32")))
