"""The SavedModel and its two endpoints (TensorFlow backend only)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_mosaickd.data.streams.tensorflow import keep_off_gpu
from keras_mosaickd.export.comparison import compare, outputs
from keras_mosaickd.networks.heads import new_head


def write(student: Any, path: Path, class_names: Sequence[str], head: str) -> None:
    """Writes the endpoints ``serve`` and, for a classifier, ``classify``."""
    import tensorflow

    keep_off_gpu()
    archive = keras.export.ExportArchive()
    archive.track(student)
    images = keras.InputSpec(shape=(None, *student.input_shape[1:]), dtype="float32")
    # Layers that augment do it where they are not told that nothing is trained.
    serve = archive.add_endpoint("serve", lambda x: student(x, training=False), [images])
    if is_classifier(student):
        any_pictures = tensorflow.TensorSpec((None, None, None, None), "uint8", name="pictures")
        chosen = new_head(head, student.output_shape[-1])
        classify = _classify(serve, student.input_shape[1:], class_names, chosen)
        archive.add_endpoint("classify", classify, [any_pictures])
    archive.write_out(str(path), verbose=False)


def load(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """The endpoint ``serve`` of plain TensorFlow: a function from images to logits."""
    import tensorflow

    restored = tensorflow.saved_model.load(str(path))  # owns the variables
    return lambda images: restored.serve(tensorflow.constant(images)).numpy()


def is_classifier(student: Any) -> bool:
    """Whether the student gives one row of logits for an image [h, w, c], c 1 or 3."""
    shape = student.input_shape
    return len(student.output_shape) == 2 and len(shape) == 4 and shape[-1] in (1, 3)


def check_classify(student: Any, path: Path, images: np.ndarray, head: str, allowed: float) -> None:
    """Runs ``classify``, where there is one, on the images as bytes and compares probabilities.

    Raises:
        ExportError: They differ from the student's.
    """
    import tensorflow

    if not is_classifier(student):
        return
    raw = np.rint(images * 255).clip(0, 255).astype("uint8")
    restored = tensorflow.saved_model.load(str(path))
    actual = restored.classify(tensorflow.constant(raw))["probabilities"].numpy()
    logits = outputs(student, raw.astype("float32") / np.float32(255))
    expected = keras.ops.convert_to_numpy(new_head(head, logits.shape[-1]).probabilities(logits))
    compare(actual, expected, allowed, "classify and the student")


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Switches off TF32, with which a GPU's float32 convolutions keep ten bits only."""
    if keras.backend.backend() != "tensorflow":
        yield
        return
    import tensorflow

    execution = tensorflow.config.experimental
    before = execution.tensor_float_32_execution_enabled()
    execution.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        execution.enable_tensor_float_32_execution(before)


def _classify(
    serve: Any, shape: Sequence[int | None], class_names: Sequence[str], head: Any
) -> Any:
    """The function of ``classify``: uint8 [n, h, w, 1 or 3] to names and probabilities."""
    import tensorflow as tf

    def classify(images: Any) -> dict[str, Any]:
        names = tf.constant(list(class_names))
        logits = serve(_prepared(images, shape))
        probabilities = head.probabilities(logits)
        count = tf.shape(probabilities)[0]
        answers = {
            "class_name": tf.gather(names, tf.argmax(probabilities, axis=-1)),
            "probabilities": probabilities,
            # A row for every image: servers want the batch as the first axis of every output.
            "class_names": tf.tile(names[None], [count, 1]),
        }
        # Of independent labels any number may hold; the name is that of the most probable one.
        return answers | ({"holds": head.predictions(logits)} if head.kind == "labels" else {})

    return classify


def _prepared(images: Any, shape: Sequence[int | None]) -> Any:
    """Raw images as the student takes them, in the way of `keras_mosaickd.data.sources.resizing`.

    The centre of the student's proportions is resized bilinearly with antialiasing and rounded to
    bytes; grey is made RGB or RGB grey. A student of any size gets the images in their own.
    """
    import tensorflow as tf

    height, width, channels = shape
    images = _with_channels(images, channels)
    if height is None or width is None:
        return tf.cast(images, tf.float32) / 255.0
    size = tf.cast(tf.shape(images)[1:3], tf.float32)
    wanted = tf.constant([height, width], tf.float32)
    scale = tf.reduce_max(wanted / size)
    resized = tf.raw_ops.ScaleAndTranslate(
        images=images,
        size=[height, width],
        scale=tf.stack([scale, scale]),
        translation=(wanted - size * scale) / 2.0,
        kernel_type="triangle",
        antialias=True,
    )
    pixels = tf.clip_by_value(tf.round(resized), 0.0, 255.0)
    return tf.ensure_shape(pixels / 255.0, (None, height, width, channels))


def _with_channels(images: Any, channels: int | None) -> Any:
    import tensorflow as tf

    given = tf.shape(images)[-1]
    problem = ["expected images [n, h, w, c] with c 1 or 3. Received c:", given]
    check = tf.debugging.Assert(tf.reduce_any(tf.equal(given, [1, 3])), problem)
    with tf.control_dependencies([check]):
        if channels == 3:
            return tf.broadcast_to(images, tf.concat([tf.shape(images)[:3], [3]], axis=0))
        return tf.cond(tf.equal(given, 1), lambda: images, lambda: _luma(images))


def _luma(images: Any) -> Any:
    """ITU-R BT.601's luma of RGB bytes in whole numbers, as in Pillow."""
    import tensorflow as tf

    red, green, blue = (tf.cast(images[..., index], tf.int32) for index in range(3))
    total = 19595 * red + 38470 * green + 7471 * blue + 0x8000
    return tf.cast(tf.bitwise.right_shift(total, 16), tf.uint8)[..., None]
