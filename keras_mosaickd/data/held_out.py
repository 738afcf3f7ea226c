"""Pictures that are kept out of training, to judge a student on them without labels."""

from __future__ import annotations

import dataclasses

import numpy as np

from keras_mosaickd.data.sources import Pictures
from keras_mosaickd.errors import InputError

SHARE = 0.1
MOST = 2000
# They are held in memory as float32.
_MOST_BYTES = 2**28


def hold_out(pictures: Pictures, seed: int) -> tuple[Pictures, Pictures]:
    """Divides pictures at random into those for training and those held out.

    Args:
        pictures: Any pictures; none is decoded.
        seed: Seed of the choice, at least 0.

    Returns:
        The rest, and a tenth of them: 2000 at most, and 256 MiB as float32. Both keep the order.

    Raises:
        InputError: for fewer than 20 pictures.
    """
    size = len(pictures)
    most = _MOST_BYTES // (4 * int(np.prod(pictures.images.shape[1:])))
    count = min(round(SHARE * size), MOST, max(most, 2))
    if count < 2:
        raise InputError(
            "--ood must have at least 20 pictures, of which a tenth is held out to judge the "
            f"student. Received: {size} of {pictures.name}"
        )
    chosen = np.zeros(size, bool)
    chosen[np.random.default_rng([seed, size]).permutation(size)[:count]] = True
    return _subset(pictures, ~chosen), _subset(pictures, chosen)


def _subset(pictures: Pictures, mask: np.ndarray) -> Pictures:
    indices, images = np.flatnonzero(mask), pictures.images
    part = images.subset(indices) if hasattr(images, "subset") else images[indices]
    labels = None if pictures.labels is None else pictures.labels[indices]
    return dataclasses.replace(pictures, images=part, labels=labels)
