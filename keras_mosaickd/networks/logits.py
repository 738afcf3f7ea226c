"""Any Keras classifier as a teacher that gives logits.

The losses take logits. A teacher that ends in softmax is stripped of it where that is possible;
where it is not, log(max(p, 1e-7)) takes its place, whose softmax gives p again. A teacher is never
silently put through softmax twice.
"""

import keras
import numpy as np
from keras import ops

from keras_mosaickd.backend.keras_graph import activation_of, producer
from keras_mosaickd.errors import InputError

TEACHER_OUTPUTS = ("auto", "logits", "probabilities")


@keras.saving.register_keras_serializable(package="keras_mosaickd")
class LogProbabilities(keras.layers.Layer):
    """Logits log(max(p, 1e-7)) for a teacher of which only the probabilities p can be had."""

    def __init__(self, **kwargs):
        # Float32 under every policy: 1 - p of a confident teacher is lost in 16 bits.
        super().__init__(**{"dtype": "float32", **kwargs})

    def call(self, probabilities):
        """Logits of the shape of `probabilities`."""
        return ops.log(ops.maximum(probabilities, 1e-7))


def as_logits(teacher, outputs="auto"):
    """Returns a model that gives the teacher's logits; the teacher itself is left as it is.

    Args:
        teacher: built Keras model from images to `[..., classes]`.
        outputs: "logits" or "probabilities" declares what the teacher gives; "auto" looks: a last
            layer with softmax is recognised, and where the layers cannot be inspected the teacher
            is tried on random images.

    Returns:
        `teacher` where it gives logits already, else a new model that shares its layers.

    Raises:
        InputError: if `outputs` is not one of the three, or if "logits" is declared for a model
            whose last layer is a softmax.
    """
    if outputs not in TEACHER_OUTPUTS:
        raise InputError(
            f"teacher_outputs must be one of {', '.join(TEACHER_OUTPUTS)}. Received: {outputs!r}"
        )
    stripped = _without_softmax(teacher)
    if stripped is not None:
        if outputs == "logits":
            raise InputError(
                f"teacher_outputs='logits' was declared, but the last layer of {teacher.name!r} is "
                "a softmax. Expected: 'probabilities' or 'auto'"
            )
        return stripped
    if outputs == "logits" or (outputs == "auto" and _is_linear(teacher)):
        return teacher
    if outputs == "auto" and not _gives_probabilities(teacher):
        return teacher
    images = keras.Input(teacher.input_shape[1:])
    return keras.Model(images, LogProbabilities()(teacher(images)), name=f"{teacher.name}_logits")


def _last_call(model):
    """The call that gives a model's only output; None where it is hidden."""
    outputs = getattr(model, "outputs", None) or []
    return producer(outputs[0]) if len(outputs) == 1 else None


def _is_linear(model):
    """Whether the last layer is seen to be a plain one with a bias, whose sums nothing fixes.

    It saves trying the teacher, which on JAX compiles every one of its layers.
    """
    found = _last_call(model)
    if found is None:
        return False
    last = found.layer
    if isinstance(last, keras.Model):
        return _is_linear(last)
    return (
        type(last) in (keras.layers.Dense, keras.layers.Conv2D)
        and activation_of(last) == "linear"
        and last.use_bias
    )


def _without_softmax(model):
    """The model up to its final softmax, on the same layers; None where there is none to see."""
    found = _last_call(model)
    if found is None:
        return None
    last, inputs = found.layer, found.inputs
    if isinstance(last, keras.Model):
        inner = _without_softmax(last)
        logits = inner(inputs[0]) if inner is not None else None
    elif activation_of(last) != "softmax":
        return None
    elif not getattr(last, "weights", ()):
        logits = inputs[0]
    else:
        # A layer with weights and a softmax activation: the same layer without the activation.
        linear = type(last).from_config(
            {**last.get_config(), "activation": "linear", "name": f"{last.name}_logits"}
        )
        logits = linear(inputs[0])
        linear.set_weights(last.get_weights())
    if logits is None:
        return None
    inputs = model.inputs[0] if len(model.inputs) == 1 else model.inputs
    return keras.Model(inputs, logits, name=f"{model.name}_logits")


def _gives_probabilities(teacher, images=4):
    """Whether every prediction on random images is a distribution."""
    if any(size is None for size in teacher.input_shape[1:]):
        raise InputError(
            f"the teacher {teacher.name!r} has no fixed input shape and cannot be tried: declare "
            f"teacher_outputs='logits' or 'probabilities'. Received: {teacher.input_shape}"
        )
    shape = (images, *teacher.input_shape[1:])
    noise = np.random.default_rng(0).random(shape, dtype="float32")
    predictions = ops.convert_to_numpy(teacher(noise, training=False)).astype("float64")
    sums = predictions.sum(axis=-1)
    return bool((predictions >= 0).all() and (abs(sums - 1) < 1e-3).all())
