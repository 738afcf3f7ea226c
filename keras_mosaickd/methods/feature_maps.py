"""Which feature maps of two networks are compared, and how they come to one size."""

import collections
import math

import keras

from keras_mosaickd.backend.keras_graph import graph, producer
from keras_mosaickd.errors import InputError
from keras_mosaickd.networks.features import features

_NO_FEATURES = (keras.layers.InputLayer, keras.layers.Normalization, keras.layers.Rescaling)


def hint_maps(teacher, student, hint_layer=None, guided_layer=None):
    """The maps that FitNet compares.

    Args:
        teacher: functional or sequential Keras model.
        student: functional or sequential Keras model.
        hint_layer: name of the teacher's layer, or None.
        guided_layer: name of the student's layer, or None.

    Returns:
        For teacher and student the name of the layer that was chosen, and its symbolic map; both
        maps have the same height and width.

    Raises:
        InputError: if a layer is not found, or the two maps cannot be brought to one size.
    """
    if hint_layer is None:
        size = guided_layer and feature_map(student, "student", guided_layer).shape[1:3]
        hint_layer = layer_like(teacher, "teacher", size)
    hint = feature_map(teacher, "teacher", hint_layer)
    guided_layer = guided_layer or layer_like(student, "student", hint.shape[1:3])
    guided = feature_map(student, "student", guided_layer)
    hint, guided = to_one_size(hint, guided)
    return (hint_layer, hint), (guided_layer, guided)


def last_features(teacher, student):
    """What enters the last layers of two networks, of one height and width where there are.

    Maps are compared before a global average pooling where they can be brought to one size, else
    what enters the last layers themselves.

    Args:
        teacher: Keras model.
        student: Keras model.

    Returns:
        Two symbolic tensors `[None, ..., channels]`, of unequal channels perhaps.

    Raises:
        InputError: if the layers of one cannot be seen, or the shapes do not fit.
    """
    for before_pooling in (True, False):
        pair = [features(network, before_pooling) for network in (teacher, student)]
        for role, network, found in zip(
            ("teacher", "student"), (teacher, student), pair, strict=True
        ):
            if found is None:
                raise InputError(
                    "feature_weight: expected networks whose last layer can be seen. Received: "
                    f"the {role} {network.name!r}, whose layers are hidden"
                )
        shapes = [tensor.shape[1:] for tensor in pair]
        if list(map(len, shapes)) == [1, 1]:
            return tuple(pair)
        if list(map(len, shapes)) == [3, 3] and None not in (*shapes[0], *shapes[1]):
            try:
                return to_one_size(*pair)
            except InputError:
                continue
    raise InputError(
        "feature_weight: expected last features of one shape but for the channels. Received: "
        f"{pair[0].shape[1:]} of the teacher and {pair[1].shape[1:]} of the student"
    )


def feature_maps(network):
    """The last layer of each resolution on a network's way down.

    Resolutions are counted from the image to the smallest map. Padded maps, a segmenter's way
    back up, 1 x 1 maps (pooled features), the network's own output and layers that only rescale
    the image have no part in it.

    Args:
        network: functional or sequential Keras model with one input `[batch, height, width,
            channels]`.

    Returns:
        Dict from `(height, width)`, largest first, to the layer's name; empty where the layers
        cannot be seen or the image's size is not fixed.
    """
    height, width = (math.inf if side is None else side for side in network.input_shape[1:3])
    last: dict[tuple[int, int], str] = {}
    for layer, output in _maps(network):
        if isinstance(layer, _NO_FEATURES) or output is network.outputs[0]:
            continue
        size = output.shape[1:3]
        if size != (1, 1) and size[0] <= height and size[1] <= width:
            height, width = size
            last[size] = layer.name
    return last


