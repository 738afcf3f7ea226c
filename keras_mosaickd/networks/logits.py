"""Any Keras classifier as a teacher that gives logits, or as a student that does.

The losses take logits. A softmax or sigmoid at the end is taken off where it can be seen. Where it
cannot, the logarithm of the probabilities (of labels the log odds) takes its place, whose softmax
(sigmoid) gives them again. Nothing is ever silently put through softmax twice.

It lies here and not with the teachers because students and the selection of images need it too.
"""

from itertools import zip_longest

import keras
import numpy as np
from keras import ops

from keras_mosaickd.backend.keras_graph import activation_of, producer
from keras_mosaickd.backend.operations import without_gradient
from keras_mosaickd.errors import InputError
from keras_mosaickd.networks.heads import HEADS, LabelLogits, head_of, log_odds

TEACHER_OUTPUTS = ("auto", "logits", "probabilities")
# Layers behind which logits are still logits, and a distribution would still be one.
_PASSING = (
    keras.layers.Resizing,
    keras.layers.Reshape,
    keras.layers.Flatten,
    keras.layers.UpSampling2D,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.Dropout,
    keras.layers.Identity,
)


@keras.saving.register_keras_serializable(package="keras_mosaickd")
class LogProbabilities(keras.layers.Layer):
    """Logits log(max(p, 1e-7)) for a teacher of which only the probabilities p can be had.

    Of one unit it is the probability of a binary classifier, and the logit is log(p / (1 - p)).
    """

    def __init__(self, **kwargs):
        # Float32 under every policy: 1 - p of a confident teacher is lost in 16 bits.
        super().__init__(**{"dtype": "float32", **kwargs})

    def call(self, probabilities):
        """Logits of the shape of `probabilities`."""
        if probabilities.shape[-1] == 1:
            return log_odds(probabilities)
        return ops.log(ops.maximum(probabilities, 1e-7))


def as_logits(teacher, outputs="auto", head="auto"):
    """Returns a model that gives the teacher's logits; the teacher itself is left as it is.

    Args:
        teacher: built Keras model from images to `[..., units]`.
        outputs: "logits" or "probabilities" declares what the teacher gives; "auto" looks: a last
            layer with softmax or sigmoid is recognised, and where the layers cannot be inspected
            the teacher is tried on random images.
        head: "classes" or "labels" declares what they are of, where softmax or sigmoid do not tell;
            "auto" takes logits for those of classes. One unit is a binary classifier always.

    Returns:
        `teacher` where it gives logits of classes already, else a new model that shares its layers.

    Raises:
        InputError: if an argument is none of these, or if it contradicts what is seen.
    """
    return recognized(teacher, outputs, head)[0]


def recognized(teacher, outputs="auto", head="auto"):
    """As `as_logits`, with a few words on what was recognised.

    Returns:
        The model, and text such as "10 classes (softmax)".
    """
    for name, value, known in (
        ("teacher_outputs", outputs, TEACHER_OUTPUTS),
        ("head", head, HEADS),
    ):
        if value not in known:
            raise InputError(f"{name} must be one of {', '.join(known)}. Received: {value!r}")
    teacher = with_shapes(teacher)
    model, activation, ending = _logits_of(teacher, outputs, head)
    units = model.output_shape[-1]
    seen = _told(teacher.name, activation, units, head)
    if activation == "softmax" and units == 1:
        raise InputError(
            "the teacher must have two classes or more. Received: "
            f"{teacher.name!r} with a softmax of one unit, which is always 1"
        )
    if (seen or head) != "labels" or units == 1:
        what = f"{units} classes" if units > 1 else "a binary classifier of one unit"
        return model, f"{what} ({ending})"
    if head_of(model).kind != "labels":
        model = keras.Model(model.inputs[0], LabelLogits()(model.outputs[0]), name=model.name)
    return model, f"{units} independent labels ({ending})"


def _told(name, activation, units, head):
    """What an activation tells of several units, "classes" or "labels"; None where there is none.

    Raises:
        InputError: if `head` says otherwise.
    """
    seen = {"softmax": "classes", "sigmoid": "labels"}.get(activation)
    if units > 1 and head != "auto" and seen not in (None, head):
        raise InputError(
            f"head (--head) must be {seen!r}, or 'auto', for {name!r}, which ends in "
            f"{activation}. Received: {head!r}"
        )
    return seen


