"""Bends the networks of keras.applications to this package's conventions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import layers

from keras_mosaickd.networks.layers import batch_normalization, he_normal_fan_out

_INITIALIZER_OF = {
    layers.Conv2D: "kernel_initializer",
    layers.DepthwiseConv2D: "depthwise_initializer",
}


def adapt_application(
    model: keras.Model,
    backbone: keras.Model,
    synchronized_batch_norm: bool = False,
    changes: Mapping[str, Mapping[str, Any]] | None = None,
) -> keras.Model:
    """Rebuilds a model around a backbone of keras.applications with other options in its layers.

    keras.applications has no argument for the BatchNorm constants (it uses momentum 0.99 or 0.999
    and other epsilons), for the biases (ResNet-50 has them before BatchNorm, where they have no
    gradient), for dilation or for the initialisers: Glorot's rule takes a depthwise kernel for a
    full one, so that an untrained MobileNetV2 in inference mode returns logits of 1e-11. The
    weights are drawn anew.

    Args:
        model: The whole functional model, whose graph contains the backbone's layers.
        backbone: The model that keras.applications returned.
        synchronized_batch_norm: See `batch_normalization`.
        changes: Name of a layer -> constructor arguments to be replaced.

    Returns:
        A new model of the same name and layer names.
    """
    members = {layer.name for layer in backbone.layers}
    changes = changes or {}

    def rebuild(layer: layers.Layer) -> layers.Layer:
        if layer.name in members and isinstance(layer, layers.BatchNormalization):
            return batch_normalization(layer.name, synchronized_batch_norm)
        config = layer.get_config()
        if layer.name in members and isinstance(layer, layers.Conv2D | layers.DepthwiseConv2D):
            # Every convolution in these backbones is followed by BatchNorm.
            config["use_bias"] = False
            config[_INITIALIZER_OF[type(layer)]] = he_normal_fan_out()
        config.update(changes.get(layer.name, {}))
        return type(layer).from_config(config)

    return keras.models.clone_model(model, clone_function=rebuild)
