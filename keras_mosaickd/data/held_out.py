"""Images that are kept out of training, to judge a student on them without labels."""

from __future__ import annotations

import dataclasses

import numpy as np

from keras_mosaickd.data.image_set import ImageSet, subset
from keras_mosaickd.errors import InputError

SHARE = 0.1
MOST = 2000
# They are held in memory as float32.
_MOST_BYTES = 2**28


def hold_out(image_set: ImageSet, seed: int) -> tuple[ImageSet, ImageSet]:
    """Divides images at random into those for training and those held out.

    Args:
        image_set: Any images; none is decoded.
        seed: Seed of the choice, at least 0.

    Returns:
        The rest, and a tenth of them: 2000 at most, and 256 MiB as float32. Both keep the order.

    Raises:
        InputError: for fewer than 20 images.
    """
    size = len(image_set)
    most = _MOST_BYTES // (4 * int(np.prod(image_set.images.shape[1:])))
    count = min(round(SHARE * size), MOST, max(most, 2))
    if count < 2:
        raise InputError(
            "--ood must have at least 20 images, of which a tenth is held out to judge the "
            f"student. Received: {size} of {image_set.name}"
        )
    chosen = np.zeros(size, bool)
    chosen[np.random.default_rng([seed, size]).permutation(size)[:count]] = True
    return _subset(image_set, ~chosen), _subset(image_set, chosen)


def _subset(image_set: ImageSet, mask: np.ndarray) -> ImageSet:
    indices = np.flatnonzero(mask)
    labels = None if image_set.labels is None else image_set.labels[indices]
    return dataclasses.replace(image_set, images=subset(image_set.images, indices), labels=labels)
