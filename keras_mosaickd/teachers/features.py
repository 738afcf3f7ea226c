"""Images as a teacher sees them: its features before the last layer, and its probabilities."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_mosaickd.backend.keras_graph import producer

# Images at a time through a network; a whole sample at once would fill an accelerator's memory.
_BATCH = 128


def feature_model(teacher: Any) -> Any:
    """A model that gives the input of the teacher's last layer with weights, and its logits.

    Where the layers cannot be seen (a subclassed model), the logits stand for the features.

    Args:
        teacher: Built Keras model from images to logits.

    Returns:
        Keras model with outputs (features, logits) on the teacher's own layers.
    """
    features = _features(teacher)
    if features is not None:
        return keras.Model(teacher.inputs[0], [features, teacher.outputs[0]])
    inputs = keras.Input(teacher.input_shape[1:])
    logits = teacher(inputs)
    return keras.Model(inputs, [logits, logits])


def _features(model: Any) -> Any:
    """The tensor that enters the last layer with weights, by the model's inputs; or None."""
    tensor = (getattr(model, "outputs", None) or [None])[0]
    while (call := producer(tensor)) is not None:
        layer, inputs = call.layer, call.inputs
        if len(inputs) != 1:
            return None
        if isinstance(layer, keras.Model):
            inner = _features(layer)
            return None if inner is None else keras.Model(layer.inputs[0], inner)(inputs[0])
        if getattr(layer, "weights", ()):
            return inputs[0]
        tensor = inputs[0]
    return None


def see(features: Any, images: Any) -> tuple[np.ndarray, np.ndarray]:
    """What a teacher makes of images.

    Args:
        features: Of `feature_model`.
        images: [n, h, w, c]: uint8, or floats in [0, 1].

    Returns:
        Features [n, d], averaged over the positions where there is a map of them, and
        probabilities [n, classes] or, of predictions per pixel, [n, h, w, classes].
    """
    seen: tuple[list[np.ndarray], list[np.ndarray]] = [], []
    for start in range(0, len(images), _BATCH):
        batch = np.asarray(images[start : start + _BATCH])
        scale = 255.0 if batch.dtype == np.uint8 else 1.0
        outputs = features(
            keras.ops.convert_to_tensor(batch.astype("float32") / scale), training=False
        )
        for part, output in zip(seen, outputs, strict=True):
            part.append(keras.ops.convert_to_numpy(keras.ops.cast(output, "float32")))
    points, logits = (np.concatenate(part).astype(np.float64) for part in seen)
    points = points.reshape(len(points), -1, points.shape[-1]).mean(axis=1)
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return points, exponentials / exponentials.sum(axis=-1, keepdims=True)


def generate(generator: Any, latents: Any) -> np.ndarray:
    """Images float32 [n, h, w, c] of latents [n, latent_dim], in inference mode."""
    latents = np.asarray(latents, "float32")
    batches = [
        generator(keras.ops.convert_to_tensor(latents[start : start + _BATCH]), training=False)
        for start in range(0, len(latents), _BATCH)
    ]
    return np.concatenate(
        [keras.ops.convert_to_numpy(keras.ops.cast(batch, "float32")) for batch in batches]
    )
