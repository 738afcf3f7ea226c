"""The discriminator: of patches (table 3 of the supplement) or of whole images (figure 1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import keras
from keras import KerasTensor, layers

from keras_mosaickd.errors import InputError
from keras_mosaickd.networks.layers import (
    LEAKY_SLOPE,
    Statistic,
    batch_normalization,
    convolution,
    image_input,
    pytorch_default,
    pytorch_default_bias,
    scalings,
)

REGULARIZERS = ("patch", "image")
OVERLAP_STRIDES = (1, 2, 3, 4)


@dataclass(frozen=True)
class _Preset:
    kernel_size: int
    first_filters: int
    filters: int
    first_batch_norm: bool
    head_kernel_size: int
    head_bias: bool
    initializer: str


_PRESETS = {
    "paper": _Preset(
        kernel_size=3,
        first_filters=64,
        filters=128,
        first_batch_norm=True,
        head_kernel_size=3,
        head_bias=True,
        initializer="glorot_uniform",
    ),
    "official": _Preset(
        kernel_size=4,
        first_filters=128,
        filters=256,
        first_batch_norm=False,
        head_kernel_size=1,
        head_bias=False,
        initializer="pytorch_default",
    ),
}


def discriminator(
    input_shape: Sequence[int],
    preset: str = "paper",
    regularizer: str = "patch",
    overlap_stride: int = 1,
    mean: Statistic = None,
    std: Statistic = None,
    name: str = "discriminator",
    synchronized_batch_norm: bool = False,
) -> keras.Model:
    """Builds D: real or made up, one logit per patch or one for the whole image.

    | | paper | official |
    |---|---|---|
    | trunk | 3×3, stride 2, BN, LeakyReLU | 4×4, stride 2, BN in all but the first, LeakyReLU |
    | channels at 32×32 | 64, 128 | 128, 256 |
    | last convolution | 3×3 with bias | 1×1 without bias |
    | receptive field of a logit at 32×32 | 15 pixels | 10 pixels |
    | initialiser | Glorot uniform | PyTorch's default, uniform in ±1/sqrt(fan_in) |

    Both: LeakyReLU slope 0.2, one zero of padding on every side, no bias in a convolution that
    BatchNorm follows. Larger images get further strided convolutions of 128 (256) channels.
    A strided convolution of 1×1 is the same as slicing its map [::stride, ::stride].

    Args:
        input_shape: (h, w, c) of the images, h and w divisible by 2**n (see `scalings`).
        preset: "paper" (the supplement's table 3) or "official" (the authors' code).
        regularizer: "patch", or "image": the same trunk, then 3×3 convolutions of stride 2 down
            to 1×1, and one logit.
        overlap_stride: Stride of the last convolution, 1 to 4: the larger, the fewer patches and
            the less they overlap (the supplement's table 4). 1 for "image".
        mean: Mean of the teacher's training images, one number or one per channel, or None.
        std: Their standard deviation, likewise.
        name: Name of the model.
        synchronized_batch_norm: See `batch_normalization`.

    Returns:
        A model from images [B, h, w, c] in [0, 1] to float32 logits [B, h', w', 1]: 8×8, 4×4,
        3×3, 2×2 for 32×32 images and overlap stride 1, 2, 3, 4; 1×1 for "image".

    Raises:
        InputError: If one of the arguments cannot be used.
    """
    if preset not in _PRESETS:
        raise InputError(f"--preset: expected one of {', '.join(_PRESETS)}. Received: {preset}")
    if regularizer not in REGULARIZERS:
        raise InputError(
            f"--regularizer: a discriminator needs one of {', '.join(REGULARIZERS)}."
            f" Received: {regularizer}"
        )
    if overlap_stride not in OVERLAP_STRIDES:
        raise InputError(
            f"--overlap_stride: expected an integer from 1 to 4. Received: {overlap_stride}"
        )
    if regularizer == "image" and overlap_stride != 1:
        raise InputError(
            "--overlap_stride: expected 1 with --regularizer=image, which has no patches."
            f" Received: {overlap_stride}"
        )
    count = scalings(input_shape)
    design = _PRESETS[preset]
    normalize = partial(batch_normalization, synchronized=synchronized_batch_norm)

    def convolve(x: KerasTensor, filters: int, kernel_size: int, strides: int, **options):
        is_pytorch = design.initializer == "pytorch_default"
        kernel = pytorch_default() if is_pytorch else keras.initializers.GlorotUniform()
        fan_in = kernel_size**2 * x.shape[-1]
        bias = pytorch_default_bias(fan_in) if is_pytorch else "zeros"
        return convolution(
            x, filters, kernel_size, strides,
            kernel_initializer=kernel, bias_initializer=bias, **options,
        )  # fmt: skip

    def activate(x: KerasTensor, label: str, batch_norm: bool = True) -> KerasTensor:
        if batch_norm:
            x = normalize(name=f"{label}_bn")(x)
        return layers.LeakyReLU(negative_slope=LEAKY_SLOPE, name=f"{label}_leaky_relu")(x)

    inputs, x = image_input(input_shape, mean, std)
    for step in range(1, count + 1):
        batch_norm = step > 1 or design.first_batch_norm
        filters = design.first_filters if step == 1 else design.filters
        x = convolve(
            x, filters, design.kernel_size, 2,
            padding=1, use_bias=not batch_norm, name=f"down{step}_conv",
        )  # fmt: skip
        x = activate(x, f"down{step}", batch_norm)
    if regularizer == "image":
        for step in range(1, math.ceil(math.log2(max(x.shape[1:3]))) + 1):
            x = convolve(x, design.filters, 3, 2, name=f"reduce{step}_conv")
            x = activate(x, f"reduce{step}")
        head_kernel_size = 1
    else:
        head_kernel_size = design.head_kernel_size
    outputs = convolve(
        x, 1, head_kernel_size, overlap_stride,
        use_bias=design.head_bias, name="logits", dtype="float32",
    )  # fmt: skip
    return keras.Model(inputs, outputs, name=name)
