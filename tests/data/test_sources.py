"""Named data sets as arrays."""

import dataclasses
import sys

import numpy as np
import pytest
from PIL import Image

from keras_mosaickd.data import evaluation_arrays, load
from keras_mosaickd.data.sources.resizing import resized, with_channels
from keras_mosaickd.errors import InputError


def test_the_split_of_the_digits_is_fixed_and_stratified():
    from sklearn.datasets import load_digits

    digits = load_digits()
    seen = [0] * 10
    train, test = [], []
    for index, label in enumerate(digits.target):
        (train if seen[label] % 10 < 7 else test).append(index)
        seen[label] += 1
    for split, indices in (("train", train), ("test", test)):
        image_set = load("digits", split, image_size=8)
        np.testing.assert_array_equal(image_set.labels, digits.target[indices])
        expected = np.round(digits.images[indices] * 255 / 16).astype(np.uint8)
        np.testing.assert_array_equal(image_set.images[..., 0], expected)
    counts = np.bincount(digits.target[train]) / np.bincount(digits.target)
    assert np.all(np.abs(counts - 0.7) < 0.02)
    assert len(load("digits", "all")) == 1797


def test_chosen_classes_are_relabelled_in_the_order_given():
    every = load("digits", "train", image_size=8)
    chosen = load("digits[7,2]", "train", image_size=8)
    mask = np.isin(every.labels, [2, 7])
    assert chosen.class_names == ("7", "2")
    np.testing.assert_array_equal(chosen.images, every.images[mask])
    np.testing.assert_array_equal(chosen.labels, np.where(every.labels[mask] == 7, 0, 1))


def test_size_and_channels_are_as_asked_for():
    native = load("digits[0-4]", "test")
    assert native.images.shape == (265, 16, 16, 1)
    assert native.images.dtype == np.uint8
    assert native.labels.dtype == np.int64
    assert (native.name, native.split, native.flip) == ("digits[0-4]", "test", False)
    colour = load("digits[0-4]", "test", image_size=12, channels=3)
    assert colour.images.shape == (265, 12, 12, 3)
    np.testing.assert_array_equal(colour.images[..., 0], colour.images[..., 2])
    np.testing.assert_array_equal(
        colour.images[..., :1], load("digits[0-4]", "test", image_size=12).images
    )


def test_grey_and_resized_as_pillow_does_it():
    colour = np.random.default_rng(0).integers(0, 256, (5, 9, 7, 3), dtype=np.uint8)
    grey = with_channels(colour, 1)
    for image, expected in zip(grey, colour, strict=True):
        np.testing.assert_array_equal(
            image[..., 0], np.asarray(Image.fromarray(expected).convert("L"))
        )
    constant = np.full((2, 6, 6, 3), 77, np.uint8)
    assert np.all(resized(constant, 15) == 77)
    # Antialiasing: a checkerboard at half its size is grey, not black or white.
    board = (np.indices((1, 16, 16, 1)).sum(0) % 2 * 255).astype(np.uint8)
    assert np.all(np.abs(resized(board, 8)[0, 1:-1, 1:-1, 0].astype(int) - 127) <= 1)


def test_arrays_for_evaluation():
    image_set = load("digits", "test", image_size=8)
    x, y = evaluation_arrays(image_set)
    assert x.dtype == np.float32
    assert x.min() == 0 and x.max() == 1
    np.testing.assert_allclose(x, image_set.images / 255, rtol=1e-6)
    np.testing.assert_array_equal(y, image_set.labels)


def test_the_fingerprint_follows_the_content():
    image_set = load("digits", "test", image_size=8)
    changed = image_set.images.copy()
    changed[0, 0, 0, 0] ^= 1
    other = dataclasses.replace(image_set, images=changed)
    assert image_set.fingerprint() == load("digits", "test", image_size=8).fingerprint()
    assert image_set.fingerprint() != other.fingerprint()
    reshaped = dataclasses.replace(image_set, images=image_set.images.reshape(-1, 16, 4, 1))
    assert image_set.fingerprint() != reshaped.fingerprint()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "validation"}, "a split out of train, test, all"),
        ({"image_size": 0}, "--image_size: expected"),
        ({"image_size": 8.5}, "--image_size: expected"),
        ({"channels": 2}, "1 or 3 channels"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(InputError, match=message):
        load("digits", **{"split": "train"} | arguments)


def test_without_scikit_learn_the_message_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(InputError, match="expected scikit-learn, which the extra datasets"):
        load("digits", "train")


def test_without_tensorflow_datasets_the_message_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(InputError, match="expected tensorflow-datasets, which the extra datasets"):
        load("cifar10", "train")
