"""The idx format, whole and damaged."""

import gzip
import struct

import numpy as np
import pytest

from keras_mosaickd.data import load
from keras_mosaickd.data.sources.idx import find_idx, read_idx, read_split
from keras_mosaickd.errors import InputError


def idx_bytes(array):
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (6, 28, 28), dtype=np.uint8)


def test_plain_and_compressed_files_give_the_same(tmp_path, images):
    (tmp_path / "a").write_bytes(idx_bytes(images))
    (tmp_path / "a.gz").write_bytes(gzip.compress(idx_bytes(images)))
    np.testing.assert_array_equal(read_idx(tmp_path / "a", 3), images)
    np.testing.assert_array_equal(read_idx(tmp_path / "a.gz", 3), images)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda b: b"", "expected an idx header. Received: 0 bytes"),
        (lambda b: b[:15], "Received: 15 bytes"),
        (lambda b: b"\x01" + b[1:], "a file that starts 01000803"),
        (lambda b: b[:2] + b"\x0d" + b[3:], "a file that starts 00000d03"),
        (lambda b: b[:3] + b"\x01" + b[4:], "a file that starts 00000801"),
        (lambda b: b[:-1], "expected 4704 bytes of values, as its header says. Received: 4703"),
        (lambda b: b + b"\0", "Received: more"),
        (lambda b: b[:4] + b"\0\0\0\x07" + b[8:], "expected 5488 bytes"),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_damaged_file_is_named(tmp_path, images, damage, message, suffix):
    content = damage(idx_bytes(images))
    path = tmp_path / f"x{suffix}"
    path.write_bytes(gzip.compress(content) if suffix else content)
    with pytest.raises(InputError) as caught:
        read_idx(path, 3)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("cut", [0, 5, 200])
def test_a_damaged_compression_is_named(tmp_path, images, cut):
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(idx_bytes(images))[:cut] if cut else b"not gzip")
    with pytest.raises(InputError, match="expected a readable idx file"):
        read_idx(path, 3)


def test_images_and_labels_must_fit(tmp_path, images):
    files = tmp_path / "i", tmp_path / "l"
    files[0].write_bytes(idx_bytes(images))
    files[1].write_bytes(idx_bytes(np.arange(5)))
    with pytest.raises(InputError, match="Received: 5 labels, 6 images"):
        read_split(*files, 10)
    files[1].write_bytes(idx_bytes(np.full(6, 10)))
    with pytest.raises(InputError, match="expected labels below 10. Received: 10"):
        read_split(*files, 10)


def test_files_in_data_dir_are_used(tmp_path, images):
    labels = np.array([0, 5, 5, 8, 9, 5])
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx_bytes(images))
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(labels)))
    assert find_idx(tmp_path, "test") is None
    loaded = load("fashion_mnist[Bag,Sandal]", "train", data_dir=tmp_path)
    assert loaded.name == "fashion_mnist[8,5]"
    assert loaded.class_names == ("Bag", "Sandal")
    assert loaded.flip
    np.testing.assert_array_equal(loaded.labels, [1, 1, 0, 1])
    np.testing.assert_array_equal(loaded.images, images[[1, 2, 3, 5]][..., None])


def test_half_a_split_is_refused(tmp_path, images):
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(images))
    with pytest.raises(InputError, match="t10k-labels-idx1-ubyte or .*gz too"):
        load("fashion_mnist", "test", data_dir=tmp_path)
