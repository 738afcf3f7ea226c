"""Name of a network -> its builder."""

import re
from functools import partial

from keras_mosaickd.backend.initial_values import drawn_quickly
from keras_mosaickd.errors import InputError, did_you_mean
from keras_mosaickd.networks.deeplab import deeplabv3
from keras_mosaickd.networks.mobilenet import mobilenetv2
from keras_mosaickd.networks.resnet import resnet
from keras_mosaickd.networks.vgg import vgg11
from keras_mosaickd.networks.wide_resnet import wide_resnet

_WIDE_RESNET = re.compile(r"wrn(\d+)_(\d+)")
_LISTED_WIDE_RESNETS = ("wrn10_1", "wrn16_1", "wrn16_2", "wrn40_1", "wrn40_2")

# Task -> name -> builder (see `layers.network`). Wide residual networks are for both tasks.
_NETWORKS = {
    "classification": {
        "mobilenetv2": mobilenetv2,
        "resnet18": partial(resnet, depth=18),
        "resnet20": partial(resnet, depth=20),
        "resnet32": partial(resnet, depth=32),
        "resnet34": partial(resnet, depth=34),
        "resnet56": partial(resnet, depth=56),
        "vgg11": vgg11,
    },
    "segmentation": {
        "deeplabv3_mobilenetv2": partial(deeplabv3, backbone="mobilenetv2"),
        "deeplabv3_resnet50": partial(deeplabv3, backbone="resnet50"),
    },
}


def names(task="classification"):
    """The networks of a task, sorted; any other wrn<depth>_<width> of depth 6n+4 exists too."""
    return tuple(sorted([*_of_task(task), *_LISTED_WIDE_RESNETS]))


@drawn_quickly
def build(
    name,
    input_shape,
    classes,
    mean=None,
    std=None,
    task="classification",
    synchronized_batch_norm=False,
):
    """Builds the network of that name.

    Args:
        name: one of `names(task)`, or `wrn<depth>_<width>`.
        input_shape: `(height, width, channels)` of the images.
        classes: number of logits; one is a binary classifier's.
        mean: mean of the teacher's training images in [0, 1], one number or one per channel.
        std: their standard deviation, likewise. Both become the layer "normalization".
        task: "classification" or "segmentation".
        synchronized_batch_norm: see `batch_normalization`.

    Returns:
        A model from images `[batch, height, width, channels]` in [0, 1] to float32 logits, `[batch,
        classes]` or `[batch, height, width, classes]`.

    Raises:
        InputError: if there is no such network, or if it cannot take the shape.
    """
    builder, wide = _of_task(task).get(name), _WIDE_RESNET.fullmatch(name)
    if wide:
        depth, width = map(int, wide.groups())
        builder = partial(wide_resnet, depth=depth, width=width, per_pixel=task == "segmentation")
    if builder is None:
        raise InputError(
            f"expected a network for {task}: one of {', '.join(names(task))}, or "
            f"wrn<depth>_<width> with a depth of 6n+4. Received: {name}"
            + did_you_mean(name, names(task))
        )
    return builder(
        input_shape,
        classes,
        mean=mean,
        std=std,
        name=name,
        synchronized_batch_norm=synchronized_batch_norm,
    )


def _of_task(task):
    if task not in _NETWORKS:
        raise InputError(f"--task must be one of {', '.join(_NETWORKS)}. Received: {task}")
    return _NETWORKS[task]
