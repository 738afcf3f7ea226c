"""What all networks share: the image input, padding, initialisers and BatchNorm constants."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence

from keras import Input, KerasTensor, backend, initializers, layers

from keras_mosaickd.errors import InputError

# The constants of the PyTorch recipes (Keras's defaults are 0.99 and 1e-3): with 0.99 the moving
# statistics would still hold the initial values after the few hundred steps of a small run.
BATCH_NORM_MOMENTUM = 0.9
BATCH_NORM_EPSILON = 1e-5
LEAKY_SLOPE = 0.2

Statistic = float | Sequence[float] | None


def batch_normalization(
    name: str | None = None, synchronized: bool = False
) -> layers.BatchNormalization:
    """BatchNormalization with the constants of the papers' recipes.

    Args:
        name: Name of the layer.
        synchronized: Reduce the batch statistics over all replicas. The TensorFlow backend only:
            on JAX a batch that is sharded over devices is one batch anyway.

    Raises:
        InputError: If `synchronized` is asked for on another backend.
    """
    if synchronized and backend.backend() != "tensorflow":
        raise InputError(
            "expected synchronized batch normalization to be off, or KERAS_BACKEND=tensorflow."
            f" Received: KERAS_BACKEND={backend.backend()}"
        )
    return layers.BatchNormalization(
        momentum=BATCH_NORM_MOMENTUM,
        epsilon=BATCH_NORM_EPSILON,
        synchronized=synchronized,
        name=name,
    )


def he_normal_fan_out() -> initializers.Initializer:
    """Normal of variance 2 / fan_out (He et al. 2015), not truncated, as the ResNet papers use."""
    return initializers.VarianceScaling(2.0, mode="fan_out", distribution="untruncated_normal")


def pytorch_default() -> initializers.Initializer:
    """PyTorch's default for kernels of Linear and Conv2d: uniform in ±1/sqrt(fan_in)."""
    return initializers.VarianceScaling(1 / 3, mode="fan_in", distribution="uniform")


def pytorch_default_bias(fan_in: int) -> initializers.Initializer:
    """PyTorch's default for biases: uniform in ±1/sqrt(fan_in) of the kernel beside it."""
    limit = 1 / math.sqrt(fan_in)
    return initializers.RandomUniform(-limit, limit)


def convolution(
    x: KerasTensor,
    filters: int,
    kernel_size: int,
    strides: int = 1,
    *,
    name: str,
    use_bias: bool = False,
    padding: int | None = None,
    dilation: int = 1,
    kernel_initializer: initializers.Initializer | str | None = None,
    bias_initializer: initializers.Initializer | str = "zeros",
    dtype: str | None = None,
) -> KerasTensor:
    """A convolution that pads both sides alike, as PyTorch does.

    Keras's "same" pads a strided convolution on the lower right only, which moves every feature
    map by half a pixel against the published networks. A bias is left out unless asked for,
    because nearly every convolution here is followed by BatchNorm, where a bias has no gradient.

    Args:
        x: [B, h, w, c].
        filters: Output channels.
        kernel_size: Height and width of the kernel.
        strides: Stride of both axes.
        name: Name of the convolution; its padding layer is called `<name>_pad`.
        use_bias: Whether there is a bias.
        padding: Zeros added on every side; (kernel_size - 1) // 2 if None.
        dilation: Dilation of both axes (with stride 1 only).
        kernel_initializer: He normal (fan-out) if None.
        bias_initializer: Initialiser of the bias.
        dtype: dtype policy of the convolution; the global one if None.
    """
    if padding is None:
        padding = (kernel_size - 1) // 2
    keeps_size = strides == 1 and kernel_size == 2 * padding + 1
    if padding and not keeps_size:
        x = layers.ZeroPadding2D(padding, name=f"{name}_pad")(x)
    return layers.Conv2D(
        filters,
        kernel_size,
        strides=strides,
        padding="same" if keeps_size else "valid",
        dilation_rate=dilation,
        use_bias=use_bias,
        kernel_initializer=kernel_initializer or he_normal_fan_out(),
        bias_initializer=bias_initializer,
        name=name,
        dtype=dtype,
    )(x)


def depthwise_convolution(x: KerasTensor, strides: int = 1, *, name: str) -> KerasTensor:
    """A 3×3 convolution per channel without bias, padded like `convolution`."""
    if strides > 1:
        x = layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
    return layers.DepthwiseConv2D(
        3,
        strides=strides,
        padding="same" if strides == 1 else "valid",
        use_bias=False,
        depthwise_initializer=he_normal_fan_out(),
        name=name,
    )(x)


