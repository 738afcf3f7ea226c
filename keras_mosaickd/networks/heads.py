"""What a network's logits say: one of several classes, or several labels that hold or do not.

Whoever compares, counts or names predictions asks the head, so that each number is defined once. A
head sees logits as independent variables `[..., variables, values]`: the classes are one variable
with as many values, labels are as many Bernoulli variables with two. What is summed over variables
is the joint distribution's; where there is one variable, nothing changes.
"""

import math

import keras
import numpy as np
from keras import ops

from keras_mosaickd import losses

HEADS = ("auto", "classes", "labels")


@keras.saving.register_keras_serializable(package="keras_mosaickd")
class LabelLogits(keras.layers.Layer):
    """The end of a teacher whose logits are those of independent labels: it says so, and is saved.

    Args:
        from_probabilities: whether its inputs are probabilities p, of which it makes log(p/(1-p)).
        **kwargs: of `keras.layers.Layer`.
    """

    def __init__(self, from_probabilities=False, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.from_probabilities = from_probabilities

    def call(self, inputs):
        """Logits of the shape of `inputs`."""
        return log_odds(inputs) if self.from_probabilities else inputs

    def get_config(self):
        """Arguments that make the same layer again."""
        return {**super().get_config(), "from_probabilities": self.from_probabilities}


def log_odds(probabilities):
    """Logits log(p / (1 - p)), p and 1 - p at least 1e-7."""
    probabilities = ops.clip(probabilities, 1e-7, 1 - 1e-7)
    return ops.log(probabilities) - ops.log1p(-probabilities)


class Categorical:
    """One class for each prediction: softmax, or a sigmoid of one unit.

    The logit z of one unit stands for the two logits 0 and z.

    Attributes:
        kind: "classes".
        classes: number of classes, at least 2.
        most_entropy: entropy in nats of a prediction that knows nothing.
    """

    kind = "classes"

    def __init__(self, classes):
        self.classes = classes
        self.most_entropy = math.log(classes)

    def __eq__(self, other):
        return type(other) is type(self) and other.classes == self.classes

    def __hash__(self):
        return hash((self.kind, self.classes))

    def fits(self, units):
        """Whether logits `[..., units]` are of this head."""
        return units == self.classes or (units, self.classes) == (1, 2)

    def variables(self, logits):
        """Logits `[..., variables, values]`."""
        if logits.shape[-1] == 1:
            return _pairs(logits)
        return ops.expand_dims(logits, -2)

    # ---- of logits [..., units], a tensor [...] --------------------------------------------

    def kl_divergence(self, teacher_logits, student_logits, temperature=1.0):
        """KL(T || S) in nats, times temperature squared (see `losses.kl_divergence`)."""
        divergence = losses.kl_divergence(
            self.variables(teacher_logits), self.variables(student_logits), temperature
        )
        return ops.sum(divergence, axis=-1)

    def entropy(self, logits):
        """Entropy in nats, from 0 to `most_entropy`."""
        return ops.sum(losses.entropy(self.variables(logits)), axis=-1)

    def agreement(self, teacher_logits, student_logits):
        """1 where both predict the same, 0 where not; of labels the share that is the same."""
        same = ops.equal(self._values(teacher_logits), self._values(student_logits))
        return ops.mean(ops.cast(same, "float32"), axis=-1)

    def accuracy(self, labels, logits):
        """As `agreement`, with labels as of `cross_entropy`."""
        right = ops.equal(self._targets(labels, logits), self._values(logits))
        return ops.mean(ops.cast(right, "float32"), axis=-1)

    def confidence(self, logits):
        """Probability of what is predicted; of labels its mean."""
        return ops.mean(ops.max(ops.softmax(self.variables(logits), axis=-1), axis=-1), axis=-1)

    def cross_entropy(self, labels, logits):
        """Cross entropy in nats.

        Args:
            labels: of classes numbers, `[...]` or `[..., 1]`, or one-hot rows; of labels 0 or 1,
                `[..., labels]`.
            logits: tensor `[..., units]`.
        """
        variables = ops.cast(self.variables(logits), "float32")
        targets = ops.one_hot(self._targets(labels, logits), variables.shape[-1])
        return -ops.sum(targets * ops.log_softmax(variables, axis=-1), axis=(-2, -1))

    # ---- of logits [..., units], other shapes ----------------------------------------------

    def predictions(self, logits):
        """Number of the class, int32 `[...]`; of labels 0 or 1, `[..., labels]`."""
        return self._values(logits)[..., 0]

    def probabilities(self, logits):
        """Tensor `[..., classes]`."""
        return ops.softmax(self.variables(logits), axis=-1)[..., 0, :]

    def leading(self, logits):
        """The most probable class or label of each image, int32 `[batch]`; of pixels their mean."""
        probabilities = self.probabilities(logits)
        rows = ops.reshape(probabilities, (ops.shape(logits)[0], -1, probabilities.shape[-1]))
        return ops.argmax(ops.mean(rows, axis=1), axis=-1)

    def counts(self, predictions):
        """How often each class was predicted, of a numpy array of `predictions`."""
        return np.bincount(predictions.reshape(-1), minlength=self.classes)

    def mean_distribution(self, logits):
        """Mean prediction `[variables, values]` over the batch, and over pixels where there are."""
        return losses.mean_probabilities(self.variables(logits), event_axes=2)

    def _values(self, logits):
        return ops.cast(ops.argmax(self.variables(logits), axis=-1), "int32")

    def _targets(self, labels, logits):
        """Labels as values of the variables, int32 `[..., variables]`."""
        rank = len(logits.shape)
        if len(labels.shape) == rank and labels.shape[-1] > 1:
            labels = ops.argmax(labels, axis=-1)
        return ops.reshape(ops.cast(labels, "int32"), (*ops.shape(logits)[:-1], 1))


class Bernoulli(Categorical):
    """Labels that hold or do not, independently of each other: a sigmoid for each.

    Attributes:
        kind: "labels".
        classes: number of labels.
        most_entropy: entropy in nats of a prediction that knows nothing.
    """

    kind = "labels"

    def __init__(self, classes):
        super().__init__(classes)
        self.most_entropy = classes * math.log(2)

    def variables(self, logits):
        """Logits `[..., labels, 2]`."""
        return _pairs(logits)

    def predictions(self, logits):
        """0 or 1, int32 `[..., labels]`."""
        return self._values(logits)

    def probabilities(self, logits):
        """Of each label, `[..., labels]`; they do not sum to 1."""
        return ops.sigmoid(logits)

    def counts(self, predictions):
        """How often each label was predicted, of a numpy array of `predictions`."""
        return predictions.reshape(-1, self.classes).sum(axis=0)

    def fits(self, units):
        """Whether logits `[..., units]` are of this head."""
        return units == self.classes

    def _targets(self, labels, logits):
        return ops.cast(ops.reshape(labels, ops.shape(logits)), "int32")


def head_of(teacher):
    """The head of a teacher of logits (see `keras_mosaickd.networks.logits.as_logits`)."""
    return new_head("labels" if _is_marked(teacher) else "classes", teacher.output_shape[-1])


def new_head(kind, units):
    """The head of `units` logits.

    Args:
        kind: "classes" or "labels".
        units: number of logits; one is a binary classifier's, whatever the kind.
    """
    return Bernoulli(units) if kind == "labels" and units > 1 else Categorical(max(units, 2))


def _is_marked(model):
    return any(
        isinstance(layer, LabelLogits) or (isinstance(layer, keras.Model) and _is_marked(layer))
        for layer in getattr(model, "layers", ())
    )


def _pairs(logits):
    """The two logits 0 and z of a Bernoulli variable with the logit z."""
    return ops.stack([ops.zeros_like(logits), logits], axis=-1)
