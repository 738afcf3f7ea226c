"""Name of a network -> its builder."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import keras

from keras_mosaickd.errors import InputError
from keras_mosaickd.networks.deeplab import deeplabv3
from keras_mosaickd.networks.layers import Statistic
from keras_mosaickd.networks.mobilenet import mobilenetv2
from keras_mosaickd.networks.resnet import resnet
from keras_mosaickd.networks.vgg import vgg11
from keras_mosaickd.networks.wide_resnet import wide_resnet

TASKS = ("classification", "segmentation")
_WIDE_RESNET = re.compile(r"wrn(\d+)_(\d+)")
_LISTED_WIDE_RESNETS = ("wrn10_1", "wrn16_1", "wrn16_2", "wrn40_1", "wrn40_2")

# name -> builder(input_shape, classes, mean=, std=, name=, synchronized_batch_norm=)
_CLASSIFIERS: dict[str, Callable[..., keras.Model]] = {
    "mobilenetv2": mobilenetv2,
    "resnet18": partial(resnet, depth=18),
    "resnet20": partial(resnet, depth=20),
    "resnet32": partial(resnet, depth=32),
    "resnet34": partial(resnet, depth=34),
    "resnet56": partial(resnet, depth=56),
    "vgg11": vgg11,
}
_SEGMENTERS: dict[str, Callable[..., keras.Model]] = {
    "deeplabv3_mobilenetv2": partial(deeplabv3, backbone="mobilenetv2"),
    "deeplabv3_resnet50": partial(deeplabv3, backbone="resnet50"),
}


def names(task: str = "classification") -> tuple[str, ...]:
    """The networks of a task, sorted; any other wrn<depth>_<width> of depth 6n+4 exists too."""
    _check_task(task)
    table = _SEGMENTERS if task == "segmentation" else _CLASSIFIERS
    return tuple(sorted([*table, *_LISTED_WIDE_RESNETS]))


def build(
    name: str,
    input_shape: Sequence[int],
    classes: int,
    mean: Statistic = None,
    std: Statistic = None,
    task: str = "classification",
    synchronized_batch_norm: bool = False,
) -> keras.Model:
    """Builds the network of that name.

    Args:
        name: One of `names(task)`, or `wrn<depth>_<width>`.
        input_shape: (h, w, c) of the images.
        classes: Number of classes, at least 2.
        mean: Mean of the teacher's training images in [0, 1], one number or one per channel.
        std: Their standard deviation, likewise. Both become the layer "normalization".
        task: "classification" or "segmentation".
        synchronized_batch_norm: See `batch_normalization`.

    Returns:
        A model from images [B, h, w, c] in [0, 1] to float32 logits, [B, classes] or
        [B, h, w, classes].

    Raises:
        InputError: If there is no such network, or if it cannot take the shape.
    """
    _check_task(task)
    options: dict[str, Any] = {
        "mean": mean,
        "std": std,
        "name": name,
        "synchronized_batch_norm": synchronized_batch_norm,
    }
    table = _SEGMENTERS if task == "segmentation" else _CLASSIFIERS
    if name in table:
        return table[name](input_shape, classes, **options)
    wide = _WIDE_RESNET.fullmatch(name)
    if wide:
        depth, width = (int(number) for number in wide.groups())
        per_pixel = task == "segmentation"
        return wide_resnet(input_shape, classes, depth, width, per_pixel=per_pixel, **options)
    raise InputError(
        f"expected a network for {task}: one of {', '.join(names(task))}, or wrn<depth>_<width> "
        f"with a depth of 6n+4. Received: {name}"
    )


def _check_task(task: str) -> None:
    if task not in TASKS:
        raise InputError(f"--task: expected one of {', '.join(TASKS)}. Received: {task}")
