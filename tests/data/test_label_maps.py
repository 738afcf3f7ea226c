"""Images with label maps: layout, checks, resizing; `nyuv2` and `segmentation:PATH`."""

import dataclasses
import shutil
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from keras_mosaickd.data import VOID, evaluation_arrays, load, parse
from keras_mosaickd.data.sources.request import SPECS
from keras_mosaickd.errors import InputError


def save(folder, stem, labels, suffix="png", image=None):
    """Writes a pair; by default the image is ten times its labels, in grey."""
    labels = np.asarray(labels, np.uint8)
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    if image is None:
        image = np.repeat(labels[..., None] * 10, 3, axis=-1)
    Image.fromarray(image).save(folder / "images" / f"{stem}.{suffix}")
    Image.fromarray(labels).save(folder / "labels" / f"{stem}.png")


@pytest.fixture
def root(tmp_path):
    """Three training pairs and one for the test, with three classes and void."""
    for number in range(3):
        save(tmp_path / "train", f"b{number}", np.full((6, 6), number))
    save(tmp_path / "test", "a", [[VOID, 2], [1, 0]])
    (tmp_path / "classes.txt").write_text("sky\nearth\n\nsea \n")
    return tmp_path


def test_pairs_are_read_in_the_order_of_their_names(root):
    train = load(f"segmentation:{root}", "train", image_size=6)
    assert train.images.shape == (3, 6, 6, 3) and train.images.dtype == np.uint8
    assert train.labels.shape == (3, 6, 6) and train.labels.dtype == np.uint8
    np.testing.assert_array_equal(train.labels[:, 0, 0], [0, 1, 2])
    np.testing.assert_array_equal(train.images[:, 3, 3, 0], [0, 10, 20])
    assert train.class_names == ("sky", "earth", "sea")
    assert (train.task, train.name) == ("segmentation", f"segmentation:{root}")
    test = load(f"segmentation:{root}", "test", image_size=2, channels=1)
    assert test.labels[0].tolist() == [[VOID, 2], [1, 0]]
    assert test.images.shape == (1, 2, 2, 1)
    both = load(f"segmentation:{root}", "all", image_size=4)
    assert both.images.shape == (4, 4, 4, 3) and len(both.labels) == 4
    assert load(f"segmentation:{root}", "test").images.shape == (1, 128, 128, 3)


def test_arrays_for_evaluation(root):
    x, y = evaluation_arrays(load(f"segmentation:{root}", "test", image_size=2))
    assert x.dtype == np.float32 and x.max() <= 1
    assert y.dtype == np.int32
    assert y[0].tolist() == [[VOID, 2], [1, 0]]


def test_image_and_labels_get_the_same_crop_and_labels_are_not_mixed(root):
    labels = np.zeros((20, 60), np.uint8)
    labels[:, 20:30], labels[:, 30:40] = 1, 2  # the centre square is half 1, half 2
    save(root / "test", "wide", labels)
    save(root / "test", "tall", labels.T)
    test = load(f"segmentation:{root}", "test", image_size=10)
    tall, wide = test.labels[1:]
    expected = np.repeat([[1] * 5 + [2] * 5], 10, axis=0)
    np.testing.assert_array_equal(wide, expected)
    np.testing.assert_array_equal(tall, expected.T)
    # Away from the border between two classes the image shows its label.
    inside = [1, 2, 3, 6, 7, 8]
    np.testing.assert_array_equal(test.images[2][:, inside, 0], wide[:, inside] * 10)
    np.testing.assert_array_equal(test.images[1][inside, :, 0], tall[inside] * 10)


def test_turned_images_and_palettes(root):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn: the upright image is 3 wide and 4 high
    image = Image.new("RGB", (4, 3), (50, 50, 50))
    image.save(root / "test" / "images" / "turned.jpg", exif=exif)
    labels = Image.fromarray(np.full((4, 3), 1, np.uint8), "P")
    labels.putpalette([0, 0, 0, 200, 0, 0])
    labels.save(root / "test" / "labels" / "turned.png")
    test = load(f"segmentation:{root}", "test", image_size=3)
    assert np.all(test.labels[1] == 1)


