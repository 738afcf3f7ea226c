"""Label maps get the crop and the flip of their images, on every backend."""

import numpy as np
import pytest

from keras_mosaickd.data import VOID, supervised_stream
from keras_mosaickd.data.streams.arrays import SupervisedBatches, augment
from keras_mosaickd.errors import InputError

# Every pixel of an image differs from the others and from the padding, and is its own label.
LABELS = 1 + np.arange(6 * 5 * 5, dtype=np.uint8).reshape(6, 5, 5)
POOL = LABELS[..., None].repeat(3, axis=-1)


def test_by_hand():
    labels = np.array([[[1, 2], [3, 4]]], np.int32)
    for offset, flip, expected in (
        ((1, 1), False, [[1, 2], [3, 4]]),
        ((1, 1), True, [[2, 1], [4, 3]]),
        ((0, 1), False, [[VOID, VOID], [1, 2]]),
        ((2, 0), False, [[VOID, 3], [VOID, VOID]]),
        ((2, 0), True, [[3, VOID], [VOID, VOID]]),
    ):
        result = augment(labels[..., None], np.array([offset]), np.array([flip]), 1, VOID)
        assert result[0, ..., 0].tolist() == expected
        assert result.dtype == np.int32


def elements(stream):
    """One epoch as numpy arrays."""
    batches = stream if hasattr(stream, "element_spec") else list(stream)
    return [tuple(np.asarray(part) for part in element) for element in batches]


@pytest.mark.parametrize("augmented", [True, False])
def test_every_backend_gets_labels_that_fit_their_images(augmented):
    read = elements(supervised_stream(POOL, LABELS, 3, seed=1, padding=2, augment=augmented))
    expected = SupervisedBatches(POOL, LABELS, 3, seed=1, padding=2, augment=augmented)
    assert len(read) == 2
    voids = 0
    for step, (x, y) in enumerate(read):
        np.testing.assert_array_equal(x, expected.batch(step)[0])
        np.testing.assert_array_equal(y, expected.batch(step)[1])
        assert y.dtype == np.int32 and y.shape == (3, 5, 5)
        values = np.round(x[..., 0] * 255).astype(int)
        np.testing.assert_array_equal(y, np.where(values == 0, VOID, values))
        voids += int((y == VOID).sum())
    assert (voids > 0) == augmented


def test_labels_of_whole_images_change_nothing():
    maps = SupervisedBatches(POOL, LABELS, 3, seed=1)
    plain = SupervisedBatches(POOL, np.arange(6), 3, seed=1)
    for step in range(4):
        x, y = plain.raw(step)
        np.testing.assert_array_equal(x, maps.raw(step)[0])
        assert y.dtype == np.int64 and y.shape == (3,)


def test_label_maps_have_the_size_of_the_images():
    with pytest.raises(InputError, match=r"label maps .* \(6, 5, 5\). Received: \(6, 5, 4\)"):
        supervised_stream(POOL, LABELS[:, :, :4], 3)
    with pytest.raises(InputError, match="one label for each of 6 images. Received: 5"):
        supervised_stream(POOL, LABELS[:5], 3)
