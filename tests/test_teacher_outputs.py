"""A teacher that ends in softmax is never put through softmax twice."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_mosaickd import InputError, losses
from keras_mosaickd.networks.logits import LogProbabilities, as_logits
from tests.gradients import gradient

SHAPE = (4, 4, 1)


def images(count=5):
    return np.random.default_rng(0).random((count, *SHAPE), dtype="float32")


def head(kind):
    inputs = keras.Input(SHAPE)
    features = layers.Flatten()(inputs)
    if kind == "dense":
        return keras.Model(inputs, layers.Dense(3, activation="softmax")(features))
    logits = layers.Dense(3)(features)
    if kind == "logits":
        return keras.Model(inputs, logits)
    layer = layers.Softmax() if kind == "layer" else layers.Activation("softmax")
    return keras.Model(inputs, layer(logits))


def sequential():
    return keras.Sequential(
        [keras.Input(SHAPE), layers.Flatten(), layers.Dense(3, activation="softmax")]
    )


def nested():
    inputs = keras.Input(SHAPE)
    return keras.Model(inputs, head("dense")(layers.Rescaling(2.0)(inputs)))


def convolutional():
    inputs = keras.Input(SHAPE)
    return keras.Model(inputs, layers.Conv2D(3, 1, activation="softmax")(inputs))


class Opaque(keras.Model):
    """A subclassed model, whose layers cannot be inspected."""

    def __init__(self, softmax):
        super().__init__()
        self.flatten, self.dense = layers.Flatten(), layers.Dense(3)
        self.softmax = softmax
        self(np.zeros((1, *SHAPE), "float32"))

    def call(self, inputs, training=False):
        logits = self.dense(self.flatten(inputs))
        return ops.softmax(logits) if self.softmax else logits


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


@pytest.mark.parametrize(
    "teacher",
    [
        lambda: head("dense"),
        lambda: head("layer"),
        lambda: head("activation"),
        sequential,
        nested,
        convolutional,
        lambda: Opaque(softmax=True),
    ],
    ids=["dense", "softmax layer", "activation", "sequential", "nested", "pixels", "subclassed"],
)
def test_softmax_is_recognised(teacher):
    teacher = teacher()
    before = numpy(teacher(images()))
    logits = as_logits(teacher)(images())
    np.testing.assert_allclose(numpy(ops.softmax(logits, axis=-1)), before, atol=1e-6)
    np.testing.assert_array_equal(numpy(teacher(images())), before)


def test_logits_are_left_alone():
    teacher = head("logits")
    assert as_logits(teacher) is teacher
    opaque = Opaque(softmax=False)
    np.testing.assert_array_equal(numpy(as_logits(opaque)(images())), numpy(opaque(images())))


def test_a_last_layer_that_may_keep_a_distribution_is_tried():
    """Without a bias it may only put the classes into another order, behind a softmax."""
    inputs = keras.Input(SHAPE)
    reorder = layers.Dense(3, use_bias=False, kernel_initializer="identity")
    teacher = keras.Model(inputs, reorder(head("dense")(inputs)))
    logits = as_logits(teacher)(images())
    np.testing.assert_allclose(
        numpy(ops.softmax(logits, axis=-1)), numpy(teacher(images())), atol=1e-6
    )


def test_a_plain_last_layer_needs_no_trial(monkeypatch):
    inputs = keras.Input(SHAPE)
    teacher = keras.Model(inputs, head("logits")(inputs))
    monkeypatch.setattr("keras_mosaickd.networks.logits._tried", pytest.fail)
    assert as_logits(teacher) is teacher


def test_stripped_logits_are_the_exact_ones():
    teacher = head("dense")
    kernel, bias = teacher.layers[-1].get_weights()
    expected = images().reshape(5, -1) @ kernel + bias
    np.testing.assert_allclose(numpy(as_logits(teacher)(images())), expected, rtol=1e-5, atol=1e-6)


def test_declarations():
    teacher = head("dense")
    with pytest.raises(InputError, match="declared, but the last layer"):
        as_logits(teacher, "logits")
    with pytest.raises(InputError, match="Received: 'softmax'"):
        as_logits(teacher, "softmax")
    opaque = Opaque(softmax=True)
    logits = as_logits(opaque, "logits")
    np.testing.assert_array_equal(numpy(logits(images())), numpy(opaque(images())))
    declared = as_logits(opaque, "probabilities")
    np.testing.assert_allclose(
        numpy(ops.softmax(declared(images()))), numpy(opaque(images())), atol=1e-6
    )


def test_align_has_a_gradient_where_the_teacher_is_nearly_certain():
    certain = np.array([[1 - 1e-6, 5e-7, 5e-7]], "float32")
    slope = gradient(lambda p: ops.sum(losses.entropy(LogProbabilities()(p))), certain)
    assert np.isfinite(slope).all()
    assert np.abs(slope).max() > 1e-3


def test_certainty_beyond_float32_is_floored():
    logits = LogProbabilities()(np.array([[1.0, 0.0]], "float32"))
    np.testing.assert_allclose(numpy(logits), [[0.0, np.log(1e-7)]], rtol=1e-6)
