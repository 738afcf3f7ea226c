"""Images that are read forward, beside the same ones in memory."""

import dataclasses

import numpy as np
import pytest

from keras_mosaickd.data import mosaic_stream, select, supervised_stream
from keras_mosaickd.data.cache import write_images
from keras_mosaickd.data.image_set import ImageSet
from keras_mosaickd.data.scores import entropies
from keras_mosaickd.data.sources.forward import ForwardImages
from keras_mosaickd.errors import InputError

POOL = np.random.default_rng(0).integers(0, 256, (50, 4, 4, 1), dtype=np.uint8)


class Reader:
    """Hands out chunks of the pool, and counts openings and chunks."""

    def __init__(self, chunk=8, pool=POOL):
        self.chunk = chunk
        self.pool = pool
        self.openings = 0
        self.chunks = 0

    def __call__(self):
        self.openings += 1
        for start in range(0, len(self.pool), self.chunk):
            self.chunks += 1
            yield self.pool[start : start + self.chunk]


def forward(reader, count=50, **options):
    return ForwardImages(reader, count, 4, 1, "pool 1.0 train", **options)


@pytest.mark.parametrize("chunk", [1, 8, 50, 64])
@pytest.mark.parametrize("batch", [1, 7, 8, 20, 50])
def test_one_pass_in_batches_opens_the_files_once(chunk, batch):
    reader = Reader(chunk)
    images = forward(reader)
    assert images.shape == (50, 4, 4, 1) and images.dtype == np.uint8 and len(images) == 50
    batches = [images[start : start + batch] for start in range(0, 50, batch)]
    np.testing.assert_array_equal(np.concatenate(batches), POOL)
    assert (reader.openings, reader.chunks) == (1, -(-50 // chunk))


def test_going_back_starts_again_and_within_a_chunk_does_not():
    reader = Reader(chunk=8)
    images = forward(reader)
    np.testing.assert_array_equal(images[20:22], POOL[20:22])
    np.testing.assert_array_equal(images[16:20], POOL[16:20])
    assert reader.openings == 1
    np.testing.assert_array_equal(images[15:17], POOL[15:17])
    assert reader.openings == 2


def test_every_index_that_ascends():
    images = forward(Reader())
    for index in ([0, 3, 3, 9, 30, 49], [49], [], np.arange(0, 50, 11)):
        index = np.array(index, np.int64)
        np.testing.assert_array_equal(images[index], POOL[index])
    for index in (
        slice(None),
        slice(5, 40, 9),
        slice(-3, None),
        slice(9, 9),
        POOL[:, 0, 0, 0] > 99,
    ):
        np.testing.assert_array_equal(images[index], POOL[index])
    np.testing.assert_array_equal(images[7], POOL[7])
    np.testing.assert_array_equal(images[-1], POOL[-1])
    np.testing.assert_array_equal(np.asarray(images), POOL)
    with pytest.raises(InputError, match=r"expected ascending positions .*\[3, 2\]"):
        images[np.array([3, 2])]
    with pytest.raises(IndexError):
        images[50]


def test_a_subset_of_a_subset():
    kept = np.array([2, 3, 17, 40, 48])
    images = forward(Reader()).subset(kept)
    assert images.shape == (5, 4, 4, 1)
    np.testing.assert_array_equal(images[1:4], POOL[kept[1:4]])
    np.testing.assert_array_equal(images.subset(np.array([0, 4]))[:], POOL[kept[[0, 4]]])


def test_the_fingerprint_follows_source_number_shape_and_subset():
    prints = [
        forward(Reader()).fingerprint(),
        forward(Reader(), count=49).fingerprint(),
        ForwardImages(Reader(), 50, 4, 3, "pool 1.0 train").fingerprint(),
        ForwardImages(Reader(), 50, 4, 1, "pool 1.1 train").fingerprint(),
        forward(Reader()).subset(np.arange(4)).fingerprint(),
        forward(Reader()).subset(np.arange(1, 5)).fingerprint(),
    ]
    assert len(set(prints)) == len(prints)
    assert forward(Reader(3)).fingerprint() == prints[0]


def test_fewer_images_than_announced_are_an_error_and_then_again():
    images = forward(Reader(), count=51)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="expected 51 images of pool .* Received: 50"):
            images[:]
    np.testing.assert_array_equal(images[:50], POOL)


def test_an_error_while_reading_comes_through():
    def broken():
        yield POOL[:8]
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        forward(broken)[:]


def linear_teacher():
    import keras

    return keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(3)])


@pytest.mark.parametrize(("count", "passes"), [(0, 1), (20, 2)])
def test_selection_reads_the_files_once_or_twice(tmp_path, count, passes):
    reader = Reader()
    teacher = linear_teacher()
    held = ImageSet(POOL, None, (), "noise", "train", True)
    streamed = dataclasses.replace(held, images=forward(reader))
    chosen = select(teacher, streamed, count, batch_size=8, cache_dir=tmp_path)
    assert reader.openings == passes
    expected = select(teacher, held, count, batch_size=8, cache_dir=tmp_path)
    np.testing.assert_array_equal(chosen.indices, expected.indices)
    np.testing.assert_array_equal(chosen.images, expected.images)


class Unstored:
    """A million images that exist only while they are asked for, and how many were at a time."""

    dtype = np.dtype(np.uint8)
    shape = (1_000_000, 4, 4, 1)
    largest = 0

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, index):
        positions = np.arange(len(self))[index]
        self.largest = max(self.largest, len(positions))
        values = (positions % 256).astype(np.uint8)
        return np.broadcast_to(values[:, None, None, None], (len(positions), 4, 4, 1))


@pytest.mark.slow
def test_a_million_images_are_never_held_together(tmp_path):
    images = Unstored()
    scores = entropies(linear_teacher(), images, batch_size=20_000)
    assert scores.shape == (1_000_000,) and images.largest == 20_000
    images.largest = 0
    write_images(tmp_path / "images.npy", images)
    assert images.largest <= 1024
    written = np.load(tmp_path / "images.npy", mmap_mode="r")
    np.testing.assert_array_equal(written[::99_999, 0, 0, 0], np.arange(0, 10**6, 99_999) % 256)


def test_training_needs_images_in_any_order():
    for stream in (mosaic_stream, lambda images, size: supervised_stream(images, None, size)):
        with pytest.raises(InputError, match="in any order, as `stored` .* stream of 50 images"):
            stream(forward(Reader()), 4)