def layer_like(network, role, size=None):
    """Name of the layer to compare: the last one with maps of `size`, or of the middle resolution.

    The middle of an even number of resolutions is the larger one, so that on 32 x 32 images all
    networks of the paper are compared at 16 x 16, as the distillation literature does (Tian et al.
    2020, arXiv 1910.10699).

    Args:
        network: as of `feature_maps`.
        role: what to call the network in errors.
        size: `(height, width)`, or None.

    Raises:
        InputError: if the network has no layer with a feature map to be seen.
    """
    maps = feature_maps(network)
    if not maps and (call := _wrapped(network)) is not None:
        return layer_like(call.layer, role, size)
    if not maps:
        names = ", ".join(layer.name for layer in network.layers)
        raise InputError(
            f"expected a layer with a feature map [batch, height, width, channels] of fixed size "
            f"in the {role} {network.name!r}. Received: layers {names or 'none'}"
        )
    sizes = list(maps)
    return maps[size if size in maps else sizes[(len(sizes) - 1) // 2]]


def feature_map(network, role, name):
    """The symbolic feature map `[None, height, width, channels]` that a named layer gives.

    Raises:
        InputError: if there is no such layer or it gives none.
    """
    maps = {layer.name: output for layer, output in _maps(network)}
    output = maps.get(name)
    if output is None and (call := _wrapped(network)) is not None:
        inner = feature_map(call.layer, role, name)
        wrapped = keras.Model(call.layer.inputs[0], inner, name=f"{call.layer.name}_hint")
        return wrapped(call.inputs[0])
    if output is None:
        raise InputError(
            f"expected the name of a layer of the {role} {network.name!r} with a feature map "
            f"[batch, height, width, channels]: one of {', '.join(maps) or '(none)'}. "
            f"Received: {name!r}"
        )
    return output


def to_one_size(hint, guided):
    """Averages the larger of two feature maps, by axis, down to the size of the smaller.

    Args:
        hint: symbolic feature map `[None, height, width, channels]` of the teacher.
        guided: that of the student.

    Returns:
        Both, with the same height and width.

    Raises:
        InputError: if one size is not a multiple of the other.
    """
    sizes = hint.shape[1:3], guided.shape[1:3]
    target = tuple(min(pair) for pair in zip(*sizes, strict=True))
    if any(side % wanted for size in sizes for side, wanted in zip(size, target, strict=True)):
        raise InputError(
            "expected feature maps of one size, or one a multiple of the other: a student that "
            "halves its maps as the teacher does, or other layers (hint_layer, guided_layer of "
            f"km.FitNet). Received: {hint.shape[1:]} of the teacher and {guided.shape[1:]} of the "
            "student"
        )
    return tuple(_average(features, target) for features in (hint, guided))


def _wrapped(network):
    """The call of the model inside a network that has no feature maps but in there.

    A teacher whose images are scaled, or whose answers become logits, is such a network.
    """
    if feature_maps(network):
        return None
    call = producer(network.outputs[0])
    while call is not None and len(call.inputs) == 1:
        if getattr(call.layer, "outputs", None):
            return call
        call = producer(call.inputs[0])
    return None


def _average(features, size):
    factors = tuple(side // wanted for side, wanted in zip(features.shape[1:3], size, strict=True))
    return features if factors == (1, 1) else keras.layers.AveragePooling2D(factors)(features)


def _maps(network):
    """The layers that give one map of fixed size on the way to a network's output, and the maps.

    A layer may have been called in other models too: one that is rebuilt has been, when it is
    loaded. A map of theirs would run the network twice.
    """
    seen = graph(network)
    calls = [] if seen is None else seen.calls
    # Operations, such as `images / 255`, are no layers.
    calls = [call for call in calls if isinstance(call.layer, keras.layers.Layer)]
    times = collections.Counter(id(call.layer) for call in calls)
    for call in calls:
        shape = getattr(call.outputs[0], "shape", ())
        is_map = len(call.outputs) == 1 and len(shape) == 4 and None not in shape[1:]
        if is_map and times[id(call.layer)] == 1:
            yield call.layer, call.outputs[0]
