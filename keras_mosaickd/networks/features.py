"""A network's last layer, what enters it, and layers that two networks share."""

import keras

from keras_mosaickd.backend.keras_graph import producer


def features(model, before_pooling=False):
    """What enters the last layer with weights.

    Args:
        model: built Keras model; a nested last model is looked into.
        before_pooling: whether to go back to the map `[None, height, width, channels]` where a
            global average pooling made the features.

    Returns:
        Symbolic tensor by the model's inputs; None where the layers cannot be seen.
    """
    return _walk(
        model, lambda call: _unpooled(call.inputs[0]) if before_pooling else call.inputs[0]
    )


def last_layer(model):
    """The last layer with weights; None where the layers cannot be seen."""
    tensor = (getattr(model, "outputs", None) or [None])[0]
    while (call := producer(tensor)) is not None and len(call.inputs) == 1:
        if isinstance(call.layer, keras.Model):
            return last_layer(call.layer)
        if getattr(call.layer, "weights", ()):
            return call.layer
        tensor = call.inputs[0]
    return None


def copy_layers(source, target):
    """Gives a network's layers the weights of another's layers of the same name and shapes.

    The last layers count as of one name.

    Args:
        source: built Keras model.
        target: built Keras model; its weights change.

    Returns:
        Number of layers that were given weights, and number of layers that have some.
    """
    layers = {layer.name: layer for layer in source.layers}
    ends = last_layer(source), last_layer(target)
    if None not in ends:
        layers[ends[1].name] = ends[0]
    own = [layer for layer in target.layers if layer.weights]
    copied = 0
    for layer in own:
        weights = layers[layer.name].get_weights() if layer.name in layers else []
        if [weight.shape for weight in weights] == [
            tuple(weight.shape) for weight in layer.weights
        ]:
            layer.set_weights(weights)
            copied += 1
    return copied, len(own)


def _walk(model, chosen):
    """`chosen(call)` of the last call of a layer with weights, by the model's inputs; or None."""
    tensor = (getattr(model, "outputs", None) or [None])[0]
    while (call := producer(tensor)) is not None:
        if len(call.inputs) != 1:
            return None
        if isinstance(call.layer, keras.Model):
            inner = _walk(call.layer, chosen)
            if inner is None:
                return None
            # Keras's own name would be that of the first model of another process, a teacher's.
            name = f"{call.layer.name}_features"
            return keras.Model(call.layer.inputs[0], inner, name=name)(call.inputs[0])
        if getattr(call.layer, "weights", ()):
            return chosen(call)
        tensor = call.inputs[0]
    return None


def _unpooled(tensor):
    """The map of which a global average pooling made a tensor, else the tensor."""
    behind = tensor
    while (call := producer(behind)) is not None and len(call.inputs) == 1:
        if isinstance(call.layer, keras.layers.GlobalAveragePooling2D):
            return call.inputs[0]
        if not isinstance(call.layer, keras.layers.Dropout | keras.layers.Flatten):
            break
        behind = call.inputs[0]
    return tensor
