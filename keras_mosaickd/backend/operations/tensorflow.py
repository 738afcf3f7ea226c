"""Operations on TensorFlow; see `keras_mosaickd.backend.operations`."""

import keras
import tensorflow as tf


def without_gradient(function):
    """Nothing to do: nothing is recorded that was not asked for."""
    return function


def splits_batches():
    """No: replicas have layers of their own, which are synchronized."""
    return False


def placing():
    """tf.data lays them there."""
    return tuple


def uses(value, count):
    """Sums of two, that TensorFlow does not put together.

    Its sum of three or more begins with the one whose memory it may overwrite: which one that is
    depends on what has been executed before, and that order changes while a program runs, so that
    the same step would give other last bits. A sum of two is the same either way.
    """

    @tf.custom_gradient
    def fan_out(value):
        def gradient(*upstream):
            total = upstream[0]
            for more in upstream[1:]:
                # Grappler makes one sum of a chain of them, and looks through an identity.
                total = tf.ensure_shape(total + more, total.shape)
            return total

        return (tf.identity(value),) * count, gradient

    return fan_out(value)


def moments(inputs, axes):
    """With one gradient for both, in two passes over memory."""

    @tf.custom_gradient
    def both(inputs):
        mean = tf.reduce_mean(inputs, axes, keepdims=True)
        square = tf.reduce_mean(tf.square(inputs), axes, keepdims=True)
        count = tf.cast(tf.size(inputs) // tf.size(mean), inputs.dtype)

        def gradient(by_mean, by_square):
            return inputs * (2 * by_square / count) + by_mean / count

        return (mean, square), gradient

    return tuple(tf.squeeze(moment, axes) for moment in both(inputs))


def convolution(inputs, kernel, bias, strides, padding, dilation_rate):
    """As Keras's."""
    outputs = keras.ops.conv(inputs, kernel, strides, padding, "channels_last", dilation_rate)
    return outputs if bias is None else keras.ops.add(outputs, bias)


def doubling_convolution(inputs, kernel):
    """One operation."""
    batch, height, width, _ = tf.unstack(tf.shape(inputs))
    mirrored = tf.transpose(tf.reverse(kernel, (0, 1)), (0, 1, 3, 2))
    shape = (batch, 2 * height, 2 * width, kernel.shape[3])
    return tf.nn.conv2d_transpose(inputs, mirrored, shape, strides=2, padding="SAME")


def batch_norm(inputs, gamma, beta, epsilon):
    """One operation, where Keras's take six passes and a cast."""
    outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=inputs, scale=gamma, offset=beta, mean=[], variance=[], epsilon=epsilon, is_training=True
    )
    # It returns the unbiased variance; Keras's moving variance is the mean of the biased ones.
    count = tf.cast(tf.size(inputs) // tf.size(mean), variance.dtype)
    return outputs, mean, variance * (count - 1) / count


def fixed_batch_norm(inputs, mean, variance, gamma, beta, epsilon):
    """One operation; in bfloat16 it keeps the statistics in float32."""
    return tf.raw_ops.FusedBatchNormV3(
        x=inputs,
        scale=gamma,
        offset=beta,
        mean=mean,
        variance=variance,
        epsilon=epsilon,
        is_training=False,
    ).y


def relu(inputs, may_overwrite):
    """As TensorFlow's, which sees for itself what it may overwrite."""
    return tf.nn.relu(inputs)


def leaky_relu(inputs, negative_slope, may_overwrite):
    """Written out.

    TensorFlow fuses a convolution, its bias and its own LeakyRelu although their gradient needs
    what lies between, finds the graph broken, and then leaves all of it unoptimised.
    """
    return tf.maximum(inputs, inputs * tf.cast(negative_slope, inputs.dtype))
