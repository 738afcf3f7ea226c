"""A transfer set that is balanced over the classes that the teacher predicts.

Nayak et al. (2021), "Effectiveness of Arbitrary Transfer Sets for Data-free Knowledge
Distillation" (WACV, arXiv 2011.09113): of arbitrary images, those serve best that the teacher
spreads evenly over its classes. The paper's row "Balanced" is plain distillation on such a set.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_mosaickd.data.scores import Judged, over_pool
from keras_mosaickd.data.streams.plan import positive
from keras_mosaickd.errors import InputError
from keras_mosaickd.networks.heads import head_of


def balanced_indices(
    predictions: Any, classes: int, seed: int = 0, size: int | None = None
) -> tuple[np.ndarray, tuple[int, ...]]:
    """Chooses images so that every predicted class is equally frequent.

    Of a class with more images than its share, a random part is taken, each image at most
    once; of one with fewer, all are taken, and repeated as evenly as the share allows. A class
    without any image cannot be balanced and is left out; it is returned, to be said.

    Args:
        predictions: [n] whole numbers from 0 to `classes` - 1, the teacher's predictions.
        classes: Number of classes of the teacher.
        seed: Seed of the choice, at least 0.
        size: Number of indices wanted, by default n; rounded down to a multiple of the number of
            classes that have images.

    Returns:
        The indices into the pool (int64, ascending, with repetitions) and the classes that have
        no image (ascending).

    Raises:
        InputError: If the predictions are no classes, fewer than two classes have images, or
            `size` is less than one image for each.
    """
    predictions = np.asarray(predictions)
    if predictions.ndim != 1 or not np.issubdtype(predictions.dtype, np.integer):
        raise InputError(
            "expected one predicted class for each image, whole numbers [n]. "
            f"Received: {predictions.dtype} {predictions.shape}"
        )
    if len(predictions) and not 0 <= predictions.min() <= predictions.max() < classes:
        raise InputError(
            f"expected predicted classes from 0 to {classes - 1}. "
            f"Received: {predictions.min()} to {predictions.max()}"
        )
    present = np.unique(predictions)
    if len(present) < 2:
        raise InputError(
            "expected images of at least two predicted classes, or there is nothing to balance. "
            f"Received: {len(predictions)} images, all of class {present.tolist()}"
        )
    wanted = len(predictions) if size is None else positive(size, "size")
    share = wanted // len(present)
    if not share:
        raise InputError(
            f"size: expected at least {len(present)}, one image for each class that was "
            f"predicted. Received: {size}"
        )
    generator = np.random.default_rng(seed)
    chosen = []
    for label in present:
        members = np.flatnonzero(predictions == label)
        passes, rest = divmod(share, len(members))
        chosen += [np.tile(members, passes), generator.permutation(members)[:rest]]
    missing = np.setdiff1d(np.arange(classes), present)
    return np.sort(np.concatenate(chosen)).astype(np.int64), tuple(missing.tolist())


def predicted_classes(teacher: Any, images: Any, batch_size: int = 256) -> np.ndarray:
    """The class that a teacher predicts for every image of a pool, in inference mode.

    The pool is read in batches, so that it may be a memory map.

    Args:
        teacher: Keras model from images [B, h, w, c] in [0, 1] to logits [B, classes].
        images: uint8, or floats in [0, 1]; [n, h, w, c], at least one.
        batch_size: Images at a time.

    Returns:
        int64 [n].

    Raises:
        InputError: If there is no image, or the teacher predicts more than one class for each.
    """
    if not len(images):
        raise InputError("expected at least one image. Received: an empty pool")
    judged = Judged(teacher, head_of(teacher).predictions)
    predictions = np.asarray(over_pool(judged, images, batch_size), np.int64)
    if predictions.ndim != 1:
        raise InputError(
            "expected a teacher with one prediction for each image. "
            f"Received: predictions of shape {predictions.shape[1:]} for each"
        )
    return predictions
