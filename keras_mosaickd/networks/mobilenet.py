"""MobileNetV2: a variant for small images, and Keras's own for larger ones."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import keras
from keras import KerasTensor, layers

from keras_mosaickd.errors import InputError
from keras_mosaickd.networks.applications import adapt_application
from keras_mosaickd.networks.layers import (
    Statistic,
    batch_normalization,
    check_classes,
    check_image_shape,
    convolution,
    depthwise_convolution,
    image_input,
    logits_head,
)

# Expansion, output channels, blocks (the paper's table 2), and the first block's stride. The stem
# and the second group have stride 1 instead of 2, so that 32×32 images end in a 4×4 map.
_GROUPS = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
# From this side on, 32-fold down-sampling leaves a map worth pooling.
_APPLICATION_SIDE = 96


def mobilenetv2(
    input_shape: Sequence[int],
    classes: int,
    mean: Statistic = None,
    std: Statistic = None,
    name: str | None = None,
    synchronized_batch_norm: bool = False,
) -> keras.Model:
    """MobileNetV2 of width 1 (Sandler et al. 2018, arXiv 1801.04381).

    Below 96 pixels the stem and the first strided group keep the resolution, as is usual on CIFAR;
    from 96 on it is `keras.applications.MobileNetV2` with random weights and this package's
    BatchNorm constants. Both have the same parameters in number.

    Args:
        input_shape: (h, w, c) of the images, sides of at least 8 pixels.
        classes: Number of logits.
        mean: Mean of the teacher's training images, one number or one per channel, or None.
        std: Their standard deviation, likewise.
        name: Name of the model, `mobilenetv2` if None.
        synchronized_batch_norm: See `batch_normalization`.

    Returns:
        A model from images [B, h, w, c] in [0, 1] to float32 logits [B, classes].

    Raises:
        InputError: If the shape cannot be used.
    """
    check_classes(classes)
    height, width, _ = check_image_shape(input_shape)
    if min(height, width) < 8:
        raise InputError(
            "--image_size: expected at least 8 pixels for mobilenetv2, which halves the image"
            f" three times. Received: {height}x{width}"
        )
    inputs, x = image_input(input_shape, mean, std)
    name = name or "mobilenetv2"
    if min(height, width) >= _APPLICATION_SIDE:
        features = keras.applications.MobileNetV2(input_tensor=x, include_top=False, weights=None)
        model = keras.Model(inputs, logits_head(features.output, classes), name=name)
        return adapt_application(model, features, synchronized_batch_norm)

    normalize = partial(batch_normalization, synchronized=synchronized_batch_norm)
    x = convolution(x, 32, 3, name="stem_conv")
    x = _activate(x, "stem", normalize)
    for group, (expansion, filters, blocks, strides) in enumerate(_GROUPS, start=1):
        for block in range(1, blocks + 1):
            x = _inverted_residual(
                x,
                expansion,
                filters,
                strides if block == 1 else 1,
                prefix=f"group{group}_block{block}",
                normalize=normalize,
            )
    x = convolution(x, 1280, 1, name="final_conv")
    x = _activate(x, "final", normalize)
    return keras.Model(inputs, logits_head(x, classes), name=name)


def _activate(x: KerasTensor, prefix: str, normalize) -> KerasTensor:
    x = normalize(name=f"{prefix}_bn")(x)
    return layers.ReLU(6.0, name=f"{prefix}_relu")(x)


def _inverted_residual(
    x: KerasTensor, expansion: int, filters: int, strides: int, prefix: str, normalize
) -> KerasTensor:
    """1×1 up, 3×3 per channel, 1×1 down without activation; added to the input where they match."""
    block_input = x
    if expansion > 1:
        x = convolution(x, expansion * x.shape[-1], 1, name=f"{prefix}_expand")
        x = _activate(x, f"{prefix}_expand", normalize)
    x = depthwise_convolution(x, strides, name=f"{prefix}_depthwise")
    x = _activate(x, f"{prefix}_depthwise", normalize)
    x = convolution(x, filters, 1, name=f"{prefix}_project")
    x = normalize(name=f"{prefix}_project_bn")(x)
    if strides == 1 and block_input.shape[-1] == filters:
        x = layers.Add(name=f"{prefix}_add")([block_input, x])
    return x