def logits_head(x: KerasTensor, classes: int) -> KerasTensor:
    """Global average pooling and a Dense layer: [B, h, w, c] -> [B, classes], always float32."""
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return layers.Dense(
        classes, kernel_initializer=pytorch_default(), dtype="float32", name="logits"
    )(x)


def pixel_logits_head(x: KerasTensor, classes: int, images: KerasTensor) -> KerasTensor:
    """1×1 logits scaled up bilinearly to the images' size: [B, H, W, classes], always float32."""
    x = convolution(
        x,
        classes,
        1,
        name="pixel_logits",
        use_bias=True,
        kernel_initializer=pytorch_default(),
        dtype="float32",
    )
    height, width = images.shape[1:3]
    return layers.Resizing(height, width, interpolation="bilinear", dtype="float32", name="logits")(
        x
    )


def image_input(
    input_shape: Sequence[int], mean: Statistic = None, std: Statistic = None
) -> tuple[KerasTensor, KerasTensor]:
    """The input of a network that judges images, and the normalised images.

    Args:
        input_shape: (h, w, c).
        mean: Mean of the teacher's training images, in [0, 1]: one number or one per channel.
        std: Their standard deviation, likewise. With neither, images stay as they are.

    Returns:
        The input [B, h, w, c] float32 in [0, 1], and what the first convolution sees.
    """
    shape = check_image_shape(input_shape)
    inputs = Input(shape, dtype="float32", name="picture")
    if mean is None and std is None:
        return inputs, inputs
    if mean is None or std is None:
        raise InputError(f"expected both mean and std, or neither. Received: {mean=}, {std=}")
    means = _per_channel("mean", mean, shape[2])
    stds = _per_channel("std", std, shape[2])
    if min(stds) <= 0:
        raise InputError(f"expected every std to be above 0. Received: {std=}")
    # float32 whatever the policy: a mean rounded to bfloat16 would shift every image.
    normalization = layers.Normalization(
        axis=-1,
        mean=means,
        variance=[value * value for value in stds],
        dtype="float32",
        name="normalization",
    )
    return inputs, normalization(inputs)


def check_image_shape(shape: Sequence[int], flag: str = "--image_size") -> tuple[int, int, int]:
    """Returns (h, w, c) as plain integers, or raises InputError if it is no image's shape."""
    shape = tuple(shape)
    if len(shape) != 3 or not all(
        isinstance(side, numbers.Integral) and side > 0 for side in shape
    ):
        raise InputError(
            f"{flag}: expected an image shape (height, width, channels) of three positive"
            f" integers. Received: {shape}"
        )
    height, width, channels = (int(side) for side in shape)
    return height, width, channels


def check_classes(classes: int) -> int:
    """Returns the number of classes, or raises InputError if there is nothing to tell apart."""
    if not isinstance(classes, numbers.Integral) or classes < 2:
        raise InputError(f"expected at least 2 classes. Received: {classes}")
    return int(classes)


def scalings(shape: Sequence[int]) -> int:
    """Number of up- or down-samplings between an image and the 8×8-like map of a GAN.

    n = max(2, round(log2(min(h, w) / 8))): 2 for 32×32 (tables 2 and 3 of the supplement), one
    more each time the side doubles.

    Raises:
        InputError: If the height or the width is not divisible by 2**n; says which sizes are.
    """
    height, width, _ = check_image_shape(shape)
    count = _scalings_of_side(min(height, width))
    if height % 2**count or width % 2**count:
        raise InputError(
            f"--image_size: expected a height and width divisible by {2**count} (the generator and"
            f" the discriminator scale {count} times by 2), for a square image for example"
            f" {_nearest_sizes(min(height, width))}. Received: {height}x{width}"
        )
    return count


def _scalings_of_side(side: int) -> int:
    return max(2, round(math.log2(side / 8)))


def _nearest_sizes(side: int) -> str:
    def works(candidate: int) -> bool:
        return candidate % 2 ** _scalings_of_side(candidate) == 0

    below = [size for size in range(4, side + 1) if works(size)][-1:]
    above = next(size for size in range(max(side, 4) + 1, 4 * side + 9) if works(size))
    return " or ".join(str(size) for size in [*below, above])


def _per_channel(name: str, values: Statistic, channels: int) -> list[float]:
    if isinstance(values, numbers.Real):
        return [float(values)] * channels
    numbers_ = [float(value) for value in values]  # type: ignore[union-attr]
    if len(numbers_) == 1:
        return numbers_ * channels
    if len(numbers_) != channels:
        raise InputError(
            f"expected {name} to hold one number or one per channel ({channels})."
            f" Received: {numbers_}"
        )
    return numbers_
