"""The generator and the discriminators (tables 2 and 3 of the supplement, and the authors' code).

| | paper | official |
|---|---|---|
| generator's stem | Linear, 128 channels, BN, LeakyReLU | Linear, 256 channels, BN, no activation |
| trunk of the discriminator | 3×3, stride 2, BN | 4×4, stride 2, BN in all but the first |
| its channels at 32×32 | 64, 128 | 128, 256 |
| its last convolution | 3×3 with bias | 1×1 without bias |
| receptive field of its logits at 32×32 | 15 pixels | 10 pixels |
| initialiser | Glorot uniform | PyTorch's default, uniform in ±1/sqrt(fan_in) |

All: LeakyReLU slope 0.2, no bias in a convolution that BatchNorm follows.
"""

import math

import keras
from keras import layers

from keras_mosaickd.backend.initial_values import drawn_quickly
from keras_mosaickd.errors import InputError
from keras_mosaickd.networks.layers import (
    batch_normalization,
    check_image_shape,
    convolution,
    image_input,
    pytorch_default,
    pytorch_default_bias,
)

PRESETS = ("paper", "official")
REGULARIZERS = ("patch", "image")
OVERLAP_STRIDES = (1, 2, 3, 4)


@drawn_quickly
def generator(
    output_shape,
    latent_dim=100,
    preset="paper",
    name="generator",
    synchronized_batch_norm=False,
):
    """Builds G: a linear stem, then nearest up-sampling and 3×3 convolutions.

    For 32×32 the channels are 128 → 128 → 64 (`paper`) or 256 → 128 → 64 (`official`); for larger
    images, further convolutions of 128 channels come first, one per doubling of the side. The last
    convolution has a bias. The stem keeps its bias, since the BatchNorm after it is per channel and
    the bias is per position.

    Args:
        output_shape: `(height, width, channels)` of the images, the sides divisible by 2**n (see
            `scalings`).
        latent_dim: length of z, at least 1.
        preset: "paper" (the supplement's table 2) or "official" (the authors' code).
        name: name of the model.
        synchronized_batch_norm: see `batch_normalization`.

    Returns:
        A model from z `[batch, latent_dim]`, drawn from N(0, I), to images `[batch, height, width,
        channels]` in [0, 1], float32.

    Raises:
        InputError: if the size, the latent dimension or the preset cannot be used.
    """
    _check("--preset", preset, PRESETS)
    if latent_dim < 1:
        raise InputError(f"expected latent_dim to be at least 1. Received: {latent_dim}")
    count = scalings(output_shape)
    height, width, channels = output_shape
    base = (height // 2**count, width // 2**count, 128 if preset == "paper" else 256)

    def activated(x, label, activation_label):
        x = batch_normalization(label, synchronized_batch_norm)(x)
        return layers.LeakyReLU(negative_slope=0.2, name=activation_label)(x)

    inputs = keras.Input((latent_dim,), dtype="float32", name="latent")
    stem = layers.Dense(math.prod(base), name="stem_dense", **_initial(preset, latent_dim))
    x = layers.Reshape(base, name="stem_reshape")(stem(inputs))
    if preset == "paper":
        x = activated(x, "stem_bn", "stem_leaky_relu")
    else:
        x = batch_normalization("stem_bn", synchronized_batch_norm)(x)
    for step, filters in enumerate([128] * (count - 1) + [64], start=1):
        x = layers.UpSampling2D(2, interpolation="nearest", name=f"up{step}")(x)
        x = convolution(x, filters, 3, name=f"conv{step}", **_initial(preset, 9 * x.shape[-1]))
        x = activated(x, f"bn{step}", f"leaky_relu{step}")
    last = {"name": "picture_conv", "use_bias": True, "dtype": "float32"}
    x = convolution(x, channels, 3, **last, **_initial(preset, 9 * x.shape[-1]))
    outputs = layers.Activation("sigmoid", dtype="float32", name="picture")(x)
    return keras.Model(inputs, outputs, name=name)


@drawn_quickly
def discriminator(
    input_shape,
    preset="paper",
    regularizer="patch",
    overlap_stride=1,
    mean=None,
    std=None,
    name="discriminator",
    synchronized_batch_norm=False,
):
    """Builds D: real or made up, one logit per patch or one for the whole image.

    Every convolution but the last has one zero of padding on every side. Larger images get further
    strided convolutions of 128 (256) channels. A strided convolution of 1×1 is the same as slicing
    its map [::stride, ::stride].

    Args:
        input_shape: `(height, width, channels)` of the images, the sides divisible by 2**n (see
            `scalings`).
        preset: "paper" (the supplement's table 3) or "official" (the authors' code).
        regularizer: "patch", or "image": the same trunk, then 3×3 convolutions of stride 2 down
            to 1×1, and one logit.
        overlap_stride: stride of the last convolution, 1 to 4: the larger, the fewer patches and
            the less they overlap (the supplement's table 4). 1 for "image".
        mean: mean of the teacher's training images, one number or one per channel, or None.
        std: their standard deviation, likewise.
        name: name of the model.
        synchronized_batch_norm: see `batch_normalization`.

    Returns:
        A model from images `[batch, height, width, channels]` in [0, 1] to float32 logits `[batch,
        height', width', 1]`: 8×8, 4×4, 3×3, 2×2 for 32×32 images and overlap stride 1, 2, 3, 4; 1×1
        for "image".

    Raises:
        InputError: if one of the arguments cannot be used.
    """
    _check("--preset", preset, PRESETS)
    _check("--regularizer", regularizer, REGULARIZERS)
    _check("--overlap_stride", overlap_stride, OVERLAP_STRIDES)
    if regularizer == "image" and overlap_stride != 1:
        raise InputError(
            "--overlap_stride must be 1 with --regularizer=image, which has no patches. "
            f"Received: {overlap_stride}"
        )
    is_paper = preset == "paper"
    kernel_size, first_filters, filters, head_size = (
        (3, 64, 128, 3) if is_paper else (4, 128, 256, 1)
    )

    def convolve(x, filters, kernel_size, strides, **options):
        options |= _initial(preset, kernel_size**2 * x.shape[-1])
        return convolution(x, filters, kernel_size, strides, **options)

    def activated(x, label, batch_norm=True):
        if batch_norm:
            x = batch_normalization(f"{label}_bn", synchronized_batch_norm)(x)
        return layers.LeakyReLU(negative_slope=0.2, name=f"{label}_leaky_relu")(x)

    inputs, x = image_input(input_shape, mean, std)
    for step in range(1, scalings(input_shape) + 1):
        batch_norm = step > 1 or is_paper
        size = first_filters if step == 1 else filters
        label = f"down{step}"
        options = {"padding": 1, "use_bias": not batch_norm, "name": f"{label}_conv"}
        x = activated(convolve(x, size, kernel_size, 2, **options), label, batch_norm)
    if regularizer == "image":
        head_size = 1
        for step in range(1, math.ceil(math.log2(max(x.shape[1:3]))) + 1):
            label = f"reduce{step}"
            x = activated(convolve(x, filters, 3, 2, name=f"{label}_conv"), label)
    options = {"use_bias": is_paper, "name": "logits", "dtype": "float32"}
    return keras.Model(inputs, convolve(x, 1, head_size, overlap_stride, **options), name=name)


def scalings(shape):
    """Number of up- or down-samplings between an image and the 8×8-like map of a GAN.

    n = max(2, round(log2(min(h, w) / 8))): 2 for 32×32 (tables 2 and 3 of the supplement), one
    more each time the side doubles.

    Raises:
        InputError: if the height or the width is not divisible by 2**n; says which sizes are.
    """
    height, width, _ = check_image_shape(shape)
    count = _scalings(min(height, width))
    if height % 2**count or width % 2**count:
        side = min(height, width)
        good = [size for size in range(4, 4 * side + 9) if size % 2 ** _scalings(size) == 0]
        nearest = [size for size in good if size <= side][-1:]
        nearest += [size for size in good if size > side][:1]
        raise InputError(
            f"--image_size: expected a height and width divisible by {2**count} (the generator and "
            f"the discriminator scale {count} times by 2), for a square image for example "
            f"{' or '.join(map(str, nearest))}. Received: {height}x{width}"
        )
    return count


def _scalings(side):
    return max(2, round(math.log2(side / 8)))


def _initial(preset, fan_in):
    """New ones per layer: an initialiser that is shared draws the same values again."""
    if preset == "paper":
        return {"kernel_initializer": keras.initializers.GlorotUniform()}
    return {
        "kernel_initializer": pytorch_default(),
        "bias_initializer": pytorch_default_bias(fan_in),
    }


def _check(flag, value, known):
    if value not in known:
        raise InputError(f"{flag} must be one of {', '.join(map(str, known))}. Received: {value}")
