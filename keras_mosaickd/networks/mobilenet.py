"""MobileNetV2: a variant for small images, and Keras's own for larger ones."""

import keras
from keras import layers

from keras_mosaickd.networks.layers import adapt_application, convolution, network

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


@network(smallest=8)
def mobilenetv2(x, normalize):
    """MobileNetV2 of width 1 (Sandler et al. 2018, arXiv 1801.04381).

    Below 96 pixels the stem and the first strided group keep the resolution, as is usual on CIFAR;
    from 96 on it is `keras.applications.MobileNetV2` with random weights and this package's
    BatchNorm constants. Both have the same parameters in number. Args of the builder are those of
    `network`.
    """
    if min(x.shape[1:3]) >= _APPLICATION_SIDE:
        backbone = keras.applications.MobileNetV2(input_tensor=x, include_top=False, weights=None)
        return adapt_application(backbone, backbone.output, normalize)
    x = _activate(convolution(x, 32, 3, name="stem_conv"), "stem", normalize)
    for group, (expansion, filters, blocks, strides) in enumerate(_GROUPS, start=1):
        for block in range(1, blocks + 1):
            first = strides if block == 1 else 1
            prefix = f"group{group}_block{block}"
            x = _inverted_residual(x, normalize, expansion, filters, first, prefix)
    return _activate(convolution(x, 1280, 1, name="final_conv"), "final", normalize)


def _activate(x, prefix, normalize):
    return layers.ReLU(6.0, name=f"{prefix}_relu")(normalize(name=f"{prefix}_bn")(x))


def _inverted_residual(x, normalize, expansion, filters, strides, prefix):
    """1×1 up, 3×3 per channel, 1×1 down without activation; added to the input where they match."""
    block_input = x
    if expansion > 1:
        x = convolution(x, expansion * x.shape[-1], 1, name=f"{prefix}_expand")
        x = _activate(x, f"{prefix}_expand", normalize)
    x = convolution(x, 1, 3, strides, depthwise=True, name=f"{prefix}_depthwise")
    x = _activate(x, f"{prefix}_depthwise", normalize)
    x = convolution(x, filters, 1, name=f"{prefix}_project")
    x = normalize(name=f"{prefix}_project_bn")(x)
    if strides == 1 and block_input.shape[-1] == filters:
        x = layers.Add(name=f"{prefix}_add")([block_input, x])
    return x
