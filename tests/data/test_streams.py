"""The public helpers: the same batches on every backend, and what they refuse."""

import subprocess
import sys
import textwrap
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_mosaickd.data import ImageSet, load, mosaic_stream, supervised_stream
from keras_mosaickd.data.streams.arrays import MosaicBatches, SupervisedBatches
from keras_mosaickd.data.streams.training import validation_stream
from keras_mosaickd.errors import InputError

POOL = np.random.default_rng(1).integers(0, 256, (90, 8, 8, 1), dtype=np.uint8)


def elements(stream):
    """One epoch as numpy arrays."""
    batches = stream if hasattr(stream, "element_spec") else list(stream)
    return [tuple(np.asarray(part) for part in element) for element in batches]


def same(first, second):
    return len(first) == len(second) and all(
        np.array_equal(a, b)
        for x, y in zip(first, second, strict=True)
        for a, b in zip(x, y, strict=True)
    )


@pytest.mark.parametrize("pool", [POOL, POOL.astype(np.float32) / 255], ids=["uint8", "float32"])
@pytest.mark.parametrize("batch_size", [4, 30])  # long epochs are prefetched, short ones are not
def test_every_backend_gets_the_same_elements(pool, batch_size):
    stream = mosaic_stream(pool, batch_size, 3, seed=4)
    expected = MosaicBatches(pool, batch_size, 3, seed=4)
    steps = 90 // batch_size
    assert len(stream) == steps
    assert same(elements(stream), [expected.batch(step) for step in range(steps)])
    for part in elements(stream)[0]:
        assert part.dtype == np.float32 and part.min() >= 0 and part.max() <= 1


def test_every_backend_gets_the_same_labelled_elements():
    labels = np.arange(90)
    expected = SupervisedBatches(POOL, labels, 7, seed=2, flip=False)
    stream = supervised_stream(POOL, labels, 7, seed=2, flip=False)
    assert same(elements(stream), [expected.batch(step) for step in range(12)])
    assert len(elements(supervised_stream(POOL, None, 7))[0]) == 1
    soft = np.random.default_rng(0).random((90, 4)).astype(np.float32)
    assert elements(supervised_stream(POOL, soft, 7))[0][1].shape == (7, 4)


class Recorder(keras.Model):
    """Keeps what `fit` gives it."""

    def __init__(self):
        super().__init__()
        self.shift = self.add_weight(shape=(), initializer="zeros")
        self.built = True

    def call(self, x):
        return keras.ops.mean(x, axis=(1, 2, 3)) + self.shift


def fitted(stream_of, epochs, **options):
    """The first value of each y that `fit` handed to the loss."""
    seen = []

    def loss(y_true, y_pred):
        seen.append(np.asarray(keras.ops.convert_to_numpy(y_true)).reshape(-1).astype(int))
        return keras.ops.mean(y_pred)

    model = Recorder()
    model.compile(optimizer="sgd", loss=loss, run_eagerly=True)
    model.fit(stream_of, epochs=epochs, verbose=0, shuffle=False, **options)
    return seen


@pytest.mark.backend("tensorflow")
def test_fit_gets_one_fresh_pass_per_epoch_and_resumes_anywhere():
    labels = np.arange(90)

    def stream(**options):
        return supervised_stream(POOL, labels, 10, seed=3, **options)

    straight = fitted(stream(), epochs=3)
    assert len(straight) == 27
    for epoch in range(3):
        shown = np.concatenate(straight[9 * epoch : 9 * epoch + 9])
        np.testing.assert_array_equal(np.sort(shown), labels)
    assert not np.array_equal(straight[0], straight[9])
    assert not np.array_equal(straight[9], straight[18])
    np.testing.assert_array_equal(straight, fitted(stream(), epochs=3, steps_per_epoch=9))
    np.testing.assert_array_equal(
        straight[13:22], fitted(stream(first_step=13), epochs=2, initial_epoch=1)
    )
    np.testing.assert_array_equal(straight[:12], fitted(stream(steps_per_epoch=4), epochs=3))


@pytest.mark.backend("jax", "torch")
def test_fit_reads_the_steps_in_order_and_resumes_anywhere():
    def steps(epochs, **options):
        stream = supervised_stream(POOL, np.arange(90), 10, seed=3, **options)
        read = []
        ahead = stream.ahead
        stream.ahead = lambda step: read.append(step) or ahead(step)
        model = Recorder()
        model.compile(optimizer="sgd", loss="mse")
        model.fit(stream, epochs=epochs, verbose=0, shuffle=False)
        # Keras looks at the first element once to build the loss, before it begins.
        return read[1:] if read[0] == read[1] else read

    assert steps(3) == list(range(27))
    assert steps(2, first_step=13) == list(range(13, 31))
    assert steps(3, steps_per_epoch=4) == list(range(12))


