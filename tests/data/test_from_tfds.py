"""Data sets of tensorflow-datasets, with its own stand-in data."""

import keras
import numpy as np
import pytest

from keras_mosaickd.data import load, select, stored
from keras_mosaickd.data.sources import load as loading
from keras_mosaickd.data.sources.forward import ForwardImages
from keras_mosaickd.data.sources.request import SPECS
from keras_mosaickd.data.sources.resizing import resized, with_channels
from keras_mosaickd.errors import InputError

tfds = pytest.importorskip("tensorflow_datasets")
pytestmark = pytest.mark.filterwarnings("default")

# Supplement, table 1: training and test images, classes (CIFAR-10's are misprinted there).
TABLE_1 = {
    "cifar100": (50_000, 10_000, 100),
    "cub200": (5_994, 5_794, 200),
    "stanford_dogs": (12_000, 8_580, 120),
    "nyuv2": (795, 654, 13),
    "cifar10": (50_000, 10_000, 10),
    "svhn": (73_257, 26_032, 10),
    "imagenet32": (1_281_167, 50_000, 1000),
    "imagenet64": (1_281_167, 50_000, 1000),
    "imagenet2012": (1_281_167, 50_000, 1000),
    "places365": (1_803_460, 36_500, 365),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "classes"), [("cifar10", 5), ("cifar100", 50), ("svhn_cropped", 5)]
)
def test_images_and_labels(name, classes):
    with tfds.testing.mock_data(num_examples=30):
        image_set = load(name, "test")
        small = load(f"{name}[0-{classes - 1}]", "train", image_size=16, channels=1)
        both = load(name, "all")
    assert image_set.images.shape == (30, 32, 32, 3)
    assert image_set.images.dtype == np.uint8
    assert image_set.labels.shape == (30,)
    assert image_set.labels.max() < len(image_set.class_names)
    assert image_set.flip == (name != "svhn_cropped")
    assert small.images.shape[1:] == (16, 16, 1)
    assert small.labels.max() < classes
    assert len(both) == 60


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("cub200", 64),
        ("stanford_dogs", 64),
        ("imagenet32", 32),
        ("imagenet64", 64),
        ("imagenet2012", 128),
        ("places365", 32),
    ],
)
def test_the_larger_sets_are_squares_of_their_size(name, size):
    count = len(SPECS[name].class_names)
    with tfds.testing.mock_data(num_examples=12):
        every = load(name, "train")
        some = load(f"{name}[0-{count // 2 - 1}]", "test", image_size=16)
    assert every.images.shape == (12, size, size, 3)
    assert every.task == "classification"
    assert len(every.class_names) == len(set(every.class_names)) == count
    assert every.labels.max() >= count // 2 > some.labels.max()
    assert len(some) == len(some.labels) < 12
    assert some.class_names == every.class_names[: count // 2]
    assert some.name == f"{name}[0-{count // 2 - 1}]"


@pytest.mark.parametrize("name", [name for name, spec in SPECS.items() if spec.tfds_name])
def test_the_table_agrees_with_the_source(name):
    spec = SPECS[name]
    info = tfds.builder(spec.tfds_name).info
    height, width, channels = info.features["image"].shape
    # Places' images are resized from 256, the others come in this size or in any.
    assert height == width and height in (None, spec.image_size, 256)
    assert channels == spec.channels
    assert info.features["label"].num_classes == len(spec.class_names)


@pytest.mark.parametrize("name", TABLE_1)
def test_the_table_is_that_of_the_supplement(name):
    spec = SPECS[name]
    assert (spec.train_size, spec.test_size, len(spec.class_names)) == TABLE_1[name]


@pytest.mark.parametrize(("name", "split"), [("cifar10", "test"), ("places365", "validation")])
def test_counts_are_checked(monkeypatch, name, split):
    expected = SPECS[name].test_size
    received = [expected]

    def prepare(self, *_, **__):
        info = tfds.core.SplitInfo(name=split, shard_lengths=received, num_bytes=1)
        self.info.set_splits(tfds.core.splits.SplitDict([info]))

    monkeypatch.setattr(loading, "IN_MEMORY_BYTES", 0)
    # Undone before the stand-in data are, or their own patch would stay in place.
    with tfds.testing.mock_data(num_examples=3), monkeypatch.context() as patch:
        patch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", prepare)
        assert len(load(name, "test", with_labels=False)) == expected
        received[0] -= 1
        message = f"{name}: expected {expected} images in the split {split}. Received: "
        with pytest.raises(InputError, match=f"{message}{expected - 1}"):
            load(name, "test", with_labels=False)


def known(shapes):
    """Stand-in data of known images and labels 0, 1, 2, ..., and the images."""
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]

    def as_dataset(self, *_, **__):
        import tensorflow as tf

        return tf.data.Dataset.from_generator(
            lambda: ({"image": image, "label": i} for i, image in enumerate(images)),
            output_signature={
                "image": tf.TensorSpec(self.info.features["image"].shape, tf.uint8),
                "label": tf.TensorSpec((), tf.int64),
            },
        ).apply(tf.data.experimental.assert_cardinality(len(images)))

    return tfds.testing.mock_data(as_dataset_fn=as_dataset), images


