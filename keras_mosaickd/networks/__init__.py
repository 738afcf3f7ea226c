"""Networks by name: classifiers, segmenters, the generator and the discriminators.

All are functional Keras models of stock Keras layers, so that a saved one loads without this
package. They take images in [0, 1] and return logits in float32 whatever the dtype policy.
"""

from keras_mosaickd.networks.adversaries import discriminator, generator
from keras_mosaickd.networks.deeplab import deeplabv3
from keras_mosaickd.networks.flops import count_parameters, flops, traffic
from keras_mosaickd.networks.layers import batch_normalization
from keras_mosaickd.networks.mobilenet import mobilenetv2
from keras_mosaickd.networks.registry import build, names
from keras_mosaickd.networks.resnet import resnet
from keras_mosaickd.networks.vgg import vgg11
from keras_mosaickd.networks.wide_resnet import wide_resnet

__all__ = [
    "batch_normalization",
    "build",
    "count_parameters",
    "deeplabv3",
    "discriminator",
    "flops",
    "generator",
    "mobilenetv2",
    "names",
    "resnet",
    "traffic",
    "vgg11",
    "wide_resnet",
]
