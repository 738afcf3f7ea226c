"""The one scale of pixels, and the one label of pixels that belong to no class."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

# Label of the pixels that belong to no class: they count in no loss of labels and in no score.
VOID = 255

# Multiplying, on every backend, keeps the images equal to the last bit; dividing would not,
# because compilers replace it by this multiplication.
PIXEL_SCALE = np.float32(1 / 255)


def unit_range(images: np.ndarray) -> np.ndarray:
    """Images as float32 in [0, 1]: uint8 is divided by 255, floats are kept."""
    if images.dtype == np.uint8:
        return images.astype(np.float32) * PIXEL_SCALE
    return np.asarray(images, np.float32)


def unit_range_tensor(images):
    """The same of a tensor, inside a network or a step; floats keep their type."""
    if keras.backend.standardize_dtype(images.dtype) == "uint8":
        return ops.cast(images, "float32") * PIXEL_SCALE
    return images