@pytest.mark.parametrize("bits", [2, 4])
def test_grey_of_few_bits_keeps_its_classes(root, bits):
    labels = Image.fromarray(np.array([[0, 1], [2, 2]], np.uint8))
    # A PNG of so many bits of grey, written by hand: Pillow writes eight.
    header = struct.pack(">IIBBBBB", 2, 2, bits, 0, 0, 0, 0)
    rows = b"".join(
        bytes([0, (int(row[0]) << (8 - bits)) | (int(row[1]) << (8 - 2 * bits))])
        for row in np.asarray(labels)
    )
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    content = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    (root / "test" / "labels" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    test = load(f"segmentation:{root}", "test", image_size=2)
    assert test.labels[0].tolist() == [[0, 1], [2, 2]]


def test_the_fingerprint_follows_the_labels(root):
    image_set = load(f"segmentation:{root}", "train", image_size=6)
    changed = image_set.labels.copy()
    changed[0, 0, 0] = VOID
    assert image_set.fingerprint() != dataclasses.replace(image_set, labels=changed).fingerprint()
    assert image_set.fingerprint() == dataclasses.replace(image_set).fingerprint()


def nyuv2(root, train=2, test=1, value=12):
    """Tiny stand-in files of NYUv2."""
    for split, count in (("train", train), ("test", test)):
        for number in range(count):
            save(root / split, f"{number:04}", [[0, value], [VOID, 1]])


@pytest.fixture
def small_nyuv2(monkeypatch):
    """NYUv2 with two training images and one test image."""
    spec = dataclasses.replace(SPECS["nyuv2"], train_size=2, test_size=1)
    monkeypatch.setitem(SPECS, "nyuv2", spec)


@pytest.mark.parametrize("below", [".", "nyuv2"])
def test_nyuv2_is_found_in_the_folder_or_below_it(tmp_path, below, small_nyuv2):
    nyuv2(tmp_path / below)
    train = load("nyuv2", "train", image_size=2, data_dir=tmp_path)
    assert len(train) == 2 and len(load("nyuv2", "test", data_dir=tmp_path)) == 1
    assert train.labels[1].tolist() == [[0, 12], [VOID, 1]]
    assert len(train.class_names) == 13 and train.class_names[0] == "bed"
    assert load("nyuv2", "train", data_dir=tmp_path).images.shape[1:] == (128, 128, 3)


@pytest.mark.parametrize(("split", "expected"), [("train", 795), ("test", 654)])
def test_nyuv2_has_its_number_of_images(tmp_path, split, expected):
    nyuv2(tmp_path)
    received = len(list((tmp_path / split / "images").iterdir()))
    message = f"expected {expected} images in .*{split} .nyuv2.. Received: {received}"
    with pytest.raises(InputError, match=message):
        load("nyuv2", split, data_dir=tmp_path)


def test_nyuv2_with_labels_from_one_says_how_to_convert_them(tmp_path, small_nyuv2):
    nyuv2(tmp_path, value=13)
    message = "labels 0 to 12, or 255 for void, in .*0000.png.*value minus 1, and 255 for 0.*13$"
    with pytest.raises(InputError, match=message):
        load("nyuv2", "train", data_dir=tmp_path)


@pytest.mark.parametrize("given", [True, False])
def test_nyuv2_says_what_to_fetch_and_how_to_lay_it_out(tmp_path, given):
    with pytest.raises(InputError) as caught:
        load("nyuv2", "train", data_dir=tmp_path if given else None, flag="--ood")
    message = str(caught.value)
    assert message.startswith("--ood: nyuv2 has to be fetched by hand: ")
    assert "https://github.com/ankurhanda/nyuv2-meta-data" in message
    assert f"in {tmp_path if given else 'DIR'}/nyuv2 or" in message
    assert "train/images, train/labels, test/images and test/labels" in message
    assert "values 0 to 12, or 255 for void" in message
    assert "\n" not in message


def remove(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (
            lambda r: remove(r / "train" / "labels"),
            "classes.txt .* Received: train/labels: No such",
        ),
        (lambda r: remove(r / "train" / "labels" / "b1.png"), "train/labels without 'b1'"),
        (lambda r: remove(r / "train" / "images" / "b2.png"), "train/images without 'b2'"),
        (
            lambda r: remove(r / "classes.txt"),
            "classes.txt with one class .* Received: classes.txt",
        ),
        (lambda r: (r / "classes.txt").write_text("a\nb\na\n"), "different class names .* 3, 2 of"),
        (lambda r: (r / "classes.txt").write_text(" \n"), "1 to 255 different .* Received: 0"),
        (
            lambda r: [
                remove(r / "train" / kind / f"b{i}.png")
                for i in range(3)
                for kind in ("images", "labels")
            ],
            "no images in train/images",
        ),
        (lambda r: save(r / "train", "c", [[3]]), "labels 0 to 2, or 255 .*c.png.* Received: 3"),
        (
            lambda r: save(r / "train", "c", [[0, 1]], image=np.zeros((1, 3, 3), np.uint8)),
            r"c.png' of its image's width and height \(3, 1\). Received: \(2, 1\)",
        ),
        (
            lambda r: Image.new("RGB", (6, 6)).save(r / "train" / "labels" / "b0.png"),
            "one channel .* b0.png' of mode RGB|one channel .*b0.png",
        ),
        (
            lambda r: (r / "train" / "labels" / "b0.png").write_bytes(b"no"),
            "a readable image. Received: .*labels/b0.png",
        ),
        (
            lambda r: (r / "train" / "images" / "b0.png").write_bytes(b"no"),
            "a readable image. Received: .*b0.png",
        ),
        (
            lambda r: [(r / "train" / "images" / f"b{i}.png").write_bytes(b"no") for i in (0, 2)],
            "readable images. Received: 2 of 3 in .*b0.png.*b2.png",
        ),
        (
            lambda r: Image.new("RGB", (6, 6)).save(r / "train" / "images" / "b0.jpg"),
            "two files 'b0' in train/images",
        ),
    ],
)
def test_what_does_not_fit_is_named(root, break_it, message):
    break_it(root)
    with pytest.raises(InputError, match=message) as caught:
        load(f"segmentation:{root}", "train", image_size=4)
    assert "\n" not in str(caught.value)


