"""The generator: noise to images (table 2 of the supplement, and the authors' variant)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
from keras import layers

from keras_mosaickd.errors import InputError
from keras_mosaickd.networks.layers import (
    LEAKY_SLOPE,
    batch_normalization,
    convolution,
    pytorch_default,
    pytorch_default_bias,
    scalings,
)


@dataclass(frozen=True)
class _Preset:
    stem_filters: int
    stem_activation: bool
    initializer: str


_PRESETS = {
    "paper": _Preset(128, stem_activation=True, initializer="glorot_uniform"),
    "official": _Preset(256, stem_activation=False, initializer="pytorch_default"),
}


def generator(
    output_shape: Sequence[int],
    latent_dim: int = 100,
    preset: str = "paper",
    name: str = "generator",
    synchronized_batch_norm: bool = False,
) -> keras.Model:
    """Builds G: a linear stem, then nearest up-sampling and 3×3 convolutions.

    For 32×32 the channels are 128 → 128 → 64 (`paper`) or 256 → 128 → 64 (`official`); for larger
    images, further convolutions of 128 channels come first, one per doubling of the side.

    | | paper | official |
    |---|---|---|
    | stem | Linear, 128 channels, BN, LeakyReLU | Linear, 256 channels, BN, no activation |
    | initialiser | Glorot uniform | PyTorch's default, uniform in ±1/sqrt(fan_in) |

    Both: LeakyReLU slope 0.2, no bias in a convolution that BatchNorm follows; the last one has a
    bias. The stem keeps its bias, since the BatchNorm after it is per channel and the bias is per
    position.

    Args:
        output_shape: (h, w, c) of the images, h and w divisible by 2**n (see `scalings`).
        latent_dim: Length of z, at least 1.
        preset: "paper" (the supplement's table 2) or "official" (the authors' code).
        name: Name of the model.
        synchronized_batch_norm: See `batch_normalization`.

    Returns:
        A model from z [B, latent_dim], drawn from N(0, I), to images [B, h, w, c] in [0, 1],
        float32.

    Raises:
        InputError: If the size, the latent dimension or the preset cannot be used.
    """
    if preset not in _PRESETS:
        raise InputError(f"--preset: expected one of {', '.join(_PRESETS)}. Received: {preset}")
    if latent_dim < 1:
        raise InputError(f"expected latent_dim to be at least 1. Received: {latent_dim}")
    count = scalings(output_shape)
    height, width, channels = output_shape
    design = _PRESETS[preset]
    normalize = partial(batch_normalization, synchronized=synchronized_batch_norm)

    def initializers(fan_in: int) -> dict[str, Any]:
        # New ones per layer: an initialiser that is shared draws the same values again.
        if design.initializer == "pytorch_default":
            return {
                "kernel_initializer": pytorch_default(),
                "bias_initializer": pytorch_default_bias(fan_in),
            }
        return {"kernel_initializer": keras.initializers.GlorotUniform()}

    base = (height // 2**count, width // 2**count, design.stem_filters)
    inputs = keras.Input((latent_dim,), dtype="float32", name="latent")
    x = layers.Dense(
        base[0] * base[1] * base[2],
        name="stem_dense",
        **initializers(latent_dim),
    )(inputs)
    x = layers.Reshape(base, name="stem_reshape")(x)
    x = normalize(name="stem_bn")(x)
    if design.stem_activation:
        x = layers.LeakyReLU(negative_slope=LEAKY_SLOPE, name="stem_leaky_relu")(x)
    for step, filters in enumerate([128] * (count - 1) + [64], start=1):
        x = layers.UpSampling2D(2, interpolation="nearest", name=f"up{step}")(x)
        x = convolution(x, filters, 3, name=f"conv{step}", **initializers(9 * x.shape[-1]))
        x = normalize(name=f"bn{step}")(x)
        x = layers.LeakyReLU(negative_slope=LEAKY_SLOPE, name=f"leaky_relu{step}")(x)
    x = convolution(
        x,
        channels,
        3,
        name="picture_conv",
        use_bias=True,
        dtype="float32",
        **initializers(9 * x.shape[-1]),
    )
    outputs = layers.Activation("sigmoid", dtype="float32", name="picture")(x)
    return keras.Model(inputs, outputs, name=name)
