"""The random plan, and batches made of it by numpy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_mosaickd.data.pixels import unit_range
from keras_mosaickd.data.streams.arrays import MosaicBatches, SupervisedBatches, augment
from keras_mosaickd.data.streams.plan import EpochCounter, StreamPlan, default_padding
from keras_mosaickd.errors import InputError

POOL = np.random.default_rng(1).integers(0, 256, (23, 6, 5, 3), dtype=np.uint8)

sizes = st.integers(1, 40).flatmap(
    lambda pool: st.tuples(st.just(pool), st.integers(1, pool), st.integers(1, 6))
)


@given(sizes, st.integers(0, 2**40), st.integers(0, 5))
def test_an_epoch_shows_each_image_at_most_once(size, seed, epoch):
    pool, batch, steps = size
    plan = StreamPlan(pool, batch, steps, seed)
    first = epoch * plan.steps_per_epoch
    shown = np.concatenate([plan.patches(first + i) for i in range(plan.steps_per_epoch)])
    assert len(shown) == pool // batch * batch
    assert len(np.unique(shown)) == len(shown)
    assert shown.min() >= 0 and shown.max() < pool
    # The student's batches, in the order of their numbers, pass over the pool in the same way.
    columns = [
        plan.student(step)[0][:, k] for step in range(plan.steps_per_epoch) for k in range(steps)
    ]
    one_pass = np.concatenate(columns[: plan.steps_per_epoch])
    assert len(np.unique(one_pass)) == len(one_pass)


@given(sizes, st.integers(0, 2**40), st.lists(st.integers(0, 300), min_size=1, max_size=6))
def test_the_plan_is_a_function_of_seed_and_step(size, seed, steps):
    pool, batch, student_steps = size
    plan = StreamPlan(pool, batch, student_steps, seed, padding=2)
    for step in steps:  # in any order
        fresh = StreamPlan(pool, batch, student_steps, seed, padding=2)
        np.testing.assert_array_equal(plan.patches(step), fresh.patches(step))
        for ours, theirs in zip(plan.student(step), fresh.student(step), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_shapes_types_and_ranges():
    plan = StreamPlan(1000, 100, 4, seed=3, padding=2)
    indices, offsets, flips = plan.student(7)
    assert plan.patches(0).shape == (100,) and plan.patches(0).dtype == np.int64
    assert indices.shape == (100, 4) and indices.dtype == np.int64
    assert offsets.shape == (100, 4, 2)
    assert set(np.unique(offsets)) == set(range(5))
    assert flips.shape == (100, 4) and flips.dtype == bool
    assert 120 < flips.sum() < 280
    assert not StreamPlan(1000, 100, 4, flip=False).student(7)[2].any()


def test_streams_epochs_and_seeds_differ():
    plan, other = StreamPlan(500, 100, 1, seed=0), StreamPlan(500, 100, 1, seed=1)
    orders = [plan.patches(0), plan.patches(5), other.patches(0), plan.student(0)[0][:, 0]]
    for index, one in enumerate(orders):
        for two in orders[:index]:
            assert not np.array_equal(one, two)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((10, 11), "--batch_size: expected at most the number of images, 10. Received: 11"),
        ((10, 0), "--batch_size: expected a whole number of at least 1. Received: 0"),
        ((10, 2.5), "--batch_size"),
        ((10, 2, 0), "--student_steps"),
        ((10, 2, 1, -1), "--seed"),
    ],
)
def test_sizes_are_checked(arguments, message):
    with pytest.raises(InputError, match=message):
        StreamPlan(*arguments)


def test_padding_is_an_eighth():
    assert [default_padding(size) for size in (4, 8, 16, 28, 32, 64)] == [1, 1, 2, 4, 4, 8]


def test_crops_and_flips_by_hand():
    image = np.arange(1, 10, dtype=np.uint8).reshape(1, 3, 3, 1)

    def one(top, left, flip):
        return augment(image, np.array([[top, left]]), np.array([flip]), 1)[0, ..., 0].tolist()

    assert one(1, 1, False) == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert one(1, 1, True) == [[3, 2, 1], [6, 5, 4], [9, 8, 7]]
    assert one(0, 0, False) == [[0, 0, 0], [0, 1, 2], [0, 4, 5]]
    assert one(2, 1, False) == [[4, 5, 6], [7, 8, 9], [0, 0, 0]]
    assert one(1, 2, True) == [[0, 3, 2], [0, 6, 5], [0, 9, 8]]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_each_image_has_its_own_crop_and_flip(dtype, channels):
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (20, 5, 7, channels)).astype(dtype)
    offsets, flips = generator.integers(0, 5, (20, 2)), generator.random(20) < 0.5
    result = augment(images, offsets, flips, 2)
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    for index, (top, left) in enumerate(offsets):
        expected = padded[index, top : top + 5, left : left + 7]
        expected = expected[:, ::-1] if flips[index] else expected
        np.testing.assert_array_equal(result[index], expected)
    assert result.dtype == dtype


def test_the_whole_range_becomes_zero_to_one():
    values = np.arange(256, dtype=np.uint8)
    result = unit_range(values)
    assert result.dtype == np.float32
    assert result[0] == 0 and result[255] == 1
    np.testing.assert_allclose(result, values / 255, rtol=1e-6)


def test_an_element_holds_the_planned_images():
    batches = MosaicBatches(POOL, 4, 3, seed=5, padding=1)
    patches, ood = batches[2]
    plan = StreamPlan(23, 4, 3, seed=5, padding=1)
    np.testing.assert_array_equal(patches, unit_range(POOL[plan.patches(2)]))
    indices, offsets, flips = plan.student(2)
    assert ood.shape == (4, 3, 6, 5, 3) and ood.dtype == np.float32
    for k in range(3):
        expected = augment(POOL[indices[:, k]], offsets[:, k], flips[:, k], 1)
        np.testing.assert_array_equal(ood[:, k], unit_range(expected))


def test_without_augmentation_the_images_stay():
    batches = MosaicBatches(POOL, 4, 2, augment=False)
    indices = StreamPlan(23, 4, 2).student(0)[0]
    np.testing.assert_array_equal(batches[0][1], unit_range(POOL[indices]))


def test_labels_stay_with_their_images():
    labels = np.arange(23) * 10
    batches = SupervisedBatches(POOL, labels, 4, augment=False)
    assert len(batches) == 5
    for x, y in batches:
        np.testing.assert_array_equal(x, unit_range(POOL[y // 10]))
    (only,) = SupervisedBatches(POOL, None, 4)[0]
    assert only.shape == (4, 6, 5, 3)
    with pytest.raises(InputError, match="one label for each of 23 images. Received: 22"):
        SupervisedBatches(POOL, labels[1:], 4)


def test_epochs_follow_each_other_as_keras_reads_them():
    batches = MosaicBatches(POOL, 4, 2)
    straight = [batches.batch(step)[1] for step in range(15)]

    def epoch(count=5):
        batches.on_epoch_begin()
        read = [batches[index][1] for index in range(count)]
        batches.on_epoch_end()
        return read

    epoch(1)  # a look at the first element
    batches.on_epoch_end()
    list(batches)  # read by someone else
    np.testing.assert_array_equal(epoch(), straight[:5])
    batches.on_epoch_end()
    np.testing.assert_array_equal(epoch(), straight[5:10])
    np.testing.assert_array_equal(epoch(), straight[10:])


def test_a_resume_goes_on_at_its_step():
    straight = MosaicBatches(POOL, 4, 2, seed=9)
    resumed = MosaicBatches(POOL, 4, 2, seed=9, first_step=7, steps_per_epoch=3)
    assert len(resumed) == 3
    for index in range(3):
        np.testing.assert_array_equal(resumed[index][1], straight.batch(7 + index)[1])
    with pytest.raises(IndexError):
        resumed[3]
    with pytest.raises(InputError, match="first_step"):
        MosaicBatches(POOL, 4, first_step=-1)


def test_an_epoch_counts_once_its_last_element_was_handed_out():
    counter = EpochCounter(3, first_step=10)
    assert next(iter(counter)) == 10
    assert list(counter) == [10, 11, 12]
    assert list(counter) == [13, 14, 15]
    one, two = iter(counter), iter(counter)
    assert (list(one), list(two), list(counter)) == ([16, 17, 18], [19, 20, 21], [22, 23, 24])
