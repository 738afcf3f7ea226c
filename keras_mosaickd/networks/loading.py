"""Keras files that others wrote: nothing in them is run."""

import keras

from keras_mosaickd.errors import InputError


def load_model(path, what, compile=False):
    """Loads a `.keras` file in Keras's safe mode.

    Layers and functions of Keras and of this package are known, those of others only where the
    calling process registered them by name (`keras.saving.register_keras_serializable`). Lambda
    layers, which are code, are refused.

    Args:
        path: the file.
        what: how a message names the file, such as "--teacher".
        compile: whether the optimizers are loaded too.

    Returns:
        The model.

    Raises:
        InputError: if it cannot be loaded; one line, with Keras's reason.
    """
    try:
        return keras.saving.load_model(path, compile=compile, safe_mode=True)
    except Exception as error:  # Keras lets many kinds through, down to those of zip and HDF5.
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        if len(reason) > 300:
            reason = f"{reason[:300]}..."
        raise InputError(
            f"{what} must be a .keras file that Keras loads in its safe mode. "
            f"Received: {path} ({reason})"
        ) from error
