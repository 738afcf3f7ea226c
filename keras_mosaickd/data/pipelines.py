"""The training streams as tf.data pipelines, for the TensorFlow backend.

A Python generator assembles the pictures of each step as `arrays` does (the random plan is
numpy's, so that every backend sees the same batches); the cast to [0, 1] runs in TensorFlow, and
all of it ahead of the training step.
"""

from __future__ import annotations

from typing import Any

from keras_mosaickd.data.arrays import PIXEL_SCALE, MosaicBatches, SupervisedBatches
from keras_mosaickd.data.plan import EpochCounter

# Shorter epochs are made one element at a time: prefetching would run to the end of the epoch
# for a reader who looks at its first element only, and the epoch would count as read.
SHORT_EPOCH = 16


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
            unit_range(array) if position < batches.picture_arrays else array
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
    dataset = dataset.map(function, num_parallel_calls=None if short else tf.data.AUTOTUNE)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(counter.steps_per_epoch))
    return dataset if short else dataset.prefetch(tf.data.AUTOTUNE)


def unit_range(images: Any) -> Any:
    """Pictures as float32 in [0, 1], equal to the last bit to `arrays.unit_range`."""
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
    return dataset.prefetch(tf.data.AUTOTUNE)
