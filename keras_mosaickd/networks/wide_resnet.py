"""Wide residual networks for small images."""

from keras import layers

from keras_mosaickd.errors import InputError
from keras_mosaickd.networks.layers import convolution, network


@network
def wide_resnet(x, normalize, depth, width):
    """The pre-activation WRN-depth-width of Zagoruyko and Komodakis (2016, arXiv 1605.07146).

    A stem of 16 channels, three groups of n = (depth - 4) / 6 blocks with 16, 32 and 64 times
    `width` channels and strides 1, 2, 2. Where the channels change, the shortcut is a 1×1
    convolution of the pre-activated input.

    Args of the builder are those of `network`, `depth`: 6n + 4 for some n of at least 1 (10, 16,
    22, 28, 40, ...), and `width`, the widening factor, at least 1.
    """
    if depth < 10 or (depth - 4) % 6:
        raise InputError(
            "expected the depth of a wide residual network to be 6n+4 (10, 16, 22, 28, 40, ...). "
            f"Received: {depth}"
        )
    if width < 1:
        raise InputError(f"expected a width of at least 1. Received: {width}")
    x = convolution(x, 16, 3, name="stem_conv")
    for group, strides in ((1, 1), (2, 2), (3, 2)):
        filters = 2 ** (group - 1) * 16 * width
        for block in range(1, (depth - 4) // 6 + 1):
            first = strides if block == 1 else 1
            x = _block(x, normalize, filters, first, f"group{group}_block{block}")
    return layers.ReLU(name="final_relu")(normalize(name="final_bn")(x))


def _block(x, normalize, filters, strides, prefix):
    """BN, ReLU, 3×3, BN, ReLU, 3×3, added to the shortcut."""
    activated = layers.ReLU(name=f"{prefix}_relu1")(normalize(name=f"{prefix}_bn1")(x))
    shortcut = x
    if x.shape[-1] != filters:
        shortcut = convolution(activated, filters, 1, strides, name=f"{prefix}_shortcut")
    x = convolution(activated, filters, 3, strides, name=f"{prefix}_conv1")
    x = layers.ReLU(name=f"{prefix}_relu2")(normalize(name=f"{prefix}_bn2")(x))
    x = convolution(x, filters, 3, name=f"{prefix}_conv2")
    return layers.Add(name=f"{prefix}_add")([shortcut, x])
