"""MosaicKD's training stream out of a tf.data.Dataset of images, never held in memory."""

from __future__ import annotations

from typing import Any

from keras_mosaickd.data.streams.given import check_range
from keras_mosaickd.data.streams.plan import EpochCounter, at_least, default_padding, positive
from keras_mosaickd.data.streams.tensorflow import AHEAD, ahead, unit_range
from keras_mosaickd.data.streams.training import check_padding
from keras_mosaickd.errors import InputError

# Images among which the next one is drawn.
_SHUFFLE_BUFFER = 10_000


def mosaic_from_dataset(
    dataset: Any,
    batch_size: int,
    student_steps: int,
    seed: int,
    first_step: int,
    steps_per_epoch: int | None,
    augment: bool,
    flip: bool,
    padding: int | None,
) -> Any:
    """`streams.mosaic_stream` for a tf.data.Dataset.

    The discriminator gets the data set shuffled and batched, the student gets it repeated,
    shuffled, augmented and batched. Order and augmentation are functions of the seed and the
    epoch, as far as the data set itself gives its images in the same order each time.
    """
    import tensorflow as tf

    batch_size = positive(batch_size, "--batch_size")
    student_steps = positive(student_steps, "--student_steps")
    seed = at_least(0, seed, "--seed")
    image_set = _single_images(dataset)
    shape = image_set.element_spec.shape
    check_padding(padding, (1, *shape))
    margin = default_padding(shape[0]) if padding is None else int(padding)
    steps, whole = _steps(image_set, batch_size, steps_per_epoch)
    counter = EpochCounter(steps, first_step)
    first_epoch, offset = divmod(counter.first_step, steps)

    def augmented(number, images, key):
        count = batch_size * student_steps
        draws = tf.random.stateless_uniform([3, count], tf.stack([key, number]))
        corners = tf.cast(draws[:2] * (2 * margin + 1), tf.int32)
        flips = tf.logical_and(draws[2] < 0.5, flip)
        return crop_and_flip(tf.ensure_shape(images, [count, *shape]), corners, flips, margin)

    def one_epoch(epoch):
        keys = tf.random.stateless_uniform(
            [3], tf.stack([tf.cast(seed, tf.int64), epoch]), None, None, tf.int64
        )
        keys = tf.bitwise.bitwise_and(keys, 2**31 - 1)
        patches = _passes(image_set, keys[0], whole).batch(batch_size)
        student = _passes(image_set, keys[1], whole).batch(batch_size * student_steps)
        if augment:
            student = student.enumerate().map(
                lambda number, images: augmented(number, images, keys[2]),
                num_parallel_calls=AHEAD,
            )
        return tf.data.Dataset.zip((patches, student)).take(steps)

    def both(epoch):
        if not offset:
            return one_epoch(epoch)
        # A resume in the middle of an epoch: the rest of it and the start of the next.
        return one_epoch(epoch).concatenate(one_epoch(epoch + 1)).skip(offset).take(steps)

    def assemble(element, _):
        patches, student = element
        patches = tf.ensure_shape(patches, [batch_size, *shape])
        return unit_range(patches), unit_range(
            tf.reshape(student, [batch_size, student_steps, *shape])
        )

    epochs = tf.data.Dataset.from_generator(
        lambda: iter([first_epoch + counter.epoch]), output_signature=tf.TensorSpec([], tf.int64)
    )
    ticks = tf.data.Dataset.from_generator(
        lambda: iter(counter), output_signature=tf.TensorSpec([], tf.int64)
    )
    return ahead(tf.data.Dataset.zip((epochs.flat_map(both), ticks)), assemble, counter)


def crop_and_flip(images: Any, corners: Any, flips: Any, padding: int) -> Any:
    """`arrays.augment` as TensorFlow operations.

    Args:
        images: [n, h, w, c].
        corners: [2, n] rows and columns of the crops in the padded images, 0 .. 2 * padding.
        flips: [n] bool.
        padding: Pixels of zeros on each side.
    """
    import tensorflow as tf

    height, width = images.shape[1:3]
    sides = (padding, padding)
    padded = tf.pad(images, ((0, 0), sides, sides, (0, 0)))
    rows = corners[0][:, None] + tf.range(height)
    columns = corners[1][:, None] + tf.range(width)
    columns = tf.where(flips[:, None], columns[:, ::-1], columns)
    cropped = tf.gather(padded, rows, axis=1, batch_dims=1)
    return tf.gather(cropped, columns, axis=2, batch_dims=1)


def _passes(images: Any, key: Any, whole: int) -> Any:
    """Pass after pass over the images, each in an order of its own and cut to `whole` of them."""
    import tensorflow as tf

    return tf.data.Dataset.counter().flat_map(
        lambda number: images.shuffle(
            _SHUFFLE_BUFFER, seed=key + number, reshuffle_each_iteration=False
        ).take(whole)
    )


def _single_images(dataset: Any) -> Any:
    """The data set as single images of static shape [h, w, c], uint8 or float32."""
    import tensorflow as tf

    spec = dataset.element_spec
    if isinstance(spec, dict) and "image" in spec:
        dataset = dataset.map(lambda element: element["image"])
    elif isinstance(spec, tuple | list) and len(spec):
        dataset = dataset.map(lambda *element: element[0])
    spec = dataset.element_spec
    if not isinstance(spec, tf.TensorSpec):
        raise InputError(
            "expected a tf.data.Dataset of images, of tuples that start with one, or of "
            f"dictionaries with 'image'. Received: elements {spec}"
        )
    rank = spec.shape.rank
    if rank not in (3, 4) or None in spec.shape[-3:] or not 1 <= spec.shape[-1] <= 4:
        raise InputError(
            "expected a tf.data.Dataset of images [height, width, channels] or of batches of "
            f"them, of static size and 1 to 4 channels. Received: shape {spec.shape}"
        )
    if spec.dtype != tf.uint8 and not spec.dtype.is_floating:
        raise InputError(
            "expected images as uint8 or as floats in [0, 1]. Received: a tf.data.Dataset of "
            f"{spec.dtype.name}"
        )
    if rank == 4:
        dataset = dataset.unbatch()
    if spec.dtype != tf.uint8:
        dataset = dataset.map(lambda image: tf.cast(image, tf.float32))
        for images in dataset.batch(256).take(1):
            check_range(images)
    return dataset


def _steps(images: Any, batch_size: int, steps_per_epoch: int | None) -> tuple[int, int]:
    """Elements per epoch, and images per pass that fill whole batches (-1: all of them)."""
    import tensorflow as tf

    size = int(images.cardinality())
    if size == tf.data.INFINITE_CARDINALITY and steps_per_epoch is None:
        raise InputError(
            "steps_per_epoch: expected a number for an endless data set. Received: None"
        )
    if size == tf.data.UNKNOWN_CARDINALITY and steps_per_epoch is None:
        size = int(images.reduce(tf.constant(0, tf.int64), lambda count, _: count + 1))
    if 0 <= size < batch_size:
        raise InputError(
            f"--batch_size: expected at most the number of images, {size}. Received: {batch_size}"
        )
    passes = size // batch_size if size >= 0 else -1
    steps = passes if steps_per_epoch is None else positive(steps_per_epoch, "steps_per_epoch")
    return steps, passes * batch_size if size >= 0 else -1
