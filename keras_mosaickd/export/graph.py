"""A student as one float32 graph, which other runtimes' converters start from."""

from __future__ import annotations

from typing import Any

import keras


def graph(student: Any, batch_size: int | None) -> tuple[Any, Any]:
    """The student in float32 as a TensorFlow concrete function.

    Args:
        student: Built Keras model on the TensorFlow backend.
        batch_size: Images in a prediction, or None for any number.

    Returns:
        Concrete function from ``picture`` to ``logits``, and the module that owns its variables,
        which lives no longer than it is held.
    """
    import tensorflow

    student = _in_float32(student)
    owner = tensorflow.Module()
    owner.variables_of_student = [variable.value for variable in student.variables]
    function = tensorflow.function(lambda picture: {"logits": student(picture, training=False)})
    shape = (batch_size, *student.input_shape[1:])
    signature = tensorflow.TensorSpec(shape, "float32", name="picture")
    return function.get_concrete_function(signature), owner


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
