"""VGG-11 with BatchNorm, for small images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import keras
from keras import layers

from keras_mosaickd.errors import InputError
from keras_mosaickd.networks.layers import (
    Statistic,
    batch_normalization,
    check_classes,
    check_image_shape,
    convolution,
    image_input,
    logits_head,
)

_GROUPS = ((64,), (128,), (256, 256), (512, 512), (512, 512))
_SMALLEST = 8


def vgg11(
    input_shape: Sequence[int],
    classes: int,
    mean: Statistic = None,
    std: Statistic = None,
    name: str | None = None,
    synchronized_batch_norm: bool = False,
) -> keras.Model:
    """Configuration A of Simonyan and Zisserman (2015, arXiv 1409.1556) with BatchNorm.

    As the knowledge distillation literature uses it on CIFAR (Tian et al. 2020, arXiv 1910.10699):
    five groups of 3×3 convolutions, 2×2 max pooling after the first three (and after the fourth
    for sides of 64 pixels or more), then global average pooling and one Dense layer instead of
    three.

    Args:
        input_shape: (h, w, c) of the images, sides of at least 8 pixels.
        classes: Number of logits.
        mean: Mean of the teacher's training images, one number or one per channel, or None.
        std: Their standard deviation, likewise.
        name: Name of the model, `vgg11` if None.
        synchronized_batch_norm: See `batch_normalization`.

    Returns:
        A model from images [B, h, w, c] in [0, 1] to float32 logits [B, classes].

    Raises:
        InputError: If the shape cannot be used.
    """
    check_classes(classes)
    height, width, _ = check_image_shape(input_shape)
    side = min(height, width)
    if side < _SMALLEST:
        raise InputError(
            f"--image_size: expected at least {_SMALLEST} pixels for vgg11, which halves the"
            f" image three times. Received: {height}x{width}"
        )
    poolings = 4 if side >= 64 else 3
    normalize = partial(batch_normalization, synchronized=synchronized_batch_norm)

    inputs, x = image_input(input_shape, mean, std)
    for group, widths in enumerate(_GROUPS, start=1):
        for index, filters in enumerate(widths, start=1):
            x = convolution(x, filters, 3, name=f"group{group}_conv{index}")
            x = normalize(name=f"group{group}_bn{index}")(x)
            x = layers.ReLU(name=f"group{group}_relu{index}")(x)
        if group <= poolings:
            x = layers.MaxPooling2D(2, name=f"group{group}_pool")(x)
    outputs = logits_head(x, classes)
    return keras.Model(inputs, outputs, name=name or "vgg11")
