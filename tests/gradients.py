"""Gradients of a function of one array, on the backend of this process."""

import keras
import numpy as np


def gradient(function, logits):
    """Gradient of a scalar function of one array, on the backend of this process."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        x = tf.constant(logits)
        with tf.GradientTape() as tape:
            tape.watch(x)
            result = function(x)
        return tape.gradient(result, x).numpy()
    if backend == "jax":
        import jax

        return np.asarray(jax.grad(function)(jax.numpy.asarray(logits)))
    import torch

    x = torch.tensor(logits, requires_grad=True)
    function(x).backward()
    return x.grad.numpy()
