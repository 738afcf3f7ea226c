"""How much arithmetic one image costs, and how much memory it moves."""

import math

import keras
from keras import layers

from keras_mosaickd.backend.keras_graph import graph


def flops(model, batch=1):
    """Floating-point operations of one forward pass, from the shapes of the layers.

    Counts two per multiply-add of convolutions (depthwise, separable and transposed ones too) and
    Dense layers, which hold nearly all of it; BatchNorm, activations and biases are not counted.
    A backward pass costs about twice as much again.

    Args:
        model: built functional or sequential model; nested ones are followed.
        batch: number of images.

    Raises:
        ValueError: if the layers cannot be seen (a subclassed model) or the image's size is open.
    """
    return 2 * batch * sum(_multiply_adds(*call) for call in _calls(model))


def traffic(model, itemsize=4):
    """Bytes that one forward pass of one image moves, from the shapes of the layers.

    Every layer reads its inputs once and writes its output once; weights are not counted. A program
    that does several layers in one pass moves less.

    Args:
        model: built functional or sequential model; nested ones are followed.
        itemsize: bytes of one number.

    Raises:
        ValueError: as of `flops`.
    """
    numbers = (
        math.prod(shape) for _, inputs, outputs in _calls(model) for shape in inputs + outputs
    )
    return itemsize * sum(numbers)


def count_parameters(model):
    """Number of a model's parameters, those of networks that are no Keras models included."""
    return model.count_params() + sum(getattr(x, "hidden_parameters", 0) for x in _layers(model))


def _layers(model):
    for layer in getattr(model, "layers", ()):
        yield layer
        yield from _layers(layer)


def _calls(model):
    """Each call of a layer for one image: the layer, the shapes of its inputs, of its outputs.

    A model inside a model may take images of any size, so shapes are followed from the outermost
    input on.
    """
    seen = _graph(model)
    found: list = []
    for tensor in seen.inputs:
        if None in tensor.shape[1:]:
            raise ValueError(
                f"expected a fixed image size. Received: {model.name!r}, {tensor.shape[1:]}"
            )
    _follow(model, [keras.KerasTensor((1, *tensor.shape[1:])) for tensor in seen.inputs], found)
    return found


def _graph(model):
    seen = graph(model)
    if seen is None:
        raise ValueError(
            "expected a functional or sequential model that has been built. Received: "
            f"{model.name!r}, whose layers cannot be seen"
        )
    return seen


def _follow(model, inputs, found):
    def call_layer(call, *args, **kwargs):
        given = [x for x in keras.tree.flatten((args, kwargs)) if isinstance(x, keras.KerasTensor)]
        if isinstance(call.layer, keras.Model):
            return _follow(call.layer, given, found)
        outputs = call.layer.compute_output_spec(*args, **kwargs)
        shapes = [[x.shape for x in keras.tree.flatten(part)] for part in (given, outputs)]
        found.append((call.layer, *shapes))
        return outputs

    return _graph(model).run(inputs, call_layer)


def _multiply_adds(layer, inputs, outputs):
    if isinstance(layer, layers.SeparableConv2D):
        kernels = (layer.depthwise_kernel, layer.pointwise_kernel)
        return math.prod(outputs[0][:-1]) * sum(math.prod(kernel.shape) for kernel in kernels)
    if isinstance(layer, layers.Conv2DTranspose):
        # Every input position is spread over the whole kernel.
        return math.prod(inputs[0][:-1]) * math.prod(layer.kernel.shape)
    if isinstance(layer, layers.Dense | layers.Conv2D | layers.DepthwiseConv2D):
        # Once per position: a Dense kernel is [c, units], a convolution's [kh, kw, c / groups,
        # filters], a depthwise one [kh, kw, c, multiplier].
        return math.prod(outputs[0][:-1]) * math.prod(layer.kernel.shape)
    if any(len(weight.shape) > 1 for weight in getattr(layer, "weights", ())):
        raise ValueError(f"expected layers that can be counted. Received: {layer.name!r}")
    return 0
