"""The teacher's entropy of every image of a pool."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mosaickd.backend.training import whole_batches
from keras_mosaickd.data.pixels import unit_range_tensor
from keras_mosaickd.data.streams.plan import positive
from keras_mosaickd.files import sha256
from keras_mosaickd.networks.heads import head_of

# Batches of one call of `predict` on JAX and PyTorch. It keeps each batch's few numbers to its end,
# and between them the space of larger arrays is lost when they go: on PyTorch 0.7 MB with each
# batch of 256 images of 32×32.
TOGETHER = 64


class Judged(keras.Model):
    """A number of a teacher's logits for each image: uint8 or [0, 1] images in, [batch] out.

    Args:
        teacher: As of `entropies`.
        judge: Function of the logits.
    """

    def __init__(self, teacher: Any, judge: Callable[[Any], Any]):
        super().__init__(dtype="float32", name="judged")
        self.teacher = teacher
        self.judge = judge
        # It has no variables to make: on JAX Keras would compile each operation by itself to see.
        self.built = True

    def call(self, images):
        """What the function makes of the logits."""
        return self.judge(self.teacher(unit_range_tensor(images), training=False))


class _PoolBatches(keras.utils.PyDataset):
    """The pool in order, in batches of one size: the last is filled up with its last image."""

    def __init__(self, images: Any, batch_size: int, numbers: range | None = None):
        super().__init__()
        self.images = images
        self.batch_size = batch_size
        self.numbers = numbers or range(-(-len(images) // batch_size))

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> tuple[np.ndarray]:
        start = self.numbers[index] * self.batch_size
        batch = np.asarray(self.images[start : start + self.batch_size])
        # One size means one compiled function.
        lacking = self.batch_size - len(batch)
        if lacking:
            batch = np.concatenate([batch, np.repeat(batch[-1:], lacking, axis=0)])
        return (batch,)


def entropies(teacher: Any, images: Any, batch_size: int = 256, verbose: Any = 0) -> np.ndarray:
    """Entropy H(p(y | x)) of a teacher's predictions, in inference mode.

    Args:
        teacher: Keras model from images [B, h, w, c] in [0, 1] to logits [B, units], or
            [B, h, w, units] (then the mean over the pixels is taken). `select` recognises
            probabilities.
        images: uint8, or floats in [0, 1]; [n, h, w, c].
        batch_size: Images at a time.
        verbose: As in `keras.Model.predict`.

    Returns:
        float32 [n], in nats, from 0 to the head's `most_entropy`; NaN where the logits are not
        finite.
    """
    head = head_of(teacher)

    def entropy(logits):
        scores = head.entropy(logits)
        # One score per image: the mean over the pixels where there are predictions per pixel.
        return ops.mean(ops.reshape(scores, (ops.shape(scores)[0], -1)), axis=-1)

    return np.asarray(over_pool(Judged(teacher, entropy), images, batch_size, verbose), np.float32)


def leading_classes(
    teacher: Any, images: Any, batch_size: int = 256, verbose: Any = 0
) -> np.ndarray:
    """The class, or the label, that a teacher finds most probable in each image.

    Args:
        teacher: As of `entropies`.
        images: As of `entropies`.
        batch_size: Images at a time.
        verbose: As in `keras.Model.predict`.

    Returns:
        int64 [n].
    """
    judged = Judged(teacher, head_of(teacher).leading)
    return np.asarray(over_pool(judged, images, batch_size, verbose), np.int64)


def over_pool(model: Any, images: Any, batch_size: int, verbose: Any = 0) -> np.ndarray:
    """A model's predictions for a whole pool, which is read forward and never held whole.

    Args:
        model: Keras model that takes the pool's images as they are stored.
        images: Array-like of images [n, h, w, c].
        batch_size: Images at a time.
        verbose: As in `keras.Model.predict`, which is called more than once.

    Returns:
        The predictions, [n, ...].
    """
    size = len(images)
    batch_size = min(positive(batch_size, "batch_size"), max(size, 1))
    batches = _PoolBatches(images, batch_size)
    if keras.backend.backend() == "tensorflow":
        from keras_mosaickd.data.streams.tensorflow import pool_dataset

        return model.predict(pool_dataset(batches), verbose=verbose)[:size]
    result = np.zeros(0)
    # Of each batch Keras leaves arrays in cycles, on PyTorch those that an Add layer added: they go
    # after each part. What exists already is not searched for cycles each time.
    gc.freeze()
    try:
        for part in (batches.numbers[i : i + TOGETHER] for i in range(0, len(batches), TOGETHER)):
            with whole_batches():
                values = model.predict(_PoolBatches(images, batch_size, part), verbose=verbose)
            if part.start == 0:
                result = np.empty((len(batches) * batch_size, *values.shape[1:]), values.dtype)
            result[part.start * batch_size :][: len(values)] = values
            gc.collect()
    finally:
        gc.unfreeze()
    return result[:size]


def teacher_hash(model: Any) -> str:
    """SHA-256 of what a model computes: its layers with their settings, and its weights.

    Equal weights behind another scaling of the images are another teacher. Names do not count:
    Keras numbers them as layers come into being.
    """

    def parts() -> Iterator[Any]:
        yield _settings(model)
        for weight in model.weights:
            value = np.ascontiguousarray(ops.convert_to_numpy(weight))
            yield f"{value.shape} {weight.dtype}\n"
            yield value.reshape(-1).view(np.uint8).data

    return sha256(parts())


def _settings(model: Any) -> str:
    """A model's layers and their settings, with numbers for names."""
    try:
        settings = keras.saving.serialize_keras_object(model)
    except NotImplementedError:  # a model that cannot be saved: no more is known of it
        return type(model).__qualname__
    settings.pop("compile_config", None)
    text = json.dumps(settings, sort_keys=True)
    for number, name in enumerate(dict.fromkeys(_names(settings))):
        text = text.replace(json.dumps(name), str(number))
    return text


def _names(settings: Any) -> Iterator[str]:
    """The names of layers in what Keras made of a model, in their order."""
    if isinstance(settings, dict):
        if isinstance(settings.get("name"), str):
            yield settings["name"]
        # The name of a precision is no name.
        if str(settings.get("class_name")).endswith("DTypePolicy"):
            return
        settings = list(settings.values())
    if isinstance(settings, list | tuple):
        for part in settings:
            yield from _names(part)
