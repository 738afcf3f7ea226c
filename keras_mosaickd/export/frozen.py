"""A student as one graph of constants, which other runtimes' converters start from."""

from __future__ import annotations

from typing import Any

import keras


def frozen(student: Any, batch_size: int | None) -> Any:
    """The student in float32 as a TensorFlow concrete function without variables.

    Args:
        student: Built Keras model on the TensorFlow backend.
        batch_size: Pictures in a prediction, or None for any number.

    Returns:
        Concrete function from the tensor ``picture`` to logits.
    """
    import tensorflow
    from tensorflow.python.framework import convert_to_constants

    student = _in_float32(student)
    signature = tensorflow.TensorSpec(
        (batch_size, *student.input_shape[1:]), "float32", name="picture"
    )
    function = tensorflow.function(lambda picture: student(picture, training=False))
    return convert_to_constants.convert_variables_to_constants_v2(
        function.get_concrete_function(signature)
    )


def _in_float32(student: Any) -> Any:
    """A copy that computes in float32: the runtimes know bfloat16 in part only.

    Its variables are on one device, wherever those of the original are. A model whose layers
    cannot be seen is left as it is.
    """
    if not isinstance(student, keras.Sequential) and not hasattr(student, "operations"):
        return student

    def copied(layer: Any) -> Any:
        return type(layer).from_config({**layer.get_config(), "dtype": "float32"})

    copy = keras.models.clone_model(student, clone_function=copied, recursive=True)
    copy.set_weights(student.get_weights())
    return copy
