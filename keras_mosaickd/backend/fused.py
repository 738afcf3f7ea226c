"""A network run with fewer passes over memory: the same variables, the same function, less work.

`Fused(network)` is called as the network is. What it does otherwise than the network's own layers:

- Inference: a convolution and the BatchNorm that directly follows it are one convolution, whose
  kernel is scaled by BatchNorm's factor. The product is taken anew in each call (a few million
  multiplications beside 10^11), so that there is no copy to grow stale or to be saved.
- Nearest up-sampling by 2 and the 3×3 convolution that follows are one transposed convolution of
  the small image, since a pixel of the large one sees at most 2×2 different pixels of the small
  one: 4 multiplications in the place of 9.
- Convolutions, BatchNorm, ReLU and addition are the backend's own
  (`keras_mosaickd.backend.operations`), where Keras's take more passes, or much Python on PyTorch.

Models inside the network are fused likewise. What is neither functional nor sequential is called as
it is, and so is every other layer.
"""

from collections import Counter
from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import keras
from keras import layers, ops

from keras_mosaickd.backend.keras_graph import graph
from keras_mosaickd.backend.operations import (
    batch_norm,
    convolution,
    doubling_convolution,
    fixed_batch_norm,
    leaky_relu,
    relu,
    splits_batches,
)
from keras_mosaickd.errors import InputError


class Fused:
    """A network's function `(inputs, training) -> outputs`.

    It holds no variables and is no Keras layer, so that a model that has it saves and trains what
    it would without.

    Args:
        network: built Keras model; it is not changed.
    """

    def __init__(self, network: keras.Model):
        self.network = network
        self._training: dict[int, Callable] = {}
        self._inference: dict[int, Callable] = {}
        self._graph = graph(network)
        if self._graph is None:
            return
        followers = _followers(self._graph)
        # Whose input nobody else sees, and comes from a layer that makes a new tensor.
        owners = {
            follower
            for layer, follower in followers.items()
            if isinstance(layer, layers.Conv2D | layers.BatchNormalization)
        }
        for layer in dict.fromkeys(call.layer for call in self._graph.calls):
            if id(layer) in self._inference or not isinstance(layer, layers.Layer):
                continue  # the second one of a pair, or an operation like x / 2
            follower = followers.get(layer)
            if isinstance(layer, keras.Model):
                inner = Fused(layer)
                self._training[id(layer)] = partial(inner, training=True)
                self._inference[id(layer)] = partial(inner, training=False)
            elif _is_batch_norm(layer):
                self._training[id(layer)] = _normalized(layer)
                self._inference[id(layer)] = _scaled(layer)
            elif _is_split(layer):
                self._training[id(layer)] = _normalized(layer)
            elif _is_convolution(layer):
                self._training[id(layer)] = _convolved(layer)
                self._inference[id(layer)] = _convolved(layer)
                if _is_batch_norm(follower):
                    self._inference[id(layer)] = _folded(layer, follower)
                    self._inference[id(follower)] = _unchanged
                    self._training[id(follower)] = _normalized(follower)
            elif (simple := _simple(layer, layer in owners)) is not None:
                self._training[id(layer)] = self._inference[id(layer)] = simple
            elif _is_doubling(layer) and _is_small_convolution(follower):
                for table in (self._training, self._inference):
                    table[id(layer)] = _unchanged
                    table[id(follower)] = _upsampled(follower)

    def __call__(self, inputs: Any, training: bool = False) -> Any:
        """The network's outputs; a list of them where there are several."""
        replaced = self._training if training else self._inference
        if not replaced:
            return self.network(inputs, training=training)

        def call_layer(call, *args, **kwargs):
            if id(call.layer) in replaced and args:
                # The graph gives some layers a mask=None; images have no mask.
                return replaced[id(call.layer)](args[0])
            return call(training, *args, **kwargs)

        values = [
            ops.convert_to_tensor(value, dtype=symbolic.dtype)
            for value, symbolic in zip(keras.tree.flatten(inputs), self._graph.inputs, strict=True)
        ]
        outputs = self._graph.run(values, call_layer)
        return outputs if len(outputs) > 1 else outputs[0]


def check_shared_statistics(network: keras.Model) -> None:
    """Raises unless BatchNorm's statistics are those of the global batch, where it is split.

    Raises:
        InputError: naming a layer that is not in sight.
    """
    if not splits_batches():
        return
    seen = _batch_norms(network)
    for module in network.modules():
        if isinstance(module, layers.BatchNormalization) and id(module) not in seen:
            raise InputError(
                "--strategy=processes needs networks whose BatchNorm layers can be seen, to take "
                f"their statistics over all processes. Received: {network.name!r}, in which "
                f"{module.name!r} is part of a layer or model that is not functional"
            )


def _batch_norms(network):
    """Those that a `Fused` of the network replaces."""
    found = set()
    for call in getattr(graph(network), "calls", ()):
        if isinstance(call.layer, keras.Model):
            found |= _batch_norms(call.layer)
        elif isinstance(call.layer, layers.BatchNormalization):
            found.add(id(call.layer))
    return found


# ---- which layers ----------------------------------------------------------------------------


def _followers(seen):
    """Layer -> the only layer that sees its output, where there is one and each is called once."""
    users: dict[Any, list] = {}
    times = Counter(call.layer for call in seen.calls)
    makers = {id(tensor): call.layer for call in seen.calls for tensor in call.outputs}
    for call in seen.calls:
        for tensor in call.inputs:
            users.setdefault(makers.get(id(tensor)), []).append(call.layer)
    for tensor in seen.outputs:
        users.setdefault(makers.get(id(tensor)), []).append(None)
    return {
        layer: following[0]
        for layer, following in users.items()
        if len(following) == 1 and times[layer] == times[following[0]] == 1
    }


