"""How a student imitates a teacher on given images: the update that the methods share."""

import functools

import keras
from keras import ops

from keras_mosaickd.backend.fused import Fused
from keras_mosaickd.errors import InputError
from keras_mosaickd.methods.base import StudentTrainer
from keras_mosaickd.methods.checks import at_least_0, one_of, positive
from keras_mosaickd.methods.feature_maps import hint_maps, last_features
from keras_mosaickd.networks.features import copy_layers

STUDENT_STARTS = ("own", "teacher")


class Imitation(StudentTrainer):
    """A `StudentTrainer` whose student learns from the teacher's answers and feature maps.

        loss = KL(T || S) + hint_weight * mean((h_T - r(h_S))^2)
                          + feature_weight * mean(||phi_T - p(phi_S)||^2 / ||phi_T||^2)

    h is a map of the networks' middle (FitNet, Romero et al. 2015, arXiv 1412.6550), phi what
    enters their last layers, before a global average pooling (SimKD, Chen et al. 2022, arXiv
    2203.14001, which trains on it alone). phi's error is relative, image by image, so that one
    weight serves teachers whose features are large or small. Where two maps have different sizes,
    the larger is averaged down to the smaller. r is a learned 1 x 1 convolution; p is the identity,
    or where the channels differ a learned linear map times the root mean square of phi_T, so that
    it learns alike whatever the teacher's scale, and times the root of c_T / c_S, at most 1. Both
    learn with the student's optimizer and are no part of the student.

    `student_loss` is the whole loss; with a hint or features, `distillation_loss`, `hint_loss` and
    `feature_loss` are its parts.

    Args:
        teacher: as of `StudentTrainer`; functional or sequential for a hint or features.
        student: as of `StudentTrainer`; functional or sequential for a hint or features.
        temperature: temperature of the KL divergence, positive.
        hint_weight: weight of the hint's mean squared error, at least 0.
        hint_layer: name of the teacher's layer whose output is the hint. By default the last layer
            of the teacher's middle resolution, or of that of a given `guided_layer`.
        guided_layer: name of the student's layer that is guided. By default the last layer with a
            map of the hint's size, or of the student's own middle resolution if it has none.
        feature_weight: weight of the features' relative squared error, at least 0.
        mixup: share of the student's images, from 0 to 1, that are mixed with another one: a x +
            (1 - a) x', a ~ U(0, 1); the teacher answers what came out (Beyer et al. 2022, arXiv
            2106.05237).
        student_start: "own": the student as it comes; "teacher": once, here, its layers take the
            weights of the teacher's layers of the same name and shapes, and its last layer those of
            the teacher's last where the shapes agree.
        teacher_outputs: as of `StudentTrainer`.
        seed: as of `StudentTrainer`; also of the initial weights of r and p.
        **kwargs: of `keras.Model`.

    Raises:
        InputError: if an argument is out of range, the networks do not fit together, or a layer is
            not found.
    """

    def __init__(
        self,
        teacher,
        student,
        temperature=1.0,
        *,
        hint_weight=0.0,
        hint_layer=None,
        guided_layer=None,
        feature_weight=0.0,
        mixup=0.0,
        student_start="own",
        teacher_outputs="auto",
        seed=None,
        **kwargs,
    ):
        positive("temperature", temperature)
        at_least_0("hint_weight", hint_weight)
        at_least_0("feature_weight", feature_weight)
        one_of("student_start", student_start, STUDENT_STARTS)
        if not 0 <= mixup <= 1:
            raise InputError(f"mixup must be from 0 to 1. Received: {mixup}")
        super().__init__(teacher, student, teacher_outputs=teacher_outputs, seed=seed, **kwargs)
        self.temperature = temperature
        self.hint_weight = hint_weight
        self.hint_layer, self.guided_layer = hint_layer, guided_layer
        self.feature_weight = feature_weight
        self.mixup = mixup
        if mixup:
            self.mixup_seed = keras.random.SeedGenerator(seed)
        if student_start == "teacher":
            copied, of = copy_layers(self.teacher, self.student)
            print(f"Student starts from the teacher's weights in {copied} of its {of} layers")
        self.loss_terms = {"student_loss": keras.metrics.Mean(name="student_loss")}
        self._match_maps(seed)

    def _match_maps(self, seed):
        """Connects the pairs of maps whose mean squared errors are part of the loss."""
        self.matched, targets, guided = [], [], []
        initial = keras.initializers.GlorotUniform(seed)
        if self.hint_weight:
            (self.hint_layer, hint), (self.guided_layer, own) = hint_maps(
                self.teacher, self.student, self.hint_layer, self.guided_layer
            )
            self.regressor = keras.layers.Conv2D(
                hint.shape[-1],
                1,
                kernel_initializer=initial,
                dtype="float32",
                name="hint_regressor",
            )
            self.matched.append(("hint_loss", self.hint_weight, mean_squared_error))
            targets.append(hint)
            guided.append(self.regressor(own))
        if self.feature_weight:
            features, own = last_features(self.teacher, self.student)
            error = relative_squared_error
            if features.shape[-1] != own.shape[-1]:
                # Many channels that explain few would make its learning rate too high.
                gain = min(1.0, (features.shape[-1] / own.shape[-1]) ** 0.5)
                error = functools.partial(projection_error, gain=gain)
                self.projection = keras.layers.Dense(
                    features.shape[-1],
                    kernel_initializer=initial,
                    dtype="float32",
                    name="feature_projection",
                )
                own = self.projection(own)
            self.matched.append(("feature_loss", self.feature_weight, error))
            targets.append(features)
            guided.append(own)
        if not self.matched:
            return
        # One pass gives maps and logits, so that BatchNorm's statistics move once per update. The
        # layers are the networks' own. In the order of names, in which Keras saves, these come
        # behind the networks, so that weights are filed under "teacher" and "student".
        teacher, student = self.teacher, self.student
        self.teacher_with_maps = keras.Model(teacher.inputs[0], [*targets, teacher.outputs[0]])
        self.student_with_maps = keras.Model(student.inputs[0], [*guided, student.outputs[0]])
        self.run_teacher_with_maps = Fused(self.teacher_with_maps)
        self.run_student_with_maps = Fused(self.student_with_maps)
        for name in ("distillation_loss", *(name for name, _, _ in self.matched)):
            self.loss_terms[name] = keras.metrics.Mean(name=name)

    def trained_network(self, role):
        """The student learns with what its maps are matched by."""
        is_matched = role == "student" and self.matched
        return self.student_with_maps if is_matched else super().trained_network(role)

    def update_student(self, images, partners=None):
        """One update of the student on given images.

        Args:
            images: tensor `[n, height, width, channels]` in [0, 1].
            partners: what `mixup` mixes them with, row by row; by default each second image and the
                one before it with each other.
        """
        if self.mixup:
            images = self._mixed(images, partners)
        with self.without_gradient():
            *targets, teacher_logits = map(ops.stop_gradient, self._teacher_maps(images))

        def objective():
            *maps, student_logits = self._student_maps(images)
            divergence = self.head.kl_divergence(teacher_logits, student_logits, self.temperature)
            loss = ops.mean(divergence)
            terms = {"distillation_loss": loss} if self.matched else {}
            for (name, weight, error), target, own in zip(self.matched, targets, maps, strict=True):
                terms[name] = error(target, own)
                loss = loss + weight * terms[name]
            return loss, {**terms, "student_loss": loss}

        self.update("student", objective, count=ops.shape(images)[0])

    def _teacher_maps(self, images):
        if self.matched:
            return self.run_teacher_with_maps(images, training=False)
        return [self.run_teacher(images, training=False)]

    def _student_maps(self, images):
        if self.matched:
            return self.run_student_with_maps(images, training=True)
        return [self.run_student(images, training=True)]

    def _mixed(self, images, partners):
        shape = ops.shape(images)
        if partners is None:
            # Neighbours stay together where replicas share a batch. The last of an odd number of
            # images, at the end of an epoch, has none and stays as it is.
            count = shape[0] // 2
            pairs = ops.reshape(images[: 2 * count], (count, 2, *shape[1:]))
            partners = ops.reshape(ops.flip(pairs, axis=1), (2 * count, *shape[1:]))
            partners = ops.concatenate([partners, images[2 * count :]], axis=0)
        # Of two standard normal numbers for each image, the distribution function is uniform.
        normal = self.global_normal(shape[0], 2, self.mixup_seed)
        uniform = ops.reshape((1.0 + ops.erf(normal / 2**0.5)) / 2.0, (shape[0], 2, 1, 1, 1))
        share = ops.where(uniform[:, 0] < self.mixup, uniform[:, 1], 0.0)
        return images + share * (partners - images)

    def get_config(self):
        """Everything that makes the same trainer again; the layers that were chosen, by name."""
        return {
            **super().get_config(),
            "temperature": self.temperature,
            "hint_weight": self.hint_weight,
            "hint_layer": self.hint_layer,
            "guided_layer": self.guided_layer,
            "feature_weight": self.feature_weight,
            "mixup": self.mixup,
        }


