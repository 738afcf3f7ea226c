"""DeepLabv3: per-pixel logits on top of a classification backbone."""

import keras
from keras import layers

from keras_mosaickd.errors import InputError
from keras_mosaickd.networks.layers import adapt_application, convolution, network

# The last stage without its stride (which sits in 1×1 convolutions), dilated by 2.
_RESNET50 = {f"conv5_block1_{index}_conv": {"strides": 1} for index in (0, 1)} | {
    f"conv5_block{block}_2_conv": {"dilation_rate": 2} for block in (1, 2, 3)
}
# Block 13 without its stride, the blocks behind it dilated by 2.
_MOBILENETV2 = {"block_13_pad": {"padding": 1}, "block_13_depthwise": {"strides": 1}} | {
    f"block_{block}_depthwise": {"dilation_rate": 2} for block in (14, 15, 16)
}
# Network of keras.applications, its last layer that counts, and what is changed in it.
_BACKBONES = {
    "resnet50": (keras.applications.ResNet50, "conv5_block3_out", _RESNET50),
    "mobilenetv2": (keras.applications.MobileNetV2, "block_16_project_BN", _MOBILENETV2),
}
# Rates of the paper for a map of 1/16 of the image.
_ATROUS_RATES = (6, 12, 18)


@network(smallest=32, per_pixel=True)
def deeplabv3(x, normalize, backbone):
    """DeepLabv3 (Chen et al. 2017, arXiv 1706.05587) with output stride 16, randomly initialised.

    The backbone is keras.applications' ResNet50 or MobileNetV2 (up to its 320 channels, as Sandler
    et al. 2018 do) whose last stride is replaced by dilation 2. Atrous spatial pyramid pooling has
    a 1×1, three 3×3 convolutions of rates 6, 12, 18 and the image's mean, each of 256 channels;
    a 3×3 convolution and the 1×1 classifier follow, as in torchvision. There is no dropout: T has
    to be one function, and S is trained to match it.

    Args of the builder are those of `network`, and `backbone`: "resnet50" or "mobilenetv2".
    """
    if backbone not in _BACKBONES:
        known = ", ".join(_BACKBONES)
        raise InputError(f"expected a backbone out of {known}. Received: {backbone}")
    make, last, changes = _BACKBONES[backbone]
    application = make(input_tensor=x, include_top=False, weights=None)
    features = application.get_layer(last).output
    # The atrous head is built on the dilated features, whose map is twice as large.
    dilated = adapt_application(application, features, normalize, changes)

    def convolve(x, kernel_size, prefix, dilation=1):
        x = convolution(x, 256, kernel_size, dilation=dilation, name=f"{prefix}_conv")
        return layers.ReLU(name=f"{prefix}_relu")(normalize(name=f"{prefix}_bn")(x))

    x = dilated.output
    branches = [convolve(x, 1, "aspp1")]
    for index, rate in enumerate(_ATROUS_RATES, start=2):
        branches.append(convolve(x, 3, f"aspp{index}", rate))
    pooled = layers.GlobalAveragePooling2D(keepdims=True, name="aspp5_pool")(x)
    pooled = convolve(pooled, 1, "aspp5")
    branches.append(layers.UpSampling2D(tuple(x.shape[1:3]), name="aspp5_up")(pooled))
    x = convolve(layers.Concatenate(name="aspp_concatenate")(branches), 1, "aspp_project")
    return keras.Model(dilated.inputs[0], convolve(x, 3, "head"))
