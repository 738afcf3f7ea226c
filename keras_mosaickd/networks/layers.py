"""What all networks share: the way from images to logits, padding, initialisers, BatchNorm."""

import functools
import math
import numbers

import keras
from keras import initializers, layers

from keras_mosaickd.errors import InputError

# The constants of the PyTorch recipes (Keras's defaults are 0.99 and 1e-3): with 0.99 the moving
# statistics would still hold the initial values after the few hundred steps of a small run.
BATCH_NORM_MOMENTUM = 0.9
BATCH_NORM_EPSILON = 1e-5


def network(trunk=None, *, smallest=1, per_pixel=False):
    """Makes the builder of a network out of its trunk, the layers between images and logits.

    The builder returns a model from images `[batch, height, width, channels]` in [0, 1] to float32
    logits, `[batch, classes]` or `[batch, height, width, classes]`, and raises InputError for what
    cannot be used. It takes, besides the trunk's own options:

    Args:
        input_shape: `(height, width, channels)` of the images.
        classes: number of logits; one is a binary classifier's.
        mean: mean of the teacher's training images, one number or one per channel, or None.
        std: their standard deviation, likewise.
        name: name of the model.
        synchronized_batch_norm: see `batch_normalization`.
        per_pixel: predict every pixel, as the fully convolutional networks of Long et al. (2015,
            arXiv 1411.4038): 1×1 logits of the last map, scaled up bilinearly.

    `network` itself takes:

    Args:
        trunk: function of the normalised images, of `batch_normalization` with its arguments, and
            of options; gives the last feature map, or a model that ends in it.
        smallest: smallest side of an image in pixels.
        per_pixel: default of the builder.
    """
    if trunk is None:
        return functools.partial(network, smallest=smallest, per_pixel=per_pixel)
    predicts_pixels = per_pixel

    def build(
        input_shape,
        classes,
        mean=None,
        std=None,
        name=None,
        synchronized_batch_norm=False,
        per_pixel=predicts_pixels,
        **options,
    ):
        if not isinstance(classes, numbers.Integral) or classes < 1:
            raise InputError(f"expected at least 1 class. Received: {classes}")
        inputs, x = image_input(input_shape, mean, std)
        name = name or trunk.__name__
        if min(inputs.shape[1:3]) < smallest:
            raise InputError(
                f"--image_size must be at least {smallest} pixels for {name}. "
                f"Received: {inputs.shape[1]}x{inputs.shape[2]}"
            )
        normalize = functools.partial(batch_normalization, synchronized=synchronized_batch_norm)
        features = trunk(x, normalize, **options)
        if isinstance(features, keras.Model):
            inputs, features = features.inputs[0], features.output
        if per_pixel:
            logits = convolution(
                features,
                classes,
                1,
                name="pixel_logits",
                use_bias=True,
                kernel_initializer=pytorch_default(),
                dtype="float32",
            )
            scale_up = layers.Resizing(
                *inputs.shape[1:3], interpolation="bilinear", dtype="float32", name="logits"
            )
            return keras.Model(inputs, scale_up(logits), name=name)
        pooled = layers.GlobalAveragePooling2D(name="pool")(features)
        head = layers.Dense(
            int(classes), kernel_initializer=pytorch_default(), dtype="float32", name="logits"
        )
        return keras.Model(inputs, head(pooled), name=name)

    build.__name__, build.__doc__ = trunk.__name__, trunk.__doc__
    return build


def image_input(input_shape, mean=None, std=None):
    """The input of a network that judges images, and the normalised images.

    Args:
        input_shape: `(height, width, channels)`.
        mean: mean of the teacher's training images, in [0, 1]: one number or one per channel.
        std: their standard deviation, likewise. With neither, images stay as they are.

    Returns:
        The input `[batch, height, width, channels]`, float32 in [0, 1], and what the first
        convolution sees.
    """
    shape = check_image_shape(input_shape)
    inputs = keras.Input(shape, dtype="float32", name="picture")
    if mean is None and std is None:
        return inputs, inputs
    if mean is None or std is None:
        raise InputError(f"expected both mean and std, or neither. Received: {mean=}, {std=}")
    means, stds = (_per_channel(*pair, shape[2]) for pair in (("mean", mean), ("std", std)))
    if not all(map(math.isfinite, (*means, *stds))) or min(stds) <= 0:
        raise InputError(
            f"expected numbers for mean and std, every std above 0. Received: {mean=}, {std=}"
        )
    # float32 whatever the policy: a mean rounded to bfloat16 would shift every image.
    normalization = layers.Normalization(
        axis=-1,
        mean=means,
        variance=[value * value for value in stds],
        dtype="float32",
        name="normalization",
    )
    return inputs, normalization(inputs)


