"""Operations on JAX, where XLA makes one loop of what follows each other; see the package."""

from keras import ops


def without_gradient(function):
    """Nothing to do: nothing is recorded that was not asked for."""
    return function


def splits_batches():
    """No: the program is written for the global batch."""
    return False


def placing():
    """Keras lays them there, one step ahead on a GPU, and divides them among several devices."""
    return tuple


def uses(value, count):
    """The order is fixed here."""
    return (value,) * count


def moments(inputs, axes):
    """As Keras's."""
    return ops.mean(inputs, axis=axes), ops.mean(ops.square(inputs), axis=axes)


def convolution(inputs, kernel, bias, strides, padding, dilation_rate):
    """As Keras's."""
    outputs = ops.conv(inputs, kernel, strides, padding, "channels_last", dilation_rate)
    return outputs if bias is None else ops.add(outputs, bias)


def doubling_convolution(inputs, kernel):
    """A 2×2 convolution with four times the filters, which are then the 2×2 pixels of the result.

    XLA's gradient of a transposed convolution takes 10 times as long on a CPU.
    """
    filters = kernel.shape[3]
    corners = [kernel[row::2, column::2] for row in (0, 1) for column in (0, 1)]
    x = ops.pad(inputs, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = inputs.shape[1:3]
    x = convolution(x, ops.concatenate(corners, axis=-1), None, (1, 1), "valid", (1, 1))
    x = ops.reshape(x, (-1, height + 1, width + 1, 2, 2, filters))
    # Even rows of the result begin one pixel earlier than odd ones; columns likewise.
    x = ops.stack(
        [
            ops.stack([x[:, a : a + height, b : b + width, a, b] for b in (0, 1)], axis=3)
            for a in (0, 1)
        ],
        axis=2,
    )
    return ops.reshape(x, (-1, 2 * height, 2 * width, filters))


def batch_norm(inputs, gamma, beta, epsilon):
    """In float32."""
    wide = ops.cast(inputs, "float32")
    mean, variance = ops.moments(wide, axes=(0, 1, 2))
    outputs = ops.batch_normalization(
        wide, mean, variance, axis=-1, offset=beta, scale=gamma, epsilon=epsilon
    )
    return ops.cast(outputs, inputs.dtype), mean, variance


def fixed_batch_norm(inputs, mean, variance, gamma, beta, epsilon):
    """One multiplication and one addition."""
    scale = gamma * ops.rsqrt(variance + epsilon)
    shift = beta - mean * scale
    return inputs * ops.cast(scale, inputs.dtype) + ops.cast(shift, inputs.dtype)


def relu(inputs, may_overwrite):
    """As Keras's; XLA sees for itself what it may overwrite."""
    return ops.relu(inputs)


def leaky_relu(inputs, negative_slope, may_overwrite):
    """As Keras's."""
    return ops.leaky_relu(inputs, negative_slope)
