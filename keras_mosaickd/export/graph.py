"""A student as one float32 graph, which other runtimes' converters start from."""

from __future__ import annotations

from typing import Any

import keras

from keras_mosaickd.export.comparison import ExportError


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
        config = layer.get_config()
        if "dtype" in config:
            config["dtype"] = "float32"
        try:
            return type(layer).from_config(config)
        except (TypeError, ValueError) as error:
            raise ExportError(
                f"expected layers that from_config makes again from what get_config gives. "
                f"Received: {layer.name!r}, a {type(layer).__name__} ({str(error).splitlines()[0]})"
            ) from error

    # That of a layer whose configuration does not say.
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        copy = keras.models.clone_model(student, clone_function=copied, recursive=True)
    finally:
        keras.config.set_dtype_policy(before)
    copy.set_weights(student.get_weights())
    return copy