def _per_channel(name, values, channels):
    values = [values] if isinstance(values, numbers.Real) else list(values)
    if len(values) not in (1, channels):
        raise InputError(
            f"expected {name} to hold one number or one per channel ({channels}). "
            f"Received: {values}"
        )
    return [float(value) for value in values] * (channels // len(values))


def check_image_shape(shape):
    """`(height, width, channels)` as plain integers; raises InputError if it is no such shape.

    Also where Keras is told that channels come first: layers would take the wrong axis for them.
    """
    if keras.config.image_data_format() != "channels_last":
        raise InputError(
            'keras.config.set_image_data_format("channels_last") must come first, or '
            '"image_data_format": "channels_last" in keras.json: networks here take images '
            f"[n, height, width, channels]. Received: {keras.config.image_data_format()}"
        )
    shape = tuple(shape)
    if len(shape) != 3 or not all(isinstance(x, numbers.Integral) and int(x) > 0 for x in shape):
        raise InputError(
            "--image_size: expected an image shape (height, width, channels) of three positive "
            f"integers. Received: {shape}"
        )
    return tuple(int(side) for side in shape)


# ---- layers ------------------------------------------------------------------------------------


def batch_normalization(name=None, synchronized=False):
    """BatchNormalization with the constants of the papers' recipes.

    Args:
        name: name of the layer.
        synchronized: whether the batch statistics are reduced over all replicas. TensorFlow only:
            on JAX a batch that is sharded over devices is one batch anyway.

    Raises:
        InputError: if `synchronized` is asked for on another backend.
    """
    if synchronized and keras.backend.backend() != "tensorflow":
        raise InputError(
            "expected synchronized batch normalization to be off, or KERAS_BACKEND=tensorflow. "
            f"Received: KERAS_BACKEND={keras.backend.backend()}"
        )
    return layers.BatchNormalization(
        momentum=BATCH_NORM_MOMENTUM,
        epsilon=BATCH_NORM_EPSILON,
        synchronized=synchronized,
        name=name,
    )


def he_normal_fan_out():
    """Normal of variance 2 / fan_out (He et al. 2015), not truncated, as the ResNet papers use."""
    return initializers.VarianceScaling(2.0, mode="fan_out", distribution="untruncated_normal")


def pytorch_default():
    """PyTorch's default for kernels of Linear and Conv2d: uniform in ±1/sqrt(fan_in)."""
    return initializers.VarianceScaling(1 / 3, mode="fan_in", distribution="uniform")


def pytorch_default_bias(fan_in):
    """PyTorch's default for biases: uniform in ±1/sqrt(fan_in) of the kernel beside it."""
    limit = 1 / math.sqrt(fan_in)
    return initializers.RandomUniform(-limit, limit)


def convolution(
    x,
    filters,
    kernel_size,
    strides=1,
    *,
    padding=None,
    dilation=1,
    depthwise=False,
    name,
    **options,
):
    """A convolution that pads both sides alike, as PyTorch does.

    Keras's "same" pads a strided convolution on the lower right only, which moves every feature
    map by half a pixel against the published networks. A bias is left out unless asked for,
    because nearly every convolution here is followed by BatchNorm, where a bias has no gradient.

    Args:
        x: `[batch, height, width, channels]`.
        filters: output channels; of a depthwise convolution, for each channel.
        kernel_size: height and width of the kernel.
        strides: stride of both axes.
        padding: zeros added on every side; `(kernel_size - 1) // 2` if None.
        dilation: dilation of both axes (with stride 1 only).
        depthwise: whether every channel has its own kernel.
        name: name of the convolution; its padding layer is called `<name>_pad`.
        **options: of the layer; the kernel's initialiser is He normal (fan-out) by default.
    """
    if padding is None:
        padding = (kernel_size - 1) // 2
    keeps_size = strides == 1 and kernel_size == 2 * padding + 1
    if padding and not keeps_size:
        x = layers.ZeroPadding2D(padding, name=f"{name}_pad")(x)
    initializer = "depthwise_initializer" if depthwise else "kernel_initializer"
    if initializer not in options:
        options[initializer] = he_normal_fan_out()
    options = {
        "use_bias": False,
        "strides": strides,
        "padding": "same" if keeps_size else "valid",
        "dilation_rate": dilation,
        "name": name,
        **options,
    }
    if depthwise:
        return layers.DepthwiseConv2D(kernel_size, depth_multiplier=filters, **options)(x)
    return layers.Conv2D(filters, kernel_size, **options)(x)


def adapt_application(backbone, features, normalize, changes=None):
    """Rebuilds a backbone of keras.applications with other options in its layers.

    keras.applications has no argument for the BatchNorm constants (it uses momentum 0.99 or 0.999
    and other epsilons), for the biases (ResNet-50 has them before BatchNorm, where they have no
    gradient), for dilation or for the initialisers: Glorot's rule takes a depthwise kernel for a
    full one, so that an untrained MobileNetV2 in inference mode returns logits of 1e-11. The
    weights are drawn anew.

    Args:
        backbone: the model that keras.applications returned.
        features: the tensor in it that counts.
        normalize: `batch_normalization` with its arguments.
        changes: dict from a layer's name to constructor arguments to be replaced.

    Returns:
        A model from the backbone's input to the features, with the same names of layers.
    """
    changes = changes or {}

    def rebuild(layer):
        if isinstance(layer, layers.BatchNormalization):
            return normalize(name=layer.name)
        config = layer.get_config()
        if isinstance(layer, layers.Conv2D | layers.DepthwiseConv2D):
            # Every convolution in these backbones is followed by BatchNorm.
            kind = "depthwise" if isinstance(layer, layers.DepthwiseConv2D) else "kernel"
            config |= {"use_bias": False, f"{kind}_initializer": he_normal_fan_out()}
        return type(layer).from_config({**config, **changes.get(layer.name, {})})

    return keras.models.clone_model(
        keras.Model(backbone.inputs[0], features), clone_function=rebuild
    )
