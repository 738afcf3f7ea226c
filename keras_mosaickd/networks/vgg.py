"""VGG-11 with BatchNorm, for small images."""

from keras import layers

from keras_mosaickd.networks.layers import convolution, network

_GROUPS = ((64,), (128,), (256, 256), (512, 512), (512, 512))


@network(smallest=8)
def vgg11(x, normalize):
    """Configuration A of Simonyan and Zisserman (2015, arXiv 1409.1556) with BatchNorm.

    As the knowledge distillation literature uses it on CIFAR (Tian et al. 2020, arXiv 1910.10699):
    five groups of 3×3 convolutions, 2×2 max pooling after the first three (and after the fourth
    for sides of 64 pixels or more), then global average pooling and one Dense layer instead of
    three. Args of the builder are those of `network`.
    """
    poolings = 4 if min(x.shape[1:3]) >= 64 else 3
    for group, widths in enumerate(_GROUPS, start=1):
        for index, filters in enumerate(widths, start=1):
            x = convolution(x, filters, 3, name=f"group{group}_conv{index}")
            x = normalize(name=f"group{group}_bn{index}")(x)
            x = layers.ReLU(name=f"group{group}_relu{index}")(x)
        if group <= poolings:
            x = layers.MaxPooling2D(2, name=f"group{group}_pool")(x)
    return x
