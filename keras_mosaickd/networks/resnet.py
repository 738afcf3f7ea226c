"""Residual networks for small images: the narrow CIFAR ones and ResNet-18 and -34."""

from keras import layers

from keras_mosaickd.errors import InputError
from keras_mosaickd.networks.layers import convolution, network

# Depth -> blocks per group, of 64, 128, 256 and 512 channels.
_WIDE_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


@network
def resnet(x, normalize, depth):
    """The basic-block ResNets of He et al. (2016, arXiv 1512.03385) with a stem for small images.

    Depth 18 and 34 are the ImageNet networks (64 to 512 channels) with a 3×3 stem of stride 1 and
    no max pooling, as is usual on CIFAR. Depth 6n+2 (20, 32, 56, ...) are the paper's CIFAR
    networks (16, 32 and 64 channels). Where shapes change, the shortcut is a 1×1 convolution with
    BatchNorm (the paper's option B), which the knowledge distillation literature uses throughout
    (Tian et al. 2020, arXiv 1910.10699).

    Args of the builder are those of `network`, and `depth`: 18, 34, or 6n+2.
    """
    blocks: tuple[int, ...]
    if depth in _WIDE_BLOCKS:
        blocks, stem_filters = _WIDE_BLOCKS[depth], 64
    elif depth >= 8 and (depth - 2) % 6 == 0:
        blocks, stem_filters = ((depth - 2) // 6,) * 3, 16
    else:
        raise InputError(
            "expected the depth of a residual network to be 18, 34 or 6n+2 (20, 32, 56, ...). "
            f"Received: {depth}"
        )
    x = convolution(x, stem_filters, 3, name="stem_conv")
    x = layers.ReLU(name="stem_relu")(normalize(name="stem_bn")(x))
    for group, count in enumerate(blocks, start=1):
        for block in range(1, count + 1):
            strides = 2 if group > 1 and block == 1 else 1
            filters = stem_filters * 2 ** (group - 1)
            x = _block(x, normalize, filters, strides, f"group{group}_block{block}")
    return x


def _block(x, normalize, filters, strides, prefix):
    """3×3, BN, ReLU, 3×3, BN, added to the shortcut, ReLU."""
    shortcut = x
    if strides > 1 or x.shape[-1] != filters:
        shortcut = convolution(x, filters, 1, strides, name=f"{prefix}_shortcut")
        shortcut = normalize(name=f"{prefix}_shortcut_bn")(shortcut)
    x = convolution(x, filters, 3, strides, name=f"{prefix}_conv1")
    x = layers.ReLU(name=f"{prefix}_relu1")(normalize(name=f"{prefix}_bn1")(x))
    x = normalize(name=f"{prefix}_bn2")(convolution(x, filters, 3, name=f"{prefix}_conv2"))
    return layers.ReLU(name=f"{prefix}_relu2")(layers.Add(name=f"{prefix}_add")([shortcut, x]))
