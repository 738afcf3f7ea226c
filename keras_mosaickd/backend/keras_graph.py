"""Every use of what Keras does not document: the graph of a model's layers, and a few names.

Each has a fallback: a graph that cannot be seen is `None`, of which the fused pass makes a plain
call and the cost "not known". Seeds that are not found are an error: a resumed run would silently
be another one. `tests/test_keras_graph.py` says which Keras broke what.
"""

import inspect
import warnings
from collections.abc import Collection
from typing import Any, NamedTuple

import keras


class Call(NamedTuple):
    """One call of a layer (or another operation) in the graph of a model.

    Attributes:
        layer: what was called.
        inputs: the symbolic tensors that it was given.
        outputs: those that it gave.
        node: Keras's record of the call.
        has_modes: whether the layer's call takes `training`.
    """

    layer: Any
    inputs: list
    outputs: list
    node: Any
    has_modes: bool

    def __call__(self, training, /, *args, **kwargs):
        """Calls the layer, in training or in inference mode where it has modes."""
        if self.has_modes:
            kwargs["training"] = training
        return self.layer(*args, **kwargs)


class Graph:
    """The calls of a functional model, in an order in which they can be made.

    Args:
        model: functional model.
        calls: list of `Call`.
    """

    def __init__(self, model, calls):
        self.calls = calls
        self.inputs, self.outputs = model.inputs, model.outputs
        needed: set[int] = set(map(id, self.outputs))
        self._dropped: list[set[int]] = []
        for call in reversed(calls):
            tensors = {id(tensor) for tensor in (*call.inputs, *call.outputs)}
            self._dropped.insert(0, tensors - needed)
            needed |= tensors

    def run(self, values, function):
        """Makes the calls on given values.

        Every value is dropped after its last use: where nothing is differentiated, PyTorch would
        hold the outputs of all layers to the end.

        Args:
            values: what stands for the inputs, in their order.
            function: called with each `Call` and its arguments, gives what stands for its outputs.

        Returns:
            List of what stands for the model's outputs.
        """
        known = dict(zip(map(id, self.inputs), values, strict=True))
        for call, dropped in zip(self.calls, self._dropped, strict=True):
            args, kwargs = call.node.arguments.fill_in(known)
            results = keras.tree.flatten(function(call, *args, **kwargs))
            del args, kwargs
            known |= zip(map(id, call.outputs), results, strict=True)
            del results
            for key in dropped:
                del known[key]
        return [known[id(tensor)] for tensor in self.outputs]


def graph(model):
    """The `Graph` of a functional or sequential model; None where it cannot be seen."""
    if isinstance(model, keras.Sequential) and model.built and model.layers:
        model = keras.Model(model.inputs, model.outputs)
    if not isinstance(model, keras.Function):
        return None
    try:
        by_depth = model._nodes_by_depth
        nodes = [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]
        return Graph(model, [_call(node) for node in nodes if not node.is_input])
    except AttributeError:
        return _unseen(model)


def producer(tensor):
    """The `Call` that made a symbolic tensor; None where it cannot be seen."""
    layer, index, _ = getattr(tensor, "_keras_history", None) or (None, 0, 0)
    try:
        return None if layer is None else _call(layer._inbound_nodes[index])
    except AttributeError:
        return _unseen(layer)


def activation_of(layer):
    """Name of the function that a layer or operation ends in: "softmax", "sigmoid", "linear".

    None where it is none of these, or not known. A softmax counts over the last axis alone.
    """
    if isinstance(layer, keras.layers.Softmax):
        return "softmax" if layer.axis in (-1, (-1,), [-1]) else None
    if not isinstance(layer, keras.layers.Layer):
        # `keras.ops.softmax(x)` in a functional model is an operation, whose class has no
        # documented name.
        name, axis = type(layer).__name__.lower(), getattr(layer, "axis", -1)
        return name if name in ("softmax", "sigmoid") and axis == -1 else None
    function = getattr(layer, "activation", None)
    known = {name: getattr(keras.activations, name) for name in ("softmax", "sigmoid", "linear")}
    return next((name for name, value in known.items() if value is function), None)


def signature_of(layer):
    """The concrete function of a `keras.layers.TFSMLayer`, whose shapes the layer does not tell.

    Raises:
        RuntimeError: where this Keras keeps it elsewhere.
    """
    try:
        return layer.call_endpoint_fn
    except AttributeError as error:
        raise RuntimeError(f"Keras {keras.__version__} hides a SavedModel's signature") from error


def seed_states(model):
    """The variables of all seeds of a model and its layers, in Keras's order.

    Raises:
        RuntimeError: where this Keras keeps one elsewhere.
    """
    name = keras.random.SeedGenerator(0).state.name
    found = [variable for variable in model.non_trainable_variables if variable.name == name]
    missing = {id(seed.state): seed for seed in _seeds(model)}
    for state in found:
        missing.pop(id(state), None)
    if missing:
        raise RuntimeError(
            f"Keras {keras.__version__} does not show {len(missing)} random seeds of "
            f"{model.name!r} among its variables: a run could not be resumed"
        )
    return found


def portable(settings):
    """Serialised settings that every backend reads.

    On PyTorch an optimizer serialises as its private class, which other backends lack.
    """
    if isinstance(settings, list | tuple):
        return type(settings)(map(portable, settings))
    if not isinstance(settings, dict):
        return settings
    settings = {key: portable(value) for key, value in settings.items()}
    is_private = str(settings.get("module")).startswith("keras.src.")
    if is_private and hasattr(keras.optimizers, str(settings.get("class_name"))):
        settings["module"] = "keras.optimizers"
    return settings


def _call(node):
    has_modes = "training" in inspect.signature(node.operation.call).parameters
    return Call(node.operation, list(node.input_tensors), list(node.outputs), node, has_modes)


def _unseen(what):
    warnings.warn(
        f"Keras {keras.__version__} does not show the graph of {what.name!r} as Keras 3.15 does: "
        "its layers are taken as unknown, and training is slower",
        RuntimeWarning,
        stacklevel=3,
    )


def _seeds(model):
    """Every `SeedGenerator` that is an attribute of a model or of a layer in it."""
    seen, waiting = {id(model)}, [model]
    while waiting:
        for value in vars(waiting.pop()).values():
            members = value.values() if isinstance(value, dict) else value
            for member in members if isinstance(members, Collection) else [value]:
                if isinstance(member, keras.random.SeedGenerator):
                    yield member
                elif isinstance(member, keras.layers.Layer) and id(member) not in seen:
                    seen.add(id(member))
                    waiting.append(member)