def test_a_missing_folder(tmp_path):
    with pytest.raises(InputError, match="values 0 to n - 1, .* Received: no such folder"):
        load(f"segmentation:{tmp_path / 'none'}", "train")


@pytest.mark.parametrize("text", ["nyuv2[0-3]", "nyuv2[bed]", "segmentation:/some/path[sky]"])
def test_classes_cannot_be_chosen(text):
    with pytest.raises(InputError, match="--ood: expected all classes .* for segmentation"):
        parse(text, "--ood")


def test_pairs_that_cannot_be_read_are_left_out_where_that_is_asked_for(root, capsys):
    image, labels = root / "train/images/b0.png", root / "train/labels/b2.png"
    image.write_bytes(image.read_bytes()[:40])
    labels.write_bytes(b"no image")
    with pytest.raises(InputError, match="b0.png"):
        load(f"segmentation:{root}", "train", image_size=6)
    train = load(f"segmentation:{root}", "train", image_size=6, skip_unreadable=True)
    assert train.images[:, 3, 3, 0].tolist() == [10] and train.labels[:, 0, 0].tolist() == [1]
    assert train.unreadable == (str(image), str(labels))
    assert "2 of 3 images of segmentation:" in capsys.readouterr().out
    (root / "train/images/b1.png").write_bytes(b"")
    with pytest.raises(InputError, match="b0.png.*and so are all the others"):
        load(f"segmentation:{root}", "train", image_size=6, skip_unreadable=True)
