"""A few operations in the backend's fastest form, where Keras's take more passes over memory.

All but the last five take and give `[batch, height, width, channels]`, in the dtype of `inputs`.

- `convolution(inputs, kernel, bias, strides, padding, dilation_rate)`: as `keras.ops.conv`;
  `bias` may be None.
- `doubling_convolution(inputs, kernel)`: zeros are put between the pixels of `inputs`, so that it
  is twice as high and wide, and the result is correlated with `kernel` `[4, 4, in, out]`, whose
  third row and column lie on the pixel itself (a transposed convolution with the mirrored kernel).
- `batch_norm(inputs, gamma, beta, epsilon)`: normalises by the batch; returns `(outputs, mean,
  variance)`, the variance biased as in Keras.
- `fixed_batch_norm(inputs, mean, variance, gamma, beta, epsilon)`: normalises by given statistics.
- `relu(inputs, may_overwrite)`, `leaky_relu(inputs, negative_slope, may_overwrite)`: may_overwrite
  says that nobody else sees `inputs`.
- `uses(value, count)`: a tuple of `value` for each of its uses, whose gradients are added up in
  this order. It is for what a gradient reaches on three ways or more.
- `moments(inputs, axes)`: mean over some axes, and mean of the squares.
- `splits_batches()`: whether this process sees a part of every batch only, so that `batch_norm`
  exchanges moments with the others; then its inputs may be `[batch, ..., channels]` of any rank.
- `without_gradient(function)`: decorates a function that runs networks to look at what they give:
  nothing that a gradient would need is kept.
- `placing()`: gives a function that lays a tuple of numpy arrays on the device of the thread that
  calls `placing`, so that a step finds them there; it may be called in another thread.
"""

import keras

if keras.backend.backend() == "tensorflow":
    from keras_mosaickd.backend.operations.tensorflow import (
        batch_norm,
        convolution,
        doubling_convolution,
        fixed_batch_norm,
        leaky_relu,
        moments,
        placing,
        relu,
        splits_batches,
        uses,
        without_gradient,
    )
elif keras.backend.backend() == "jax":
    from keras_mosaickd.backend.operations.jax import (
        batch_norm,
        convolution,
        doubling_convolution,
        fixed_batch_norm,
        leaky_relu,
        moments,
        placing,
        relu,
        splits_batches,
        uses,
        without_gradient,
    )
else:
    from keras_mosaickd.backend.operations.torch import (
        batch_norm,
        convolution,
        doubling_convolution,
        fixed_batch_norm,
        leaky_relu,
        moments,
        placing,
        relu,
        splits_batches,
        uses,
        without_gradient,
    )

__all__ = [
    "batch_norm",
    "convolution",
    "doubling_convolution",
    "fixed_batch_norm",
    "leaky_relu",
    "moments",
    "placing",
    "relu",
    "splits_batches",
    "uses",
    "without_gradient",
]
