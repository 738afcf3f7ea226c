"""A transfer set balanced over the teacher's predicted classes."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_mosaickd.data.balance import balanced_indices, predicted_classes
from keras_mosaickd.errors import InputError
from tests.game import CLASSES, classifier, images


def test_by_hand():
    # Five images of class 0, one of class 2: four of each fit into nine.
    predictions = np.array([0, 0, 2, 0, 0, 0])
    indices, missing = balanced_indices(predictions, 4, size=9)
    assert indices.dtype == np.int64
    assert indices.tolist().count(2) == 4
    rest = [index for index in indices if index != 2]
    assert len(set(rest)) == 4
    assert missing == (1, 3)
    assert len(balanced_indices(predictions, 4)[0]) == 6


@given(
    predictions=st.lists(st.integers(0, 5), min_size=2, max_size=60),
    seed=st.integers(0, 2**32),
    size=st.none() | st.integers(6, 200),
)
def test_every_predicted_class_is_equally_frequent(predictions, seed, size):
    present = sorted(set(predictions))
    if len(present) < 2:
        return
    indices, missing = balanced_indices(predictions, 6, seed, size)
    share = (size or len(predictions)) // len(present)
    counts = np.bincount(np.asarray(predictions)[indices], minlength=6)
    assert counts[present].tolist() == [share] * len(present)
    assert sorted([*present, *missing]) == list(range(6))
    # Images of one class take turns: none is seen twice before each was seen once.
    times = np.bincount(indices, minlength=len(predictions))
    for label in present:
        of_class = times[np.asarray(predictions) == label]
        assert of_class.max() - of_class.min() <= 1


def test_the_seed_makes_the_choice():
    predictions = np.repeat([0, 1], [40, 10])
    chosen = [balanced_indices(predictions, 2, seed, 30)[0].tolist() for seed in (1, 1, 2)]
    assert chosen[0] == chosen[1]
    assert chosen[0] != chosen[2]


@pytest.mark.parametrize(
    ("predictions", "options", "message"),
    [
        ([1, 1, 1], {}, r"at least two predicted classes.*Received: 3 images, all of class \[1"),
        ([0, 3], {}, "classes from 0 to 2. Received: 0 to 3"),
        ([-1, 1], {}, "classes from 0 to 2. Received: -1 to 1"),
        ([0.0, 1.0], {}, "whole numbers.*Received: float64"),
        ([[0, 1]], {}, r"whole numbers.*Received: int64 \(1, 2\)"),
        ([0, 1, 2], {"size": 2}, "size: expected at least 3.*Received: 2"),
        ([0, 1, 2], {"size": 0}, "size: expected a whole number of at least 1. Received: 0"),
    ],
)
def test_what_cannot_be_balanced(predictions, options, message):
    with pytest.raises(InputError, match=message):
        balanced_indices(np.array(predictions), 3, **options)


def test_an_empty_pool_cannot_be_balanced():
    with pytest.raises(InputError, match="at least two predicted classes"):
        balanced_indices(np.zeros(0, "int64"), 3)


def test_predicted_classes_of_both_kinds_of_images():
    teacher = classifier(1)
    # Centred weights, so that the classes are not all one.
    teacher.layers[-1].kernel.assign(np.random.default_rng(0).normal(size=(5, CLASSES)))
    raw = np.random.default_rng(1).integers(0, 256, (11, 8, 8, 1), np.uint8)
    expected = np.argmax(keras.ops.convert_to_numpy(teacher(raw / np.float32(255))), axis=-1)
    assert len(set(expected)) > 1
    classes = predicted_classes(teacher, raw, batch_size=4)
    assert classes.dtype == np.int64
    assert classes.tolist() == expected.tolist()
    assert predicted_classes(teacher, raw / np.float32(255)).tolist() == expected.tolist()


def test_predicted_classes_of_what_cannot_be():
    inputs = keras.Input((8, 8, 1))
    segmenter = keras.Model(inputs, keras.layers.Conv2D(3, 1)(inputs))
    with pytest.raises(InputError, match=r"one prediction for each.*shape \(8, 8\)"):
        predicted_classes(segmenter, images(2))
    with pytest.raises(InputError, match="empty pool"):
        predicted_classes(classifier(), images(2)[:0])
