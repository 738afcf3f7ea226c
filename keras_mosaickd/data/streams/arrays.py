"""Training batches out of arrays, with numpy alone."""

from __future__ import annotations

import keras
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from keras_mosaickd.backend import processes
from keras_mosaickd.data.pixels import VOID, unit_range
from keras_mosaickd.data.streams.ahead import Ahead
from keras_mosaickd.data.streams.plan import EpochCounter, StreamPlan, default_padding, positive
from keras_mosaickd.errors import InputError


def augment(
    images: np.ndarray, offsets: np.ndarray, flips: np.ndarray, padding: int, fill: int = 0
) -> np.ndarray:
    """Crops and flips each image by itself: pad, crop to the old size, mirror.

    Args:
        images: [n, h, w, c], any type.
        offsets: [n, 2] row and column of the crop in the padded image, 0 .. 2 * padding.
        flips: [n] bool, which images are mirrored left to right.
        padding: Pixels of padding on each side.
        fill: Value of the padding.

    Returns:
        [n, h, w, c] of the same type.
    """
    n, height, width, channels = images.shape
    rows = slice(padding, padding + height)
    values = slice(padding * channels, (padding + width) * channels)
    shape = (n, rows.stop + padding, values.stop + values.start)
    # zeros() takes pages that the system has cleared already; full() writes them.
    padded = np.full(shape, fill, images.dtype) if fill else np.zeros(shape, images.dtype)
    padded[:, rows, values] = images.reshape(n, height, width * channels)
    # Every possible crop as a view; picking one per image then copies whole rows at once.
    windows = sliding_window_view(padded, (height, width * channels), axis=(1, 2))
    result = windows[np.arange(n), offsets[:, 0], offsets[:, 1] * channels]
    # Mirrored pixel by pixel: as one item of c values each, which is twice as fast.
    pixels = result.view(np.dtype((np.void, channels * images.itemsize)))
    pixels[flips] = pixels[flips][:, :, ::-1]
    return result.reshape(n, height, width, channels)


class _Batches(keras.utils.PyDataset):
    """What the two kinds of batches share: the plan, the epoch, the length.

    Args:
        images: uint8, or floats in [0, 1]; [n, h, w, c].
        batch_size: B, the global batch; the incomplete last batch is dropped.
        student_steps: K.
        seed: Seed of the order and of the augmentation.
        first_step: Global step at which to begin (to resume).
        steps_per_epoch: Elements per epoch; by default one pass, n // B.
        augment: Whether the student's images are cropped and flipped.
        flip: Whether a flip is part of the augmentation.
        padding: Pixels of zeros around the image before the crop; by default an eighth.
    """

    # How many arrays of an element, from the first on, hold images.
    image_arrays = 1
    images_are_checked = True
    # Each of several processes reads and makes its own rows of the global batch.
    has_own_rows = True

    def __init__(
        self,
        images,
        batch_size: int,
        student_steps: int = 5,
        seed: int = 0,
        first_step: int = 0,
        steps_per_epoch: int | None = None,
        augment: bool = True,
        flip: bool = True,
        padding: int | None = None,
    ):
        super().__init__()
        padding = default_padding(images.shape[1]) if padding is None else padding
        rows = processes.rows(batch_size)
        self.images = images
        self.plan = StreamPlan(len(images), batch_size, student_steps, seed, padding, flip, rows)
        self.augment = bool(augment)
        steps = self.plan.steps_per_epoch if steps_per_epoch is None else steps_per_epoch
        self.counter = EpochCounter(positive(steps, "steps_per_epoch"), first_step)
        self.ahead = Ahead(self.batch)
        self._reading = False
        self._seen: set[int] = set()

    def __len__(self) -> int:
        return self.counter.steps_per_epoch

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        if not 0 <= index < len(self):
            raise IndexError(f"expected an index below {len(self)}. Received: {index}")
        step = self.counter.step(self.counter.epoch, index)
        if not self._reading:
            return self.batch(step)
        self._seen.add(index)
        return self.ahead(step)

    def on_epoch_begin(self) -> None:
        """Called by Keras: what is read from here on counts as read."""
        self._reading = True

    def on_epoch_end(self) -> None:
        """Called by Keras: goes on to the next epoch if all of this one was read.

        Keras calls it more often than that: also after a look at the first element, and after
        each `steps_per_epoch` where that is less than an epoch.
        """
        self._reading = False
        if len(self._seen) == len(self):
            self.counter.finish(self.counter.epoch)
            self._seen = set()

    def raw(self, step: int) -> tuple[np.ndarray, ...]:
        """The element of a global step, images in the pool's own type."""
        raise NotImplementedError

    def batch(self, step: int) -> tuple[np.ndarray, ...]:
        """The element of a global step, images as float32 in [0, 1]."""
        return tuple(
            unit_range(array) if position < self.image_arrays else array
            for position, array in enumerate(self.raw(step))
        )

    def student_images(self, step: int) -> np.ndarray:
        """The student's images of a global step, [B * K, h, w, c] of the pool's own type."""
        indices, offsets, flips = self.plan.student(step)
        images = np.asarray(self.images[indices.reshape(-1)])
        if not self.augment:
            return images
        return augment(images, offsets.reshape(-1, 2), flips.reshape(-1), self.plan.padding)


