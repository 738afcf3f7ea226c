"""How much arithmetic one image costs."""

from __future__ import annotations

import math

import keras
from keras import layers


def flops(model: keras.Model, batch: int = 1) -> int:
    """Floating-point operations of one forward pass, from the shapes of the layers.

    Counts two per multiply-add of convolutions (depthwise, separable and transposed ones too) and
    Dense layers, which hold nearly all of it; BatchNorm, activations and biases are not counted.
    A backward pass costs about twice as much again. A layer that is called several times in one
    model is counted once.

    Args:
        model: A built functional or Sequential model; nested ones are followed.
        batch: Number of images.

    Raises:
        ValueError: If a counted layer has no symbolic shapes (a subclassed model).
    """
    return 2 * batch * sum(_multiply_adds(layer) for layer in _leaves(model))


def traffic(model: keras.Model, itemsize: int = 4) -> int:
    """Bytes that one forward pass of one image moves, from the shapes of the layers.

    Every layer reads its inputs once and writes its output once; weights are not counted. A program
    that does several layers in one pass moves less.

    Args:
        model: A built functional or Sequential model; nested ones are followed.
        itemsize: Bytes of one number.

    Raises:
        ValueError: If a layer has no symbolic shapes (a subclassed model).
    """
    numbers = 0
    for layer in _leaves(model):
        if isinstance(layer, layers.InputLayer):
            continue
        if not layer._inbound_nodes:
            _shape(layer, "output")  # raises
        for node in layer._inbound_nodes:  # one for each time that it is called
            for tensor in (*node.input_tensors, *node.output_tensors):
                if None in tensor.shape[1:]:
                    raise ValueError(
                        "expected a fixed image size. "
                        f"Received: {layer.name} with {tuple(tensor.shape[1:])}"
                    )
                numbers += math.prod(tensor.shape[1:])
    return itemsize * numbers


def _leaves(model: keras.Model) -> list[layers.Layer]:
    found: dict[int, layers.Layer] = {}
    for layer in model.layers:
        members = _leaves(layer) if isinstance(layer, keras.Model) else [layer]
        found.update((id(member), member) for member in members)
    return list(found.values())


def _multiply_adds(layer: layers.Layer) -> int:
    if isinstance(layer, layers.Dense):
        # Dense acts on the last axis alone: once per position of [B, h, w, c].
        return math.prod(_shape(layer, "output")[:-1]) * math.prod(layer.kernel.shape)
    if isinstance(layer, layers.SeparableConv2D):
        positions = math.prod(_shape(layer, "output")[:-1])
        kernels = (layer.depthwise_kernel, layer.pointwise_kernel)
        return positions * sum(math.prod(kernel.shape) for kernel in kernels)
    if isinstance(layer, layers.Conv2DTranspose):
        # Every input position is spread over the whole kernel.
        return math.prod(_shape(layer, "input")[:-1]) * math.prod(layer.kernel.shape)
    if isinstance(layer, layers.Conv2D | layers.DepthwiseConv2D):
        # A kernel is [kh, kw, c / groups, filters]; a depthwise one [kh, kw, c, multiplier].
        return math.prod(_shape(layer, "output")[:-1]) * math.prod(layer.kernel.shape)
    return 0


def _shape(layer: layers.Layer, side: str) -> tuple[int, ...]:
    """Shape of the layer's input or output without the batch axis."""
    try:
        shape = getattr(layer, side).shape[1:]
    except AttributeError as error:
        raise ValueError(
            "expected a functional or Sequential model that has been built."
            f" Received: a model whose layer {layer.name!r} has no symbolic {side}"
        ) from error
    if None in shape:
        raise ValueError(f"expected a fixed image size. Received: {layer.name} {side} {shape}")
    return tuple(shape)