@pytest.mark.backend("jax", "torch")
def test_what_fit_reads_is_made_ahead_and_the_same():
    stream = mosaic_stream(POOL, 4, 3, seed=4)
    expected = elements(stream)
    stream.on_epoch_begin()
    read = list(stream)
    assert same(read, expected)
    # On PyTorch from the third on, which was made while the second was in use.
    is_laid = [not isinstance(part, np.ndarray) for element in read for part in element]
    assert is_laid == [keras.backend.backend() == "torch" and i >= 4 for i in range(len(is_laid))]
    # What comes next is made already: the epoch that follows begins there.
    stream.on_epoch_end()
    stream.on_epoch_begin()
    assert same([stream[0]], [MosaicBatches(POOL, 4, 3, seed=4).batch(len(stream))])


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((9, 8, 8), np.uint8), r"\[n, height, width, channels\]. Received: shape \(9, 8"),
        (np.zeros((9, 8, 8, 5), np.uint8), "1 to 4 channels"),
        (np.zeros((0, 8, 8, 3), np.uint8), "Received: shape"),
        (np.zeros((9, 8, 8, 3), np.int64), "uint8 or as floats in .0, 1.. Received: type int64"),
        (np.full((9, 8, 8, 3), 1.5), r"Received: floats in \[1.5, 1.5\]"),
        (np.full((9, 8, 8, 3), -0.1), "Received: floats in"),
        (np.full((9, 8, 8, 3), np.nan), "Received: floats in"),
        ([np.zeros((2, 2)), np.zeros((3, 3))], "as one array"),
        ("pictures", "Received: shape"),
        (np.zeros((3, 8, 8, 3), np.uint8), "--batch_size: expected at most .* 3. Received: 4"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(images, message):
    for stream in (mosaic_stream, lambda images, size: supervised_stream(images, None, size)):
        with pytest.raises(InputError, match=message) as caught:
            stream(images, 4)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("padding", [-1, 9, 1.5])
def test_a_padding_beyond_the_image_is_refused(padding):
    with pytest.raises(InputError, match="padding: expected a whole number from 0 to 8"):
        mosaic_stream(POOL, 4, padding=padding)
    assert len(mosaic_stream(POOL, 4, padding=8)) == 22


def test_other_arrays_are_converted():
    from_list = mosaic_stream((POOL / 255.0).tolist(), 4, 2)
    tensor = keras.ops.convert_to_tensor(POOL.astype(np.float32) / 255)
    assert same(elements(from_list), elements(mosaic_stream(tensor, 4, 2)))


def test_a_folder_is_a_pool(tmp_path):
    from PIL import Image

    for index in range(6):
        Image.fromarray(POOL[index, ..., 0]).save(tmp_path / f"{index}.png")
    images = load(f"folder:{tmp_path}", "train", image_size=8, channels=1).images
    assert same(elements(mosaic_stream(images, 2, 2)), elements(mosaic_stream(POOL[:6], 2, 2)))


@pytest.mark.long
@pytest.mark.backend("jax")
def test_arrays_need_no_tensorflow(tmp_path):
    code = """
        import sys
        sys.modules["tensorflow"] = None
        sys.modules["tensorflow_datasets"] = None
        import keras
        from keras_mosaickd.data import (
            entropies, evaluation_arrays, load, mosaic_stream, select, supervised_stream
        )
        images = load("digits[5-9]", "train")
        patches, ood = mosaic_stream(images.images, 32)[0]
        assert ood.shape == (32, 5, 16, 16, 1)
        model = keras.Sequential([keras.Input((16, 16, 1)), keras.layers.Flatten(),
                                  keras.layers.Dense(5)])
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        stream = supervised_stream(images.images, images.labels, 64, flip=images.flip)
        model.fit(stream, epochs=1, verbose=0, shuffle=False)
        model.evaluate(*evaluation_arrays(images), verbose=0)
        assert len(select(model, images, 100, cache_dir=sys.argv[1])) == 100
    """
    subprocess.run(
        [
            sys.executable,
            "-W",
            "error::UserWarning",
            "-W",
            "ignore::DeprecationWarning",
            "-c",
            textwrap.dedent(code),
            str(tmp_path),
        ],
        check=True,
        cwd=Path(__file__).parents[2],
    )


@pytest.mark.backend("tensorflow")
@pytest.mark.parametrize("steps", [2, 20])
def test_no_stream_is_autotuned(steps):
    """An autotuned one makes the end of every epoch wait, see `pipelines.untuned`."""
    import tensorflow as tf

    images = np.zeros((8, 8, 8, 3), "uint8")
    image_set = ImageSet(images, np.zeros(8, "int64"), ("a", "b"), "zeros", "test", flip=False)
    dataset = tf.data.Dataset.from_tensor_slices(images)
    for stream in (
        mosaic_stream(images, 2, steps_per_epoch=steps),
        mosaic_stream(dataset, 2, steps_per_epoch=steps),
        supervised_stream(images, None, 2, steps_per_epoch=steps),
        validation_stream(image_set, 2)["validation_data"],
    ):
        assert stream.options().autotune.enabled is False


def test_validation_is_every_image_once_in_order():
    images = np.arange(7 * 4, dtype="uint8").reshape(7, 2, 2, 1)
    image_set = ImageSet(images, np.arange(7), tuple("abcdefg"), "seven", "test", flip=False)
    given = validation_stream(image_set, 3)
    data = given["validation_data"]
    if keras.backend.backend() == "tensorflow":
        batches = list(data.as_numpy_iterator())
        assert [len(x) for x, _ in batches] == [3, 3, 1] == [3] * (len(data) - 1) + [1]
        data = [np.concatenate(part) for part in zip(*batches, strict=True)]
    else:
        assert given["validation_batch_size"] == 3
    np.testing.assert_allclose(data[0], images / np.float32(255), rtol=1e-6)
    np.testing.assert_array_equal(data[1], np.arange(7))
