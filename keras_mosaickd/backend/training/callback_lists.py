"""Callbacks that are told of a step without waiting for the device to finish it."""

import keras


class QuietCallbacks(keras.callbacks.CallbackList):
    """A `CallbackList` that hands on the logs of a step as the device has them.

    Keras makes numbers of all of them in every step, for whoever might want one, and so the host
    waits for each step before it gives out the next. Who wants one here takes it by `float`. The
    logs of epochs and of evaluation are numbers as ever.
    """

    def on_train_batch_end(self, batch, logs=None):
        """Calls all callbacks; the values of `logs` are tensors."""
        for callback in self.callbacks:
            callback.on_train_batch_end(batch, logs=logs)


def with_first(callback, callbacks):
    """What `fit` was given as callbacks, with one before them.

    Args:
        callback: the one.
        callbacks: a callback, a list of them, a `CallbackList`, or None.
    """
    if not isinstance(callbacks, keras.callbacks.CallbackList):
        return [callback, *keras.tree.flatten(callbacks or [])]
    callback.set_model(callbacks.model)
    callback.set_params(callbacks.params)
    callbacks.callbacks.insert(0, callback)
    return callbacks