def student_head(student, head="auto"):
    """What a student's answers are of: "classes" or "labels".

    Args:
        student: built Keras model, with a softmax or sigmoid at its end or without.
        head: "classes" or "labels", where they do not tell; "auto" takes logits for those of
            classes.

    Raises:
        InputError: if it is none of these, or contradicts how the student ends.
    """
    if head not in HEADS:
        raise InputError(f"head must be one of {', '.join(HEADS)}. Received: {head!r}")
    _, activation = _without_activation(student)
    seen = _told(student.name, activation, student.output_shape[-1], head)
    return seen or ("classes" if head == "auto" else head)


def _logits_of(teacher, outputs, head):
    """A model of the teacher's logits, the activation that was recognised, and how it ends."""
    stripped, activation = _without_activation(teacher)
    if stripped is not None:
        if outputs == "logits":
            raise InputError(
                f"teacher_outputs='logits' was declared, but the last layer of {teacher.name!r} is "
                f"a {activation}. Expected: 'probabilities' or 'auto'"
            )
        return stripped, activation, activation
    if head_of(teacher).kind == "labels":
        return teacher, "sigmoid", "logits"
    is_linear = outputs != "logits" and _is_linear(teacher)
    if outputs == "probabilities" and is_linear:
        raise InputError(
            f"teacher_outputs='probabilities' was declared, but the last layer of {teacher.name!r} "
            "is linear. Expected: 'logits' or 'auto'"
        )
    if outputs == "logits" or is_linear:
        return teacher, None, "logits"
    activation = _tried(teacher)
    if activation == "sigmoid" and head == "classes" and teacher.output_shape[-1] > 1:
        activation = "softmax"  # It was a guess.
    if activation is None and outputs == "probabilities":
        activation = "sigmoid" if head == "labels" else "softmax"
    if activation is None:
        return teacher, None, "logits"
    images = keras.Input(teacher.input_shape[1:])
    answers = teacher(images)
    is_labels = activation == "sigmoid" and answers.shape[-1] > 1
    layer = LabelLogits(from_probabilities=True) if is_labels else LogProbabilities()
    made = keras.Model(images, layer(answers), name=f"{teacher.name}_logits")
    return made, activation, f"probabilities, as of a {activation}"


def student_logits(student, shape, copies=False):
    """A student without its softmax or sigmoid, on its own layers.

    Args:
        student: built Keras model.
        shape: `(height, width, channels)` of the images, where the student takes any.
        copies: whether a last layer with weights and an activation may be copied: then the model
            in the caller's hands is not trained.

    Returns:
        The student itself where it gives logits, else a model that shares its layers.

    Raises:
        InputError: where it would take a copy that is not allowed, or its layers are not seen.
    """
    stripped, activation = _without_activation(student, copies)
    if stripped is not None:
        return stripped
    if activation is None and not _is_linear(student):
        activation = _tried(student, shape)
    if activation is None:
        return student
    raise InputError(
        f"the student must give logits. Received: {student.name!r}, which ends in {activation}: "
        f"leave activation={activation!r} away, or make it a layer of its own"
    )


def with_shapes(model, output=""):
    """A model whose shapes are known, and whose one output is a tensor.

    A subclassed model is put inside a functional one; of a dict of one output that is taken; any
    other model stays as it is.

    Args:
        model: Keras model.
        output: name of the one of several outputs to take: the key of a dict, or its position.

    Raises:
        InputError: if it was never called, or has several outputs.
    """
    if not isinstance(model, keras.Model):
        return model
    if hasattr(model, "input_shape"):
        given = getattr(model, "output", None)
        if not isinstance(given, dict) or len(given) > 1:
            return model
        inputs = model.inputs[0] if len(model.inputs) == 1 else model.inputs
        return keras.Model(inputs, one_output(given, output, model.name), name=model.name)
    shape = (model.get_build_config() or {}).get("input_shape")
    if not model.built or shape is None:
        raise InputError(
            f"expected a built model. Received: {model.name!r}: call it on a batch first"
        )
    images = keras.Input(tuple(shape[1:]))
    return keras.Model(images, one_output(model(images), output, model.name), name=model.name)


