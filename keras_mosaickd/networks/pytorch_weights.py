"""Weights of a PyTorch network in one of this project's networks.

The weights come as a file of named arrays (safetensors or .npz) with the names of a PyTorch
``state_dict``. A layer map says which layer of ours takes those of which layer there; the layers'
types say the rest: convolutions OIHW -> HWIO, linear layers transposed, the four statistics of
BatchNorm. No PyTorch is needed, and nothing is unpickled.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import numpy as np

from keras_mosaickd import networks
from keras_mosaickd.errors import InputError
from keras_mosaickd.extras import require
from keras_mosaickd.networks import pytorch_layers as layer_maps

# What DataParallel and torch.compile put in front of every name.
_WRAPPERS = re.compile(r"^((module|_orig_mod)\.)+")
# A counter that Keras's BatchNorm has no use for: its momentum is a constant.
_COUNTER = "num_batches_tracked"

_BATCH_NORM = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}
_KERNEL = {"weight": "kernel", "bias": "bias"}
# Type of layer -> name of each array there -> variable here; and the axes of its kernel.
_LAYERS: tuple[tuple[type, dict[str, str], tuple[int, ...]], ...] = (
    (keras.layers.BatchNormalization, _BATCH_NORM, (0,)),
    (keras.layers.Dense, _KERNEL, (1, 0)),
    (keras.layers.DepthwiseConv2D, _KERNEL, (2, 3, 0, 1)),
    (keras.layers.Conv2D, _KERNEL, (2, 3, 1, 0)),
)


def import_weights(
    weights: Mapping[str, np.ndarray],
    network: str,
    image_size: int = 32,
    normalization: tuple[Sequence[float], Sequence[float]] | None = None,
    layer_map: Mapping[str, str] | None = None,
) -> keras.Model:
    """Builds one of this project's networks with the weights of its PyTorch counterpart.

    Channels and classes follow from the weights. Every array is used exactly once and every layer
    filled. A convolution's bias, where ours has none because BatchNorm follows, is taken off that
    BatchNorm's moving mean, which is the same function.

    Args:
        weights: Arrays by their names in the `state_dict`.
        network: A classifier's name, see `keras_mosaickd.networks.names`.
        image_size: Height and width of the images in pixels.
        normalization: Mean and standard deviation, per channel or one number each, by which the
            PyTorch network's images in [0, 1] were normalised; becomes a layer. None: not at all.
        layer_map: Layer there -> layer here (`"layer1.0.conv1": "group1_block1_conv1"`), for all
            layers. None takes the built-in map of the network's family.

    Returns:
        A model from images [B, h, w, c] in [0, 1] to float32 logits [B, classes].

    Raises:
        InputError: If a weight has no layer or a layer no weight, or the first whose shape or
            values do not fit.
    """
    arrays = _by_layer(weights, network, layer_map)
    shape, classes = _sizes(arrays, network, image_size)
    mean, std = normalization or (None, None)
    model = networks.build(network, shape, classes, mean=mean, std=std)
    filled = [layer for layer in model.layers if _roles(layer)]
    for layer in filled:
        if layer.name not in arrays:
            raise _missing(layer, network)
    for layer in filled:
        names = dict(arrays[layer.name])
        if isinstance(layer, keras.layers.Conv2D) and not layer.use_bias and "bias" in names:
            _move_bias(layer, names.pop("bias"), arrays, model)
        _fill(layer, names)
    return model


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads named arrays from a .safetensors or .npz file; neither can hold code.

    Raises:
        InputError: If it is another file, cannot be read, or safetensors is not installed.
    """
    path = Path(path)
    if path.suffix not in (".safetensors", ".npz"):
        raise InputError(
            "expected weights in a .safetensors or .npz file (a PyTorch checkpoint is a pickle, "
            "which can run code; in PyTorch: safetensors.torch.save_file(model.state_dict(), "
            f"'weights.safetensors')). Received: {path}"
        )
    if not path.is_file():
        raise InputError(f"expected a file of weights. Received: {path}, which is none")
    if path.suffix == ".safetensors":
        require(f"{path} (an .npz needs nothing)", "safetensors")
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        from safetensors.numpy import load_file

        return load_file(path)
    except Exception as error:
        raise InputError(
            f"expected a readable file of arrays of 16, 32 or 64 bits. Received: {path} "
            f"({type(error).__name__}: {error})"
        ) from error