def mean_squared_error(target, guided):
    """Mean over all elements of the squared difference, in float32.

    Args:
        target: teacher's features `[batch, ..., channels]`.
        guided: tensor of the same shape.

    Returns:
        Scalar, at least 0.
    """
    return ops.mean(ops.square(ops.cast(target, "float32") - ops.cast(guided, "float32")))


def relative_squared_error(target, guided):
    """Mean over images of ||target - guided||^2 / ||target||^2, in float32.

    Args:
        target: teacher's features `[batch, ..., channels]`.
        guided: tensor of the same shape.

    Returns:
        Scalar, at least 0.
    """
    axes = tuple(range(1, len(target.shape)))
    target, guided = ops.cast(target, "float32"), ops.cast(guided, "float32")
    error = ops.sum(ops.square(target - guided), axis=axes)
    return ops.mean(error / (ops.sum(ops.square(target), axis=axes) + 1e-6))


def projection_error(target, projected, gain=1.0):
    """`relative_squared_error` of a projection that is in units of the teacher's features.

    Args:
        target: teacher's features `[batch, ..., channels]`.
        projected: tensor of the same shape.
        gain: what it is multiplied by, beside each image's root mean square of the target.

    Returns:
        Scalar, at least 0.
    """
    target = ops.cast(target, "float32")
    axes = tuple(range(1, len(target.shape)))
    scale = ops.sqrt(ops.mean(ops.square(target), axis=axes, keepdims=True))
    return relative_squared_error(target, gain * scale * ops.cast(projected, "float32"))