def test_images_of_any_size_are_cropped_and_resized_in_their_order():
    shapes = [(20 + i % 7, 30 - i % 11, 3) for i in range(150)]
    data, images = known(shapes)
    with data:
        read = load("cub200", "train", image_size=9, channels=1)
    expected = resized([with_channels(image, 1) for image in images], 9)
    np.testing.assert_array_equal(read.images, expected)
    np.testing.assert_array_equal(read.labels, np.arange(150))
    # The centre square: what is left and right of it changes nothing.
    wide = np.zeros((1, 10, 30, 3), np.uint8)
    wide[:, :, 10:20] = 200
    assert np.all(resized(wide, 4)[:, :, 1:-1] == 200)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["imagenet32", "imagenet2012"])
def test_a_large_set_is_streamed_and_equals_the_one_in_memory(monkeypatch, name):
    data, _ = known([(32, 32, 3)] * 300)
    with data:
        held = load(name, "all", image_size=32)
        some = load(f"{name}[7,3]", "train", image_size=32)
        monkeypatch.setattr(loading, "IN_MEMORY_BYTES", 300 * 32 * 32 * 3)
        pool = load(name, "all", image_size=32, with_labels=False)
        streamed = load(name, "all", image_size=32)
        np.testing.assert_array_equal(pool.images[:], held.images)
        np.testing.assert_array_equal(pool.images[120:270], held.images[120:270])
        assert some.labels.tolist() == [1, 0] and isinstance(some.images, np.ndarray)
    assert isinstance(pool.images, ForwardImages) and len(pool) == 600
    assert pool.labels is None
    np.testing.assert_array_equal(streamed.labels, np.tile(np.arange(300), 2))
    assert pool.fingerprint() == streamed.fingerprint() != held.fingerprint()


@pytest.mark.slow
@pytest.mark.parametrize("count", [0, 40])
def test_a_streamed_pool_is_selected_from_as_one_in_memory(monkeypatch, tmp_path, count):
    teacher = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(5)]
    )
    data, _ = known([(256, 256, 3)] * 300)
    with data:
        held = load("places365", "train", image_size=8)
        monkeypatch.setattr(loading, "IN_MEMORY_BYTES", 0)
        pool = load("places365", "train", image_size=8, with_labels=False)
        chosen = select(teacher, pool, count, batch_size=100, cache_dir=tmp_path)
        expected = select(teacher, held, count, batch_size=100, cache_dir=tmp_path)
        assert select(teacher, pool, count, cache_dir=tmp_path).reused
        kept = stored(pool, tmp_path, streams=True)
    assert not expected.reused
    np.testing.assert_array_equal(chosen.indices, expected.indices)
    np.testing.assert_array_equal(chosen.entropies, expected.entropies)
    np.testing.assert_array_equal(chosen.images, held.images[expected.indices])
    assert stored(pool, tmp_path) is pool
    np.testing.assert_array_equal(kept.images, held.images)
    assert isinstance(kept.images, np.memmap)


def test_a_failed_download_says_what_to_fetch(monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", refuse)
    with pytest.raises(RuntimeError) as caught:
        load("cifar10", "train", data_dir=tmp_path)
    message = str(caught.value)
    assert "tfds build cifar10" in message
    assert "--data_dir" in message
    assert "ConnectionError: no route" in message
    assert "\n" not in message


def test_what_is_fetched_by_hand_says_what_and_where(tmp_path):
    with pytest.raises(InputError) as caught:
        load("imagenet2012", "train", data_dir=tmp_path)
    message = str(caught.value)
    assert "ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar" in message
    assert "https://image-net.org/download-images" in message
    assert "DIR/downloads/manual" in message and "--data_dir" in message
    assert "\n" not in message
