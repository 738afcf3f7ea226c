"""The public helpers that turn images into what `fit` takes.

On the TensorFlow backend they give a tf.data.Dataset, on JAX and PyTorch a
`keras.utils.PyDataset` made with numpy alone. Both hold the same batches for the same seed.
"""

from __future__ import annotations

import sys
from typing import Any

import keras
import numpy as np

from keras_mosaickd.data.image_set import evaluation_arrays
from keras_mosaickd.data.sources.folder import FolderImages
from keras_mosaickd.data.sources.forward import ForwardImages
from keras_mosaickd.data.streams.arrays import MosaicBatches, SupervisedBatches
from keras_mosaickd.data.streams.given import check_range
from keras_mosaickd.errors import InputError


def mosaic_stream(
    images: Any,
    batch_size: int,
    student_steps: int = 5,
    seed: int = 0,
    first_step: int = 0,
    steps_per_epoch: int | None = None,
    augment: bool = True,
    flip: bool = True,
    padding: int | None = None,
) -> Any:
    """Turns out-of-domain images into the training data of MosaicKD.

    Each element is `(patches, ood)`: one batch [B, h, w, c] for the discriminator, not
    augmented, and `student_steps` augmented batches [B, K, h, w, c] for the student; float32 in
    [0, 1]. An epoch is one pass of the discriminator's batches over the images; each epoch has
    a new order, new crops and new flips, all of them functions of the seed and the step.

    ```python
    model.fit(mosaic_stream(images, batch_size=256), epochs=200, shuffle=False)
    ```

    The stream is shuffled already: with `shuffle=True` Keras would warn about it, or put the
    elements of each epoch into an order that is no function of the seed. To resume after s steps,
    give `first_step=s` and the same seed.

    Args:
        images: Array of images [n, h, w, c], c from 1 to 4, uint8 in [0, 255] or floats in
            [0, 1]. Or a tf.data.Dataset of such images, single or batched (of elements that are
            tuples the first item is used, of dictionaries "image"); its shuffling uses a buffer,
            and it is read once to count it if its length is not known.
        batch_size: B, the global batch; the incomplete last batch is dropped.
        student_steps: K, the student's batches per step.
        seed: Seed of the order and of the augmentation.
        first_step: Global step at which to begin.
        steps_per_epoch: Elements per epoch; by default one pass, n // B.
        augment: Whether the student's images are cropped (after zero padding) and flipped.
        flip: Whether a flip is part of the augmentation; give False for digits and the like.
        padding: Pixels of padding before the crop; by default an eighth of the height.

    Returns:
        A tf.data.Dataset on the TensorFlow backend or where one was given, else a
        `keras.utils.PyDataset`.

    Raises:
        InputError: where shape, type or range of the images do not fit, or the batch is larger
            than the pool.
    """
    options = (batch_size, student_steps, seed, first_step, steps_per_epoch, augment, flip, padding)
    if _is_tf_dataset(images):
        from keras_mosaickd.data.streams.tf_dataset import mosaic_from_dataset

        return mosaic_from_dataset(images, *options)
    images = checked_images(images)
    check_padding(padding, images.shape)
    return _on_backend(MosaicBatches(images, *options))


def supervised_stream(
    images: Any,
    labels: Any | None,
    batch_size: int,
    seed: int = 0,
    first_step: int = 0,
    steps_per_epoch: int | None = None,
    augment: bool = True,
    flip: bool = True,
    padding: int | None = None,
) -> Any:
    """Turns images into augmented batches `(x, y)`, or `(x,)` where `labels` is None.

    For training a teacher, and for plain distillation. The rules are those of `mosaic_stream`.

    Args:
        images: Array of images [n, h, w, c], uint8 in [0, 255] or floats in [0, 1].
        labels: Array whose first axis is n, or None. Label maps [n, h, w] are cropped and flipped
            with their images and given as int32; what a crop sees of the padding is VOID (255).
        batch_size: B, the global batch; the incomplete last batch is dropped.
        seed: Seed of the order and of the augmentation.
        first_step: Global step at which to begin.
        steps_per_epoch: Elements per epoch; by default one pass, n // B.
        augment: Whether the images are cropped (after zero padding) and flipped.
        flip: Whether a flip is part of the augmentation.
        padding: Pixels of padding before the crop; by default an eighth of the height.

    Returns:
        A tf.data.Dataset on the TensorFlow backend, else a `keras.utils.PyDataset`.

    Raises:
        InputError: where images or labels do not fit.
    """
    images = checked_images(images)
    check_padding(padding, images.shape)
    batches = SupervisedBatches(
        images, labels, batch_size, seed, first_step, steps_per_epoch, augment, flip, padding
    )
    return _on_backend(batches)


def _on_backend(batches: MosaicBatches | SupervisedBatches) -> Any:
    """The batches as the backend trains on them."""
    if keras.backend.backend() != "tensorflow":
        return batches
    from keras_mosaickd.data.streams.tensorflow import batches_dataset

    return batches_dataset(batches)


def validation_stream(images: Any, batch_size: int) -> dict[str, Any]:
    """One split as the validation data of `fit`, in the stored order.

    Args:
        images: `ImageSet`, with labels or without.
        batch_size: Images at a time, over all devices.

    Returns:
        The arguments `validation_data` and, where that is arrays, `validation_batch_size`.
    """
    arrays = tuple(array for array in evaluation_arrays(images) if array is not None)
    if keras.backend.backend() != "tensorflow":
        return {"validation_data": arrays, "validation_batch_size": batch_size}
    from keras_mosaickd.data.streams.tensorflow import arrays_dataset

    return {"validation_data": arrays_dataset(arrays, batch_size)}


def checked_images(images: Any) -> Any:
    """Images of rank 4 that batches can be gathered from.

    Args:
        images: Anything that numpy can read as an array, or a `FolderImages`.

    Returns:
        The same if it can be indexed by an array of integers, else a numpy array.

    Raises:
        InputError: where rank, channels, type or range do not fit, or the images can only be
            read forward.
    """
    if isinstance(images, ForwardImages):
        raise InputError(
            "expected images that can be read in any order, as `stored` (with streams=True) or "
            f"`select` write them. Received: a stream of {len(images)} images"
        )
    if not isinstance(images, np.ndarray | FolderImages):
        try:
            images = np.asarray(images)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                "expected images as one array [n, height, width, channels]. "
                f"Received: {type(images).__name__} ({str(error).splitlines()[0]})"
            ) from error
    if len(images.shape) != 4 or 0 in images.shape:
        raise InputError(
            "expected images as an array [n, height, width, channels]. "
            f"Received: shape {tuple(images.shape)}"
        )
    if not 1 <= images.shape[3] <= 4:
        raise InputError(
            "expected images with 1 to 4 channels on the last axis. "
            f"Received: shape {tuple(images.shape)}"
        )
    if images.dtype != np.uint8:
        check_range(images)
    return images


def check_padding(padding: int | None, shape: tuple[int, ...]) -> None:
    """Refuses a padding with which a crop could miss the image altogether."""
    limit = min(shape[1:3])
    if padding is not None and (int(padding) != padding or not 0 <= padding <= limit):
        raise InputError(
            f"padding: expected a whole number from 0 to {limit}. Received: {padding!r}"
        )


def _is_tf_dataset(images: Any) -> bool:
    # An instance of tf.data.Dataset can only exist where tensorflow was imported.
    tensorflow = sys.modules.get("tensorflow")
    dataset = getattr(getattr(tensorflow, "data", None), "Dataset", None)
    return dataset is not None and isinstance(images, dataset)