class MosaicBatches(_Batches):
    """Elements of MosaicKD's training data, made by numpy: `(patches, ood)`.

    patches [B, h, w, c] is a batch for the discriminator, not augmented; ood [B, K, h, w, c] holds
    `student_steps` augmented batches, of which student step k uses ood[:, k]. Both are float32 in
    [0, 1]. Every epoch is one pass over the pool in a new order, with new crops and flips.

    Its arguments are those of `_Batches`.
    """

    image_arrays = 2

    def raw(self, step: int) -> tuple[np.ndarray, ...]:
        """`(patches, ood)` of a global step, in the pool's own type."""
        plan = self.plan
        patches = np.asarray(self.images[plan.patches(step)])
        ood = self.student_images(step)
        return patches, ood.reshape(len(patches), plan.student_steps, *ood.shape[1:])


class SupervisedBatches(_Batches):
    """Augmented batches `(x, y)`, or `(x,)` without labels, made by numpy.

    Args:
        images: As of `_Batches`.
        labels: [n] or [n, k]; label maps [n, h, w], which are cropped and flipped with their
            images, VOID where the crop sees the padding; or None.
        batch_size: As of `_Batches`.
        *options: Those of `_Batches` behind `student_steps`, which is 1.
        **named: Likewise.
    """

    def __init__(self, images, labels, batch_size: int, *options, **named):
        super().__init__(images, batch_size, 1, *options, **named)
        self.labels = None if labels is None else np.asarray(labels)
        if self.labels is None:
            return
        if len(self.labels) != len(images):
            raise InputError(
                f"expected one label for each of {len(images)} images. "
                f"Received: {len(self.labels)} labels"
            )
        if self.labels.ndim == 3 and self.labels.shape != tuple(images.shape[:3]):
            raise InputError(
                f"expected label maps of the images' shape {tuple(images.shape[:3])}. "
                f"Received: {self.labels.shape}"
            )

    def raw(self, step: int) -> tuple[np.ndarray, ...]:
        """`(x, y)` or `(x,)` of a global step, images in the pool's own type."""
        images = self.student_images(step)
        if self.labels is None:
            return (images,)
        indices, offsets, flips = (part[:, 0] for part in self.plan.student(step))
        labels = self.labels[indices]
        if labels.ndim != 3:
            return images, labels
        labels = labels.astype(np.int32)
        if self.augment:
            labels = augment(labels[..., None], offsets, flips, self.plan.padding, VOID)[..., 0]
        return images, labels
