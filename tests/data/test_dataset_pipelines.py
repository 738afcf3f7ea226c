"""Streams out of a tf.data.Dataset, and streams under MirroredStrategy."""

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from keras_mosaickd.data import mosaic_stream
from keras_mosaickd.data.pixels import unit_range
from keras_mosaickd.data.streams.arrays import augment
from keras_mosaickd.errors import InputError

tf = pytest.importorskip("tensorflow")

# Every image is recognised by its one value.
POOL = np.broadcast_to(np.arange(1, 91, dtype=np.uint8)[:, None, None, None], (90, 8, 8, 1)).copy()


def epoch(stream):
    return [(patches.numpy(), ood.numpy()) for patches, ood in stream]


def values(images):
    """The values of the images; the zeros of the padding are less than the image."""
    return np.round(images.reshape(-1, 64).max(axis=1) * 255).astype(int)


@pytest.fixture
def dataset():
    return tf.data.Dataset.from_tensor_slices(POOL)


def test_the_discriminator_gets_each_image_once_and_whole(dataset):
    stream = mosaic_stream(dataset, 4, 3, seed=1)
    assert len(stream) == 22
    first, second = epoch(stream), epoch(stream)
    for elements in (first, second):
        patches = np.concatenate([patches for patches, _ in elements])
        shown = values(patches)
        assert len(np.unique(shown)) == 88
        np.testing.assert_array_equal(patches, unit_range(POOL[shown - 1]))
    assert not np.array_equal(first[0][0], second[0][0])
    assert not np.array_equal(first[0][1], second[0][1])


def test_the_student_gets_each_image_once_per_pass_augmented(dataset):
    elements = epoch(mosaic_stream(dataset, 4, 3, seed=1))
    ood = np.concatenate([ood.reshape(12, 8, 8, 1) for _, ood in elements])
    assert elements[0][1].shape == (4, 3, 8, 8, 1)
    for start in range(0, 264, 88):
        assert len(np.unique(values(ood[start : start + 88]))) == 88
    assert 0.7 < np.mean(ood.reshape(-1, 64).min(axis=1) == 0) < 1  # 8 of 9 crops see padding
    plain = epoch(mosaic_stream(dataset, 4, 3, seed=1, augment=False))
    assert np.concatenate([ood for _, ood in plain]).min() > 0


def test_the_same_seed_gives_the_same_and_a_resume_goes_on(dataset):
    stream = mosaic_stream(dataset, 4, 3, seed=1)
    straight = epoch(stream) + epoch(stream)
    other = mosaic_stream(dataset.batch(7), 4, 3, seed=1, first_step=30)
    assert len(other) == 22
    for ours, theirs in zip(straight[30:], epoch(other), strict=False):
        np.testing.assert_array_equal(ours[0], theirs[0])
        np.testing.assert_array_equal(ours[1], theirs[1])
    assert not np.array_equal(straight[0][0], epoch(mosaic_stream(dataset, 4, 3, seed=2))[0][0])


def test_a_look_at_the_first_element_costs_no_epoch(dataset):
    stream = mosaic_stream(dataset, 10, 2, seed=1)
    next(iter(stream))
    first = epoch(mosaic_stream(dataset, 10, 2, seed=1))
    np.testing.assert_array_equal(epoch(stream)[0][1], first[0][1])


@pytest.mark.slow
def test_elements_may_be_tuples_dictionaries_and_floats(dataset):
    expected = epoch(mosaic_stream(dataset, 4, 2))[0][1]
    labels = tf.data.Dataset.range(90)
    pairs = tf.data.Dataset.zip((dataset, labels))
    named = pairs.map(lambda image, label: {"image": image, "label": label})
    floats = dataset.map(lambda image: tf.cast(image, tf.float32) * np.float32(1 / 255))
    for variant in (pairs, pairs.batch(8), named, floats):
        np.testing.assert_allclose(epoch(mosaic_stream(variant, 4, 2))[0][1], expected, atol=1e-7)


def test_lengths(dataset):
    unknown = dataset.filter(lambda image: image[0, 0, 0] > 10)
    assert len(mosaic_stream(unknown, 4)) == 20
    assert len(mosaic_stream(dataset.repeat(), 4, steps_per_epoch=3)) == 3
    assert len(epoch(mosaic_stream(dataset.repeat(), 4, steps_per_epoch=30))) == 30
    with pytest.raises(InputError, match="steps_per_epoch: expected a number"):
        mosaic_stream(dataset.repeat(), 4)
    with pytest.raises(InputError, match="--batch_size: expected at most .* 90. Received: 91"):
        mosaic_stream(dataset, 91)


def test_what_does_not_fit_is_refused(dataset):
    for bad, message in [
        (dataset.map(lambda image: image[..., 0]), "of static size and 1 to 4 channels"),
        (dataset.map(lambda image: tf.cast(image, tf.int32)), "tf.data.Dataset of int32"),
        (dataset.map(lambda image: tf.cast(image, tf.float32)), r"floats in \[1, 1\]|floats in"),
        (dataset.map(lambda image: {"x": image}), "dictionaries with 'image'"),
    ]:
        with pytest.raises(InputError, match=message):
            mosaic_stream(bad, 4)
    for options in ({"batch_size": 0}, {"seed": -1}, {"padding": 9}, {"student_steps": 0}):
        with pytest.raises(InputError):
            mosaic_stream(dataset, **{"batch_size": 4} | options)


def test_crops_and_flips_are_those_of_numpy():
    from keras_mosaickd.data.streams.tf_dataset import crop_and_flip

    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (30, 6, 9, 3), dtype=np.uint8)
    corners, flips = generator.integers(0, 7, (2, 30)), generator.random(30) < 0.5
    result = crop_and_flip(
        tf.constant(images), tf.constant(corners, tf.int32), tf.constant(flips), 3
    )
    np.testing.assert_array_equal(result, augment(images, corners.T, flips, 3))


@pytest.mark.slow
@pytest.mark.backend("tensorflow")
def test_mirrored_replicas_share_each_global_batch():
    code = """
        import numpy as np, tensorflow as tf
        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
        )
        from keras_mosaickd.data import mosaic_stream
        from keras_mosaickd.data.streams.arrays import MosaicBatches
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        pool = np.random.default_rng(0).integers(0, 256, (200, 8, 8, 1), dtype=np.uint8)
        expected = MosaicBatches(pool, 8, 3)
        distributed = strategy.experimental_distribute_dataset(mosaic_stream(pool, 8, 3))
        step = 0
        for epoch in range(2):
            for element in distributed:
                for part, whole in zip(element, expected.batch(step)):
                    halves = [half.numpy() for half in strategy.experimental_local_results(part)]
                    assert [len(half) for half in halves] == [4, 4]
                    np.testing.assert_array_equal(np.concatenate(halves), whole)
                step += 1
        assert step == 50
        stream = mosaic_stream(tf.data.Dataset.from_tensor_slices(pool), 8, 3)
        for element in strategy.experimental_distribute_dataset(stream):
            shapes = [half.shape for half in strategy.experimental_local_results(element[1])]
            assert shapes == [(4, 3, 8, 8, 1)] * 2
    """
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, cwd=root)
