"""The training streams as tf.data pipelines, for the TensorFlow backend.

A Python generator assembles the images of each step as `arrays` does (the random plan is
numpy's, so that every backend sees the same batches); the cast to [0, 1] runs in TensorFlow, and
all of it ahead of the training step.
"""

from __future__ import annotations

import contextlib
from typing import Any

from keras_mosaickd.data.pixels import PIXEL_SCALE
from keras_mosaickd.data.streams.arrays import MosaicBatches, SupervisedBatches
from keras_mosaickd.data.streams.plan import EpochCounter

# Threads that make elements, and elements that are ready before they are asked for.
AHEAD = 2
# Shorter epochs are made one element at a time: prefetching would run to the end of the epoch
# for a reader who looks at its first element only, and the epoch would count as read.
SHORT_EPOCH = 16


def keep_off_gpu() -> None:
    """Keeps TensorFlow off the GPU where another backend computes: it would take all its memory."""
    import keras
    import tensorflow as tf

    if keras.backend.backend() != "tensorflow":
        with contextlib.suppress(RuntimeError):  # The user's own code has used it already.
            tf.config.set_visible_devices([], "GPU")


def batches_dataset(batches: MosaicBatches | SupervisedBatches) -> Any:
    """The elements of `batches` as a tf.data.Dataset.

    Each iteration over it is one epoch, and the next iteration goes on with the next epoch.

    Args:
        batches: Batches made by numpy.

    Returns:
        tf.data.Dataset of the same tuples, all with static shapes.
    """
    import tensorflow as tf

    counter = batches.counter
    signature = tuple(
        tf.TensorSpec(array.shape, array.dtype) for array in batches.raw(counter.first_step)
    )

    def cast(*arrays):
        return tuple(
            unit_range(array) if position < batches.image_arrays else array
            for position, array in enumerate(arrays)
        )

    dataset = tf.data.Dataset.from_generator(
        lambda: map(batches.raw, counter), output_signature=signature
    )
    return ahead(dataset, cast, counter)


def ahead(dataset: Any, function: Any, counter: EpochCounter) -> Any:
    """Maps `function` over the elements of an epoch, in parallel and ahead of their use."""
    import tensorflow as tf

    short = counter.steps_per_epoch <= SHORT_EPOCH
    dataset = dataset.map(function, num_parallel_calls=None if short else AHEAD)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(counter.steps_per_epoch))
    return untuned(dataset if short else dataset.prefetch(AHEAD))


def untuned(dataset: Any) -> Any:
    """The dataset without tf.data's autotuning, which makes the end of every epoch wait.

    Its thread sleeps 10 ms, 20 ms, 40 ms and so on up to a minute, and an iterator that is given up
    waits until that thread wakes: an epoch of 3 seconds takes 5.1, one of 6 seconds 10.2.
    """
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    dataset = dataset.with_options(options)
    dataset.images_are_checked = True  # where the stream was made: see `given`
    return dataset


def unit_range(images: Any) -> Any:
    """Images as float32 in [0, 1], equal to the last bit to `arrays.unit_range`."""
    import tensorflow as tf

    if images.dtype == tf.uint8:
        return tf.cast(images, tf.float32) * PIXEL_SCALE
    return tf.cast(images, tf.float32)


def pool_dataset(batches: Any) -> Any:
    """Batches of a fixed order as a tf.data.Dataset of `(x,)`, read ahead of their use.

    Args:
        batches: Anything with `len()` whose items are tuples of one array, all of one shape.
    """
    import tensorflow as tf

    (first,) = batches[0]
    dataset = tf.data.Dataset.from_generator(
        lambda: (batches[index] for index in range(len(batches))),
        output_signature=(tf.TensorSpec(first.shape, first.dtype),),
    )
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(len(batches)))
    return untuned(dataset.prefetch(AHEAD))


def arrays_dataset(arrays: tuple[Any, ...], batch_size: int) -> Any:
    """Batches of arrays of one length in their order, the last one smaller where need be."""
    import tensorflow as tf

    size = len(arrays[0])
    starts = range(0, size, batch_size)
    dataset = tf.data.Dataset.from_generator(
        lambda: (tuple(array[start : start + batch_size] for array in arrays) for start in starts),
        output_signature=tuple(
            tf.TensorSpec((None, *array.shape[1:]), array.dtype) for array in arrays
        ),
    )
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(len(starts)))
    return untuned(dataset.prefetch(AHEAD))