def one_output(outputs, chosen, source):
    """The one tensor to take of what a network gives: a tensor, a list or a dict.

    Args:
        outputs: what it gives.
        chosen: key or position of the one to take; may be empty where there is one.
        source: the network's name, for messages.

    Raises:
        InputError: naming them, if there are several and none is chosen, or if it is not there.
    """
    if isinstance(outputs, tuple | list):
        outputs = {str(index): output for index, output in enumerate(outputs)}
    known = outputs if isinstance(outputs, dict) else {"": outputs}
    if chosen in known or (not chosen and len(known) == 1):
        return known[chosen] if chosen in known else next(iter(known.values()))
    names = ", ".join(filter(None, sorted(known))) or "(it has one, without a name)"
    raise InputError(
        f"--teacher_output must be one of the outputs of {source}: {names}. "
        f"Received: {chosen or 'none'}"
    )


def _last_call(model):
    """The call that gives a model's only output; None where it is hidden."""
    outputs = getattr(model, "outputs", None) or []
    return producer(outputs[0]) if len(outputs) == 1 else None


def _is_linear(model):
    """Whether the last layer is seen to be a plain one with a bias, whose sums nothing fixes.

    It saves trying the teacher, which on JAX compiles every one of its layers.
    """
    found = _last_call(model)
    while found is not None and isinstance(found.layer, _PASSING):
        found = producer(found.inputs[0])
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


def _without_activation(model, copies=True):
    """The model up to its final softmax or sigmoid, on the same layers, and which of the two.

    None for the activation where there is none to see, and for the model where there is none or
    where it would take a copy of a layer's weights and `copies` is False.
    """
    found = _last_call(model)
    if found is None:
        return None, None
    last, inputs = found.layer, found.inputs
    if isinstance(last, keras.Model):
        inner, activation = _without_activation(last, copies)
        logits = None if inner is None else inner(inputs[0])
    else:
        activation = activation_of(last)
        if activation not in ("softmax", "sigmoid"):
            return None, None
        logits = None
        if not getattr(last, "weights", ()):
            logits = inputs[0]
        elif copies:
            linear = type(last).from_config(
                {**last.get_config(), "activation": "linear", "name": f"{last.name}_logits"}
            )
            logits = linear(inputs[0])
            linear.set_weights(last.get_weights())
    if logits is None:
        return None, activation
    inputs = model.inputs[0] if len(model.inputs) == 1 else model.inputs
    return keras.Model(inputs, logits, name=f"{model.name}_logits"), activation


@without_gradient
def _tried(model, shape=None):
    """What a model's answers to random images are: of a "softmax", of a "sigmoid", or None.

    The images reach far beyond their range, where logits leave that of probabilities.
    """
    shape = [own or given for own, given in zip_longest(model.input_shape[1:], shape or ())]
    if None in shape:
        raise InputError(
            f"the model {model.name!r} has no fixed input shape and cannot be tried: declare "
            f"teacher_outputs='logits' or 'probabilities'. Received: {model.input_shape}"
        )
    noise = np.random.default_rng(0).random((4, *shape), dtype="float32")
    noise = np.concatenate([noise * scale for scale in (1, -10, 100, 1000)])
    answers = model(noise, training=False)
    # Sums of probabilities that were rounded to 16 bits are this far from 1.
    is_rounded = keras.backend.standardize_dtype(answers.dtype) in ("bfloat16", "float16")
    tolerance = 2e-2 if is_rounded else 1e-3
    answers = ops.convert_to_numpy(answers).astype("float64")
    # What the model cannot compute out there says nothing.
    answers = answers[np.isfinite(answers.reshape(len(answers), -1)).all(axis=1)]
    if not ((answers >= 0) & (answers <= 1)).all() or not answers.any():
        return None
    sums = answers.sum(axis=-1)
    return "softmax" if answers.shape[-1] > 1 and (abs(sums - 1) < tolerance).all() else "sigmoid"
