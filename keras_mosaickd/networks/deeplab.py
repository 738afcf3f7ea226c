"""DeepLabv3: per-pixel logits on top of a classification backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

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
    image_input,
    pixel_logits_head,
)

BACKBONES = ("resnet50", "mobilenetv2")
# Rates of the paper for a map of 1/16 of the image.
_ATROUS_RATES = (6, 12, 18)
_FILTERS = 256
_SMALLEST = 32


def deeplabv3(
    input_shape: Sequence[int],
    classes: int,
    backbone: str,
    mean: Statistic = None,
    std: Statistic = None,
    name: str | None = None,
    synchronized_batch_norm: bool = False,
) -> keras.Model:
    """DeepLabv3 (Chen et al. 2017, arXiv 1706.05587) with output stride 16, randomly initialised.

    The backbone is keras.applications' ResNet50 or MobileNetV2 (up to its 320 channels, as Sandler
    et al. 2018 do) whose last stride is replaced by dilation 2. Atrous spatial pyramid pooling has
    a 1×1, three 3×3 convolutions of rates 6, 12, 18 and the image's mean, each of 256 channels;
    a 3×3 convolution and the 1×1 classifier follow, as in torchvision. There is no dropout: T has
    to be one function, and S is trained to match it.

    Args:
        input_shape: (h, w, c) of the images, sides of at least 32 pixels.
        classes: Number of logits per pixel.
        backbone: "resnet50" or "mobilenetv2".
        mean: Mean of the teacher's training images, one number or one per channel, or None.
        std: Their standard deviation, likewise.
        name: Name of the model, `deeplabv3_<backbone>` if None.
        synchronized_batch_norm: See `batch_normalization`.

    Returns:
        A model from images [B, h, w, c] in [0, 1] to float32 logits [B, h, w, classes], scaled up
        to the image's size bilinearly.

    Raises:
        InputError: If the shape or the backbone cannot be used.
    """
    check_classes(classes)
    height, width, _ = check_image_shape(input_shape)
    if min(height, width) < _SMALLEST:
        raise InputError(
            f"--image_size: expected at least {_SMALLEST} pixels for deeplabv3."
            f" Received: {height}x{width}"
        )
    normalize = partial(batch_normalization, synchronized=synchronized_batch_norm)
    inputs, x = image_input(input_shape, mean, std)
    if backbone == "resnet50":
        application = keras.applications.ResNet50(input_tensor=x, include_top=False, weights=None)
        features, changes = application.output, _dilated_resnet50()
    elif backbone == "mobilenetv2":
        application = keras.applications.MobileNetV2(
            input_tensor=x, include_top=False, weights=None
        )
        features = application.get_layer("block_16_project_BN").output
        changes = _dilated_mobilenetv2()
    else:
        raise InputError(f"expected a backbone out of {', '.join(BACKBONES)}. Received: {backbone}")
    # The atrous head is built on the dilated features, whose map is twice as large.
    dilated = adapt_application(
        keras.Model(inputs, features), application, synchronized_batch_norm, changes
    )
    x = _pyramid_pooling(dilated.output, normalize)
    x = _convolve(x, 3, "head", normalize)
    outputs = pixel_logits_head(x, classes, inputs)
    return keras.Model(dilated.input, outputs, name=name or f"deeplabv3_{backbone}")


def _pyramid_pooling(x: KerasTensor, normalize) -> KerasTensor:
    """Atrous spatial pyramid pooling: [B, h, w, c] -> [B, h, w, 256]."""
    branches = [_convolve(x, 1, "aspp1", normalize)]
    for index, rate in enumerate(_ATROUS_RATES, start=2):
        branches.append(_convolve(x, 3, f"aspp{index}", normalize, rate))
    pooled = layers.GlobalAveragePooling2D(keepdims=True, name="aspp5_pool")(x)
    pooled = _convolve(pooled, 1, "aspp5", normalize)
    branches.append(layers.UpSampling2D(tuple(x.shape[1:3]), name="aspp5_up")(pooled))
    x = layers.Concatenate(name="aspp_concatenate")(branches)
    return _convolve(x, 1, "aspp_project", normalize)


def _convolve(
    x: KerasTensor, kernel_size: int, prefix: str, normalize, dilation: int = 1
) -> KerasTensor:
    x = convolution(x, _FILTERS, kernel_size, dilation=dilation, name=f"{prefix}_conv")
    x = normalize(name=f"{prefix}_bn")(x)
    return layers.ReLU(name=f"{prefix}_relu")(x)


def _dilated_resnet50() -> Mapping[str, Mapping[str, Any]]:
    """The last stage without its stride (which sits in 1×1 convolutions), dilated by 2."""
    strided = {f"conv5_block1_{index}_conv": {"strides": 1} for index in (0, 1)}
    dilated = {f"conv5_block{block}_2_conv": {"dilation_rate": 2} for block in (1, 2, 3)}
    return {**strided, **dilated}


def _dilated_mobilenetv2() -> Mapping[str, Mapping[str, Any]]:
    """Block 13 without its stride, the blocks behind it dilated by 2."""
    strided = {"block_13_pad": {"padding": 1}, "block_13_depthwise": {"strides": 1}}
    dilated = {f"block_{block}_depthwise": {"dilation_rate": 2} for block in (14, 15, 16)}
    return {**strided, **dilated}
