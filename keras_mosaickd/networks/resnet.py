"""Residual networks for small images: the narrow CIFAR ones and ResNet-18 and -34."""

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
)

# depth -> blocks per group, of 64, 128, 256 and 512 channels
_WIDE_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


def resnet(
    input_shape: Sequence[int],
    classes: int,
    depth: int,
    mean: Statistic = None,
    std: Statistic = None,
    name: str | None = None,
    synchronized_batch_norm: bool = False,
) -> keras.Model:
    """The basic-block ResNets of He et al. (2016, arXiv 1512.03385) with a stem for small images.

    Depth 18 and 34 are the ImageNet networks (64 to 512 channels) with a 3×3 stem of stride 1 and
    no max pooling, as is usual on CIFAR. Depth 6n+2 (20, 32, 56, ...) are the paper's CIFAR
    networks (16, 32 and 64 channels). Where shapes change, the shortcut is a 1×1 convolution with
    BatchNorm (the paper's option B), which the knowledge distillation literature uses throughout
    (Tian et al. 2020, arXiv 1910.10699).

    Args:
        input_shape: (h, w, c) of the images.
        classes: Number of logits.
        depth: 18, 34, or 6n+2.
        mean: Mean of the teacher's training images, one number or one per channel, or None.
        std: Their standard deviation, likewise.
        name: Name of the model, `resnet<depth>` if None.
        synchronized_batch_norm: See `batch_normalization`.

    Returns:
        A model from images [B, h, w, c] in [0, 1] to float32 logits [B, classes].

    Raises:
        InputError: If the depth or the shape cannot be used.
    """
    check_classes(classes)
    blocks: tuple[int, ...]
    if depth in _WIDE_BLOCKS:
        blocks, stem_filters = _WIDE_BLOCKS[depth], 64
    elif depth >= 8 and (depth - 2) % 6 == 0:
        blocks, stem_filters = ((depth - 2) // 6,) * 3, 16
    else:
        raise InputError(
            "expected the depth of a residual network to be 18, 34 or 6n+2 (20, 32, 56, ...)."
            f" Received: {depth}"
        )
    normalize = partial(batch_normalization, synchronized=synchronized_batch_norm)

    inputs, x = image_input(input_shape, mean, std)
    x = convolution(x, stem_filters, 3, name="stem_conv")
    x = normalize(name="stem_bn")(x)
    x = layers.ReLU(name="stem_relu")(x)
    for group, count in enumerate(blocks, start=1):
        for block in range(1, count + 1):
            x = _block(
                x,
                stem_filters * 2 ** (group - 1),
                strides=2 if group > 1 and block == 1 else 1,
                prefix=f"group{group}_block{block}",
                normalize=normalize,
            )
    outputs = logits_head(x, classes)
    return keras.Model(inputs, outputs, name=name or f"resnet{depth}")


def _block(x: KerasTensor, filters: int, strides: int, prefix: str, normalize) -> KerasTensor:
    """3×3, BN, ReLU, 3×3, BN, added to the shortcut, ReLU."""
    shortcut = x
    if strides > 1 or x.shape[-1] != filters:
        shortcut = convolution(x, filters, 1, strides, name=f"{prefix}_shortcut")
        shortcut = normalize(name=f"{prefix}_shortcut_bn")(shortcut)
    x = convolution(x, filters, 3, strides, name=f"{prefix}_conv1")
    x = normalize(name=f"{prefix}_bn1")(x)
    x = layers.ReLU(name=f"{prefix}_relu1")(x)
    x = convolution(x, filters, 3, name=f"{prefix}_conv2")
    x = normalize(name=f"{prefix}_bn2")(x)
    x = layers.Add(name=f"{prefix}_add")([shortcut, x])
    return layers.ReLU(name=f"{prefix}_relu2")(x)