def _by_layer(weights, network, layer_map):
    """The arrays as {layer here: {what it is: (its name, the array)}}."""
    find = layer_maps.finder(network, layer_map)
    found: dict[str, dict[str, tuple[str, np.ndarray]]] = {}
    for name, array in weights.items():
        there, _, what = _WRAPPERS.sub("", name).rpartition(".")
        if what == _COUNTER:
            continue
        here = find(there)
        if here is None:
            raise InputError(
                f"expected every weight to belong to a layer of {network}; the "
                f"{'--layer_map' if layer_map else 'built-in layer map'} has none for '{there}'. "
                f"Received: {name}"
            )
        if what in found.setdefault(here, {}):
            raise InputError(
                f"expected one weight for {here}. Received: {found[here][what][0]} and {name}"
            )
        found[here][what] = (name, array)
    return found


def _sizes(arrays, network, image_size):
    """Shape of the images and number of classes, from the first and the last kernel.

    Checks besides that every layer that the weights name exists.
    """
    probe = networks.build(network, (image_size, image_size, 3), 2)
    layers = [layer for layer in probe.layers if _roles(layer)]
    known = {layer.name for layer in layers}
    for here, there in arrays.items():
        if here not in known:
            name = next(iter(there.values()))[0]
            raise InputError(
                f"expected weights of {network}, which has no layer {here}. Received: {name}"
            )
    kernels = []
    for layer, rank in ((layers[0], 4), (layers[-1], 2)):
        name, kernel = arrays.get(layer.name, {}).get("weight", (None, None))
        if name is None:
            raise _missing(layer, network)
        if kernel.ndim != rank:
            raise InputError(
                f"expected {name} to have {rank} axes, as {layer.name} of {network}. "
                f"Received: shape {kernel.shape}"
            )
        kernels.append(kernel)
    return (image_size, image_size, kernels[0].shape[1]), kernels[1].shape[0]


def _missing(layer, network):
    return InputError(f"expected weights for the layer {layer.name} of {network}. Received: none")


def _roles(layer):
    """`({name of an array there: variable here}, axes of the kernel)`; None without weights."""
    if isinstance(layer, keras.layers.Normalization):
        return None
    return next((rest for kind, *rest in _LAYERS if isinstance(layer, kind)), None)


def _fill(layer, names):
    variables, axes = _roles(layer)
    for what, (name, _) in names.items():
        if getattr(layer, variables.get(what, ""), None) is None:
            raise InputError(
                f"expected {', '.join(variables)} for the layer {layer.name}. Received: {name}"
            )
    for what, variable_name in variables.items():
        variable = getattr(layer, variable_name)
        if variable is None:
            continue
        if what not in names:
            raise InputError(f"expected a {what} for the layer {layer.name}. Received: none")
        name, array = names[what]
        order = axes if what == "weight" else (0,)
        # The shape there whose axes, put in this order, are the variable's.
        expected = tuple(variable.shape[order.index(axis)] for axis in range(len(order)))
        variable.assign(_checked(name, array, expected, layer).transpose(order))


def _move_bias(convolution, named_bias, arrays, model):
    """Takes a convolution's bias off the moving mean of the BatchNorm that follows it."""
    name, bias = named_bias
    followers = [layer for layer in model.layers if layer.input is convolution.output]
    if len(followers) != 1 or not isinstance(followers[0], keras.layers.BatchNormalization):
        raise InputError(
            f"expected no bias for the layer {convolution.name}, which no BatchNorm follows. "
            f"Received: {name}"
        )
    bias = _checked(name, bias, (convolution.filters,), convolution)
    there = arrays[followers[0].name]
    if "running_mean" in there:
        mean_name, mean = there["running_mean"]
        there["running_mean"] = (
            mean_name,
            _checked(mean_name, mean, bias.shape, followers[0]) - bias,
        )


def _checked(name, array, expected, layer):
    if tuple(array.shape) != tuple(expected):
        raise InputError(
            f"expected {name} to have the shape {tuple(expected)} of the layer {layer.name}. "
            f"Received: {tuple(array.shape)}"
        )
    if not np.issubdtype(array.dtype, np.floating) or not np.isfinite(array).all():
        raise InputError(
            f"expected {name} to hold finite numbers. Received: {array.dtype} with NaN, infinity "
            "or no fractions"
        )
    return array.astype("float32")
