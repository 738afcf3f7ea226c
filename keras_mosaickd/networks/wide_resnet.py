"""Wide residual networks for small images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import keras
from keras import KerasTensor, layers

from keras_mosaickd.errors import InputError
from keras_mosaickd.networks.layers import (
    Statistic,
    batch_normalization,
    check_classes,
    convolution,
    image_input,
    logits_head,
    pixel_logits_head,
)


def wide_resnet(
    input_shape: Sequence[int],
    classes: int,
    depth: int,
    width: int,
    mean: Statistic = None,
    std: Statistic = None,
    name: str | None = None,
    synchronized_batch_norm: bool = False,
    per_pixel: bool = False,
) -> keras.Model:
    """The pre-activation WRN-depth-width of Zagoruyko and Komodakis (2016, arXiv 1605.07146).

    A stem of 16 channels, three groups of n = (depth - 4) / 6 blocks with 16, 32 and 64 times
    `width` channels and strides 1, 2, 2. Where the channels change, the shortcut is a 1×1
    convolution of the pre-activated input.

    Args:
        input_shape: (h, w, c) of the images.
        classes: Number of logits.
        depth: 6n + 4 for some n of at least 1: 10, 16, 22, 28, 40, ...
        width: Widening factor, at least 1.
        mean: Mean of the teacher's training images, one number or one per channel, or None.
        std: Their standard deviation, likewise.
        name: Name of the model, `wrn<depth>_<width>` if None.
        synchronized_batch_norm: See `batch_normalization`.
        per_pixel: Predict every pixel, as the fully convolutional networks of Long et al. (2015,
            arXiv 1411.4038): 1×1 logits of the last map (a quarter of the sides), scaled up
            bilinearly.

    Returns:
        A model from images [B, h, w, c] in [0, 1] to float32 logits [B, classes], or
        [B, h, w, classes] with `per_pixel`.

    Raises:
        InputError: If the depth, the width or the shape cannot be used.
    """
    if depth < 10 or (depth - 4) % 6:
        raise InputError(
            "expected the depth of a wide residual network to be 6n+4 (10, 16, 22, 28, 40, ...)."
            f" Received: {depth}"
        )
    if width < 1:
        raise InputError(f"expected a width of at least 1. Received: {width}")
    check_classes(classes)
    normalize = partial(batch_normalization, synchronized=synchronized_batch_norm)

    inputs, x = image_input(input_shape, mean, std)
    x = convolution(x, 16, 3, name="stem_conv")
    for group, strides in ((1, 1), (2, 2), (3, 2)):
        filters = 2 ** (group - 1) * 16 * width
        for block in range(1, (depth - 4) // 6 + 1):
            x = _block(
                x,
                filters,
                strides if block == 1 else 1,
                prefix=f"group{group}_block{block}",
                normalize=normalize,
            )
    x = normalize(name="final_bn")(x)
    x = layers.ReLU(name="final_relu")(x)
    outputs = pixel_logits_head(x, classes, inputs) if per_pixel else logits_head(x, classes)
    return keras.Model(inputs, outputs, name=name or f"wrn{depth}_{width}")


def _block(x: KerasTensor, filters: int, strides: int, prefix: str, normalize) -> KerasTensor:
    """BN, ReLU, 3×3, BN, ReLU, 3×3, added to the shortcut."""
    activated = normalize(name=f"{prefix}_bn1")(x)
    activated = layers.ReLU(name=f"{prefix}_relu1")(activated)
    shortcut = x
    if x.shape[-1] != filters:
        shortcut = convolution(activated, filters, 1, strides, name=f"{prefix}_shortcut")
    x = convolution(activated, filters, 3, strides, name=f"{prefix}_conv1")
    x = normalize(name=f"{prefix}_bn2")(x)
    x = layers.ReLU(name=f"{prefix}_relu2")(x)
    x = convolution(x, filters, 3, name=f"{prefix}_conv2")
    return layers.Add(name=f"{prefix}_add")([shortcut, x])