def _is_convolution(layer):
    return (
        type(layer) is layers.Conv2D
        and layer.data_format == "channels_last"
        and layer.activation is keras.activations.linear
        and layer.activity_regularizer is None
        and getattr(layer, "quantization_mode", None) is None
    )


def _is_small_convolution(layer):
    return (
        _is_convolution(layer)
        and (layer.kernel_size, layer.strides, layer.dilation_rate) == ((3, 3), (1, 1), (1, 1))
        and (layer.padding, layer.groups, layer.use_bias) == ("same", 1, False)
    )


def _is_batch_norm(layer):
    return (
        type(layer) is layers.BatchNormalization
        and not layer.synchronized
        and layer.input_spec.ndim == 4
        and layer.axis in (-1, 3)
        and layer.scale
        and layer.center
        # TensorFlow has no other one.
        and layer.variable_dtype == "float32"
        and layer.compute_dtype != "float64"
    )


def _is_split(layer):
    """Whether it is a BatchNorm that would see a part of its batch alone."""
    return isinstance(layer, layers.BatchNormalization) and splits_batches()


def _is_doubling(layer):
    return (
        type(layer) is layers.UpSampling2D
        and layer.size == (2, 2)
        and layer.interpolation == "nearest"
        and layer.data_format == "channels_last"
    )


# ---- what they become ------------------------------------------------------------------------


def _unchanged(x):
    return x


def _convolved(layer):
    def call(x):
        return _convolve(layer, x, layer.kernel, layer.bias if layer.use_bias else None)

    return call


def _folded(layer, normalization):
    def call(x):
        # BatchNorm in inference mode as x * scale + shift.
        scale = normalization.gamma * ops.rsqrt(
            normalization.moving_variance + normalization.epsilon
        )
        shift = normalization.beta - normalization.moving_mean * scale
        bias = shift + layer.bias * scale if layer.use_bias else shift
        return _convolve(layer, x, layer.kernel * scale, bias)

    return call


def _convolve(layer, x, kernel, bias):
    """The layer's convolution with a given kernel and bias, in the layer's compute dtype."""
    dtype = layer.compute_dtype
    return convolution(
        ops.cast(x, dtype),
        ops.cast(kernel, dtype),
        None if bias is None else ops.cast(bias, dtype),
        layer.strides,
        layer.padding,
        layer.dilation_rate,
    )


def _scaled(layer):
    def call(x):
        return fixed_batch_norm(
            ops.cast(x, layer.compute_dtype),
            ops.convert_to_tensor(layer.moving_mean),
            ops.convert_to_tensor(layer.moving_variance),
            ops.convert_to_tensor(layer.gamma),
            ops.convert_to_tensor(layer.beta),
            layer.epsilon,
        )

    return call


def _normalized(layer):
    def call(x):
        if not layer.trainable:
            return layer(x, training=True)  # which is inference mode, in Keras
        x = ops.moveaxis(ops.cast(x, layer.compute_dtype), layer.axis, -1)
        x, mean, variance = batch_norm(
            x,
            ops.convert_to_tensor(layer.gamma) if layer.scale else ops.ones(x.shape[-1]),
            ops.convert_to_tensor(layer.beta) if layer.center else ops.zeros(x.shape[-1]),
            layer.epsilon,
        )
        for moving, value in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
            value = ops.stop_gradient(ops.cast(value, moving.dtype))
            moving.assign(moving * layer.momentum + value * (1.0 - layer.momentum))
        return ops.moveaxis(x, -1, layer.axis)

    return call


def _simple(layer, may_overwrite):
    """The function of a layer that has neither variables nor a mode, or None."""
    dtype = layer.compute_dtype
    if layer.activity_regularizer is not None:
        return None
    if type(layer) is layers.Add:
        return lambda terms: reduce(ops.add, [ops.cast(term, dtype) for term in terms])
    if type(layer) is layers.LeakyReLU:
        return lambda x: leaky_relu(ops.cast(x, dtype), layer.negative_slope, may_overwrite)
    if type(layer) is layers.ReLU:
        limits = (layer.max_value, layer.negative_slope, layer.threshold)
        is_relu = limits == (None, 0.0, 0.0)
    else:
        is_relu = type(layer) is layers.Activation and layer.activation is keras.activations.relu
    return (lambda x: relu(ops.cast(x, dtype), may_overwrite)) if is_relu else None


def _upsampled(layer):
    """Up-sampling and the 3×3 convolution `layer` behind it, as one transposed convolution.

    Nearest up-sampling puts zeros between the pixels and correlates with a 2×2 kernel of ones. That
    one and the layer's 3×3 kernel are together a kernel of 4×4.
    """

    def call(x):
        kernel = ops.cast(layer.kernel, layer.compute_dtype)
        rows = ops.pad(kernel, ((1, 0), (0, 0), (0, 0), (0, 0))) + ops.pad(
            kernel, ((0, 1), (0, 0), (0, 0), (0, 0))
        )
        both = ops.pad(rows, ((0, 0), (1, 0), (0, 0), (0, 0))) + ops.pad(
            rows, ((0, 0), (0, 1), (0, 0), (0, 0))
        )
        return doubling_convolution(ops.cast(x, layer.compute_dtype), both)

    return call
