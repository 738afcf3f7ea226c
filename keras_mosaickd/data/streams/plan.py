"""The random plan behind every training stream: which images, crops and flips each step uses.

The plan is a pure function of the seed and the global step. So a run that stops after any step
and goes on later sees the same images as one that never stopped, and every backend sees the
same ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_mosaickd.errors import InputError

# Independent random streams under one seed.
_PATCH_ORDER, _STUDENT_ORDER, _STUDENT_CROPS = range(3)


def default_padding(image_size: int) -> int:
    """Padding of the random crop: an eighth of the image, 4 pixels at 32 (supplement A)."""
    return max(1, round(image_size / 8))


def positive(value: Any, name: str) -> int:
    """`value` as a whole number of at least 1."""
    return at_least(1, value, name)


def at_least(least: int, value: Any, name: str) -> int:
    """`value` as a whole number of at least `least`."""
    if isinstance(value, bool) or int(value) != value or value < least:
        raise InputError(
            f"{name}: expected a whole number of at least {least}. Received: {value!r}"
        )
    return int(value)


class StreamPlan:
    """Which images, crops and flips each global step uses.

    One step needs B images for the discriminator, not augmented, and K batches of B augmented
    images for the student. The discriminator's stream is one permutation of the pool per
    epoch; the student's batches are numbered step * K + k in a stream of their own, with a
    permutation per pass. Incomplete batches at the end of a permutation are dropped.

    Attributes:
        steps_per_epoch: Whole batches in one pass over the pool.

    Args:
        pool_size: Number of images.
        batch_size: B.
        student_steps: K.
        seed: Non-negative whole number.
        padding: Crop offsets are drawn from 0 .. 2 * padding, in pixels.
        flip: Whether half of the student's images are flipped.
        rows: Which of a batch's images are given: one process's of several.

    Raises:
        InputError: where a size is below 1 or the batch is larger than the pool.
    """

    def __init__(
        self,
        pool_size: int,
        batch_size: int,
        student_steps: int = 5,
        seed: int = 0,
        padding: int = 4,
        flip: bool = True,
        rows: slice = slice(None),
    ):
        self.pool_size = int(pool_size)
        self.batch_size = positive(batch_size, "--batch_size")
        self.student_steps = positive(student_steps, "--student_steps")
        self.seed = at_least(0, seed, "--seed")
        self.padding = int(padding)
        self.flip = bool(flip)
        self.rows = rows
        self.steps_per_epoch = self.pool_size // self.batch_size
        if not self.steps_per_epoch:
            raise InputError(
                f"--batch_size: expected at most the number of images, {self.pool_size}. "
                f"Received: {self.batch_size}"
            )
        self._permutations: dict[tuple[int, int], np.ndarray] = {}

    def patches(self, step: int) -> np.ndarray:
        """Indices [B] (int64) of the discriminator's images at a global step; of `rows` only."""
        return self._batch(_PATCH_ORDER, step)[self.rows]

    def student(self, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The student's images at a global step.

        Returns:
            indices [B, K] (int64), crop offsets [B, K, 2] (int64; row, column) and flips
            [B, K] (bool), of `rows` only. Student step k uses column k.
        """
        steps = self.student_steps
        indices = np.stack(
            [self._batch(_STUDENT_ORDER, step * steps + k) for k in range(steps)], axis=1
        )
        generator = np.random.default_rng([self.seed, _STUDENT_CROPS, step])
        offsets = generator.integers(0, 2 * self.padding + 1, (*indices.shape, 2))
        flips = generator.random(indices.shape) < 0.5
        return indices[self.rows], offsets[self.rows], flips[self.rows] & self.flip

    def _batch(self, stream: int, number: int) -> np.ndarray:
        epoch, position = divmod(number, self.steps_per_epoch)
        start = position * self.batch_size
        return self._permutation(stream, epoch)[start : start + self.batch_size]

    def _permutation(self, stream: int, epoch: int) -> np.ndarray:
        key = (stream, epoch)
        permutation = self._permutations.get(key)
        if permutation is None:
            permutation = np.random.default_rng([self.seed, *key]).permutation(self.pool_size)
            # Two per stream: a step of the student may straddle two passes.
            recent = list(self._permutations.items())[-3:]
            self._permutations = dict(recent) | {key: permutation}
        return permutation


class EpochCounter:
    """Turns "step i of this epoch" into a global step, and knows when an epoch is over.

    An epoch is over once its last element was handed out. An iteration that stops early (Keras
    looks at one batch to build an unbuilt model) does not count.

    Args:
        steps_per_epoch: Elements per epoch.
        first_step: Global step of the first element.
    """

    def __init__(self, steps_per_epoch: int, first_step: int = 0):
        self.steps_per_epoch = int(steps_per_epoch)
        self.first_step = at_least(0, first_step, "first_step")
        self.epoch = 0

    def step(self, epoch: int, index: int) -> int:
        """Global step of element `index` of an epoch."""
        return self.first_step + epoch * self.steps_per_epoch + index

    def finish(self, epoch: int) -> None:
        """Notes that the last element of an epoch was handed out."""
        self.epoch = max(self.epoch, epoch + 1)

    def __iter__(self) -> Iterator[int]:
        """Global steps of one epoch."""
        epoch = self.epoch
        for index in range(self.steps_per_epoch):
            if index == self.steps_per_epoch - 1:
                self.finish(epoch)
            yield self.step(epoch, index)
