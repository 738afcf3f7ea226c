"""Models of the user's own: a `.keras` file, a directory of a SavedModel, or a function.

A `.keras` file is loaded in Keras's safe mode, so that no code in it is run. A SavedModel and a
function are run because the user named them.
"""

import importlib
import inspect
import os
import re
import sys

import keras

from keras_mosaickd.errors import InputError
from keras_mosaickd.files import file_sha256
from keras_mosaickd.networks.loading import load_model
from keras_mosaickd.teachers.saved_model_layer import folder_hash, is_saved_model, saved_model

_NAME = r"[A-Za-z_]\w*"
_FUNCTION = re.compile(rf"{_NAME}(\.{_NAME})*:{_NAME}")


def is_given(text):
    """Whether a flag names a model of the user's rather than a network of this package."""
    return (
        text.endswith(".keras")
        or os.sep in text
        or _FUNCTION.fullmatch(text) is not None
        or is_saved_model(text)
    )


def load(text, flag, **arguments):
    """Loads or makes the model that a flag names.

    Args:
        text: the path of a `.keras` file or of a SavedModel's directory, or `module:function`:
            a function that returns a Keras model, of a module that can be imported from the
            working directory.
        flag: the flag, for messages.
        **arguments: what the function is given, as far as it has parameters of these names.

    Returns:
        Built `keras.Model` with one input `[batch, height, width, channels]` and one output.

    Raises:
        InputError: if there is no such model or it cannot be used.
    """
    if _FUNCTION.fullmatch(text) and not os.path.exists(text):
        return _checked(_made(text, flag, arguments), text, flag)
    if is_saved_model(text):
        return _checked(saved_model(text), text, flag)
    if not os.path.isfile(text):
        is_path = text.endswith(".keras") or os.sep in text
        missing = ": no such file" if is_path and not os.path.exists(text) else ""
        raise InputError(
            f"{flag} must be a network's name, a .keras file, the directory of a SavedModel, or "
            f"module:function. Received: {text}{missing}"
        )
    return _checked(load_model(text, flag), text, flag)


def file_hash(text):
    """SHA-256 of the file or the SavedModel; None for a function."""
    if is_saved_model(text):
        return folder_hash(text)
    if not os.path.isfile(text):
        return None
    return file_sha256(text)


def _made(text, flag, arguments):
    module, _, name = text.partition(":")
    # Named by the user, so that what lies in the working directory may be imported.
    sys.path.insert(0, os.getcwd())
    try:
        function = getattr(importlib.import_module(module), name)
        accepted = inspect.signature(function).parameters
        model = function(**{key: arguments[key] for key in arguments if key in accepted})
    except Exception as error:
        raise InputError(
            f"{flag} must be module:function, which returns a Keras model. Received: {text}, "
            f"which failed: {type(error).__name__}: {_reason(error)}"
        ) from error
    finally:
        sys.path.remove(os.getcwd())
    if isinstance(model, keras.Model) and model.built:
        _check_saving(model, text, flag)
    return model


def _check_saving(model, text, flag):
    """Tries now what every checkpoint needs: a config that safe mode makes a model of again."""
    try:
        config = keras.saving.serialize_keras_object(model)
        keras.saving.deserialize_keras_object(config, safe_mode=True)
    except Exception as error:
        raise InputError(
            f"{flag} must be a model that Keras can save and load in safe mode (no Lambda layer; "
            "own layers registered with keras.saving.register_keras_serializable). "
            f"Received: {text}: {_reason(error)}"
        ) from error


def _checked(model, text, flag):
    if not isinstance(model, keras.Model):
        raise InputError(f"{flag} must be a Keras model. Received: {text}, {type(model).__name__}")
    try:
        shapes = model.input_shape, model.output_shape
    except (AttributeError, ValueError):
        shapes = None, None
    if not all(isinstance(s, tuple) and s and not isinstance(s[0], tuple) for s in shapes):
        raise InputError(
            f"{flag} must be a built Keras model with one input and one output. Received: {text}, "
            f"whose shapes are {shapes[0]} and {shapes[1]}"
        )
    if len(shapes[0]) != 4:
        raise InputError(
            f"{flag} must take images [batch, height, width, channels]. Received: {text} with "
            f"input {shapes[0]}"
        )
    return model


def _reason(error):
    return " ".join(str(error).split())[:300]
