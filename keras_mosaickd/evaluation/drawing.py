"""Synthetic images as one picture, sorted by what the teacher sees in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_mosaickd.backend.operations import without_gradient
from keras_mosaickd.data import image_grid
from keras_mosaickd.networks.heads import head_of


@without_gradient
def draw_samples(
    generator: Any,
    teacher: Any,
    latents: Any,
    columns: int | None = None,
    class_names: Sequence[str] | None = None,
) -> np.ndarray:
    """Draws a grid of synthetic images, sorted by the class that the teacher sees in them.

    Args:
        generator: Model from [n, latent_dim] to images [n, h, w, c] in [0, 1].
        teacher: Model from such images to logits, [n, units] or [n, h, w, units].
        latents: [n, latent_dim] float32.
        columns: Images per row; by default the grid is square.
        class_names: Names of the teacher's classes; by default their numbers.

    Returns:
        uint8 [H, W, c]; see `data.image_grid.grid`. Below each image stands its class;
        where every pixel has a prediction, the teacher's label map stands to the right instead. No
        model's state is changed.
    """
    images = generator(keras.ops.convert_to_tensor(latents, dtype="float32"), training=False)
    head, logits = head_of(teacher), teacher(images, training=False)
    order = np.argsort(keras.ops.convert_to_numpy(head.leading(logits)), kind="stable")
    drawn = keras.ops.convert_to_numpy(images)[order]
    predicted = keras.ops.convert_to_numpy(head.predictions(logits))[order]
    if len(logits.shape) == 4 and head.kind == "classes":
        drawn = image_grid.beside_label_maps(drawn, predicted, head.classes)
    if len(logits.shape) == 4:
        return image_grid.grid(drawn, columns)
    held = [[c] if head.kind == "classes" else np.flatnonzero(c) for c in predicted]
    captions = [" ".join(_caption(int(c), class_names) for c in row) or "none" for row in held]
    return image_grid.grid(drawn, columns, captions=captions)


def _caption(index: int, class_names: Sequence[str] | None) -> str:
    """The class's name; its number where there is none that Pillow's own font can write."""
    name = "" if class_names is None else str(class_names[index])
    return name if name and name.isascii() and name.isprintable() else str(index)
