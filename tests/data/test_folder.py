"""Images in folders: kinds of files, splits, labels, what cannot be used."""

import dataclasses
import os
import struct
import zlib

import numpy as np
import PIL
import pytest
from PIL import Image

from keras_mosaickd.data import load, stored, without_unreadable
from keras_mosaickd.data.sources.decoding import decode
from keras_mosaickd.errors import InputError


def save(path, value=100, size=(8, 8), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode in ("L", "P") else (value,) * len(mode)).save(
        path, **options
    )
    return path


def noise(path, size=(40, 30), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = {"L": (), "RGB": (3,), "CMYK": (4,)}[mode]
    array = np.random.default_rng(0).integers(0, 256, (size[1], size[0], *channels), dtype=np.uint8)
    Image.fromarray(array, mode if mode == "CMYK" else None).save(path, **options)
    return path


@pytest.mark.parametrize(
    "suffix",
    [
        *("png", "jpg", "JPEG", "bmp", "gif", "webp", "TIF", "tiff", "ppm", "tga", "jp2", "pcx"),
        pytest.param(
            "ico",
            marks=pytest.mark.skipif(
                int(PIL.__version__.partition(".")[0]) < 13, reason="small icons"
            ),
        ),
    ],
)
def test_every_kind_of_file_is_read(tmp_path, suffix):
    save(tmp_path / f"a.{suffix}")
    image_set = load(f"folder:{tmp_path}", "train", image_size=4)
    assert image_set.images.shape == (1, 4, 4, 3)
    assert image_set.labels is None
    assert np.all(np.abs(image_set.images[:].astype(int) - 100) <= 3)


def test_sixteen_bits(tmp_path):
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(values).save(tmp_path / "a.png")
    for channels in (1, 3):
        image = decode(tmp_path / "a.png", 8, channels)
        np.testing.assert_array_equal(image[..., 0], values // 257)
        assert image.shape == (8, 8, channels)


def test_a_transparent_value_of_sixteen_bits_is_white(tmp_path):
    values = np.full((8, 8), 3, np.uint16)
    values[0, 0] = 512
    Image.fromarray(values).save(tmp_path / "a.png", transparency=3)
    assert decode(tmp_path / "a.png", 8, 1)[0, :2, 0].tolist() == [1, 255]


def test_transparent_parts_are_white(tmp_path):
    array = np.zeros((8, 8, 4), np.uint8)
    array[:, 4:] = (200, 0, 0, 255)
    Image.fromarray(array).save(tmp_path / "a.png")
    image = decode(tmp_path / "a.png", 8, 3)
    assert np.all(image[:, :4] == 255)
    assert np.all(image[:, 4:] == (200, 0, 0))
    Image.new("LA", (8, 8), (10, 0)).save(tmp_path / "b.png")
    assert np.all(decode(tmp_path / "b.png", 8, 1) == 255)


def test_palettes_with_and_without_transparency(tmp_path):
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.save(tmp_path / "a.png")
    assert np.all(decode(tmp_path / "a.png", 8, 3) == (10, 20, 30))
    image.save(tmp_path / "b.png", transparency=b"\xff\x00")
    assert np.all(decode(tmp_path / "b.png", 8, 3) == 255)
    image.save(tmp_path / "c.gif", transparency=1)
    assert np.all(decode(tmp_path / "c.gif", 8, 3) == 255)


def test_other_modes(tmp_path):
    save(tmp_path / "a.jpg", mode="CMYK", value=0)
    assert np.all(decode(tmp_path / "a.jpg", 8, 3) >= 250)
    Image.new("1", (8, 8), 1).save(tmp_path / "b.png")
    assert np.all(decode(tmp_path / "b.png", 8, 3) == 255)


def test_the_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (8, 8), (value, 0, 0)) for value in (40, 90, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert np.all(np.abs(decode(tmp_path / "a.gif", 8, 3)[..., 0].astype(int) - 40) <= 1)


def test_files_that_are_no_images_are_counted_by_their_endings(tmp_path, capsys):
    save(tmp_path / "a.png").rename(tmp_path / "a.jfif")
    for name in ("b.heic", "c.HEIC", "notes", "d.txt", ".hidden.txt", "e.eps"):
        (tmp_path / name).write_text("%!PS-Adobe-3.0 EPSF-3.0")
    for _ in range(2):
        assert len(load(f"folder:{tmp_path}", "all")) == 1
    printed = capsys.readouterr().out
    assert printed.count("left out, as no images that Pillow reads") == 1
    assert "2 .heic, " in printed and "1 without ending" in printed and "1 .txt" in printed
    # Whatever it is called, no program is started for it.
    (tmp_path / "e.eps").rename(tmp_path / "e.png")
    with pytest.raises(InputError, match="e.png.*UnidentifiedImageError"):
        load(f"folder:{tmp_path}", "all").images[:]


def chunk(kind, content, checksum=None):
    whole = zlib.crc32(kind + content) if checksum is None else checksum
    return struct.pack(">I4s", len(content), kind) + content + struct.pack(">I", whole)


def test_damage_in_metadata_hides_no_pixels(tmp_path):
    expected = decode(noise(tmp_path / "a.png"), 30, 3)
    content = (tmp_path / "a.png").read_bytes()
    bad = [
        chunk(b"tEXt", b"Comment\0hello", checksum=1),
        chunk(b"zTXt", b"Comment\0\0no zlib stream"),
        chunk(b"eXIf", b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\xff\xff\xff\xff\xff\0\0\0"),
        chunk(b"iCCP", b"profile"),
        chunk(b"pHYs", b""),
    ]
    for extra in bad:
        (tmp_path / "a.png").write_bytes(content[:33] + extra + content[33:])
        np.testing.assert_array_equal(decode(tmp_path / "a.png", 30, 3), expected)
    expected = decode(noise(tmp_path / "b.jpg", mode="CMYK"), 30, 3)
    content = (tmp_path / "b.jpg").read_bytes()
    for marker, payload in (
        (0xE1, b"Exif\0\0MM\0*\xff\xff\xff\xff"),
        (0xE1, b"Exif\0\0not TIFF"),
        (0xE2, b"MPF\0MM\0*\0\0\0\x08\0\x09"),
        (0xED, b"Photoshop 3.0\0008BIM\x03"),
        (0xE2, b"ICC_PROFILE\0\x05"),
        (0xFE, b"\xff"),
    ):
        extra = struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload
        (tmp_path / "b.jpg").write_bytes(content[:2] + extra + content[2:])
        np.testing.assert_array_equal(decode(tmp_path / "b.jpg", 30, 3), expected)


def test_pixels_without_a_range_are_refused(tmp_path):
    Image.fromarray(np.full((8, 8), 0.5, np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(InputError, match="a.tif.*floats of no known range"):
        decode(tmp_path / "a.tif", 8, 3)
    Image.fromarray(np.full((8, 8), 200, np.int32)).save(tmp_path / "b.tif")
    with pytest.raises(InputError, match="b.tif.*32 bits and no known range"):
        decode(tmp_path / "b.tif", 8, 3)


def test_the_orientation_is_applied(tmp_path):
    array = np.zeros((8, 8, 3), np.uint8)
    array[0, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # half a turn
    Image.fromarray(array).save(tmp_path / "a.png", exif=exif)
    assert decode(tmp_path / "a.png", 8, 3)[7, 7, 0] == 255


def test_the_centre_square_is_kept(tmp_path):
    array = np.zeros((10, 30, 3), np.uint8)
    array[:, 10:20] = 150
    Image.fromarray(array).save(tmp_path / "wide.png")
    Image.fromarray(array.transpose(1, 0, 2)).save(tmp_path / "tall.png")
    Image.fromarray(array[:1, :1] + 150).save(tmp_path / "dot.png")
    image_set = load(f"folder:{tmp_path}", "train", image_size=5)
    # As resized whole and then cropped: the edge of the square sees a little beyond it.
    assert np.all(image_set.images[:][:, 1:-1, 1:-1] == 150)
    assert np.all(image_set.images[:] >= 120)


def test_large_jpegs_are_as_resized_from_the_whole(tmp_path):
    x, y = np.meshgrid(np.linspace(0, 255, 900), np.linspace(0, 255, 700))
    array = np.stack([x, y, 255 - x], -1).astype(np.uint8)
    Image.fromarray(array).save(tmp_path / "a.jpg", quality=95)
    whole = Image.fromarray(array[:, 100:800]).resize((16, 16), Image.Resampling.BILINEAR)
    difference = decode(tmp_path / "a.jpg", 16, 3).astype(int) - np.asarray(whole)
    assert np.abs(difference).max() <= 4


def test_indexing(tmp_path):
    for value in range(9):
        save(tmp_path / f"{value}.png", value * 20, mode="L")
    images = load(f"folder:{tmp_path}", "train", image_size=4, channels=1).images
    assert images.shape == (9, 4, 4, 1) and len(images) == 9 and images.dtype == np.uint8
    values = np.arange(9) * 20
    np.testing.assert_array_equal(images[2:5][:, 0, 0, 0], values[2:5])
    np.testing.assert_array_equal(images[np.array([8, 0, 8])][:, 0, 0, 0], values[[8, 0, 8]])
    np.testing.assert_array_equal(images[3], np.full((4, 4, 1), 60))
    np.testing.assert_array_equal(images[-1], images[8])
    assert images[5:5].shape == (0, 4, 4, 1)
    assert np.asarray(images).shape == (9, 4, 4, 1)


def test_sub_folders_are_classes_with_every_fifth_image_for_the_test(tmp_path):
    for name in ("dog", "cat", "eel"):
        for index in range(11):
            save(tmp_path / name / f"{index:02}.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "readme.txt").write_text("not an image")
    train = load(f"folder:{tmp_path}", "train")
    test = load(f"folder:{tmp_path}", "test")
    assert train.class_names == ("cat", "dog", "eel")
    assert test.images.files == [
        f"{name}/{i}.png" for name in train.class_names for i in ("04", "09")
    ]
    np.testing.assert_array_equal(test.labels, [0, 0, 1, 1, 2, 2])
    assert len(train) == 27
    assert not set(train.images.files) & set(test.images.files)
    assert len(load(f"folder:{tmp_path}", "all")) == 33
    some = load(f"folder:{tmp_path}[eel,cat]", "train")
    assert some.name == f"folder:{tmp_path}[eel,cat]"
    assert some.class_names == ("eel", "cat")
    np.testing.assert_array_equal(some.labels, [1] * 9 + [0] * 9)
    with pytest.raises(InputError, match="--ood: expected labels in 0-2 or class names .*'cat'"):
        load(f"folder:{tmp_path}[cow]", "train", flag="--ood")


def test_given_splits_are_used(tmp_path):
    for split, count in (("train", 3), ("test", 2)):
        for name in ("a", "b"):
            for index in range(count):
                save(tmp_path / split / name / "deep" / f"{index}.png")
    train, test = (load(f"folder:{tmp_path}", split) for split in ("train", "test"))
    assert (len(train), len(test), len(load(f"folder:{tmp_path}", "all"))) == (6, 4, 10)
    np.testing.assert_array_equal(test.labels, [0, 0, 1, 1])
    assert load(f"folder:{tmp_path / 'train'}", "all").class_names == ("a", "b")
    save(tmp_path / "test" / "c" / "0.png")
    with pytest.raises(InputError, match="same classes in train and test.*'c'"):
        load(f"folder:{tmp_path}", "test")


@pytest.mark.parametrize("name", ["test", "Val", "valid", "validation", "Testing"])
def test_the_usual_names_of_splits(tmp_path, name, capsys):
    for split, count in (("Training" if name == "Testing" else "train", 2), (name, 3)):
        for label in ("cat", "dog"):
            for index in range(count):
                save(tmp_path / split / label / f"{index}.png")
    train, test, every = (load(f"folder:{tmp_path}", split) for split in ("train", "test", "all"))
    assert train.class_names == test.class_names == every.class_names == ("cat", "dog")
    assert (len(train), len(test), len(every)) == (4, 6, 10)
    assert train.images.files[0].lower().startswith("train") and test.images.files[0].startswith(
        name
    )
    np.testing.assert_array_equal(every.labels, [0, 0, 1, 1, 0, 0, 0, 1, 1, 1])
    assert ("the test split of" in capsys.readouterr().out) == (not name.lower().startswith("test"))


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (("train", "Train"), "one folder of each split. .*'Train' and 'train'"),
        (("train", "val", "Val"), "one folder of each split. .*'Val' and 'val'"),
        (("train", "test", "extra"), "beside the splits test, train no other .*'extra'"),
    ],
)
def test_folders_that_may_be_splits_or_classes_are_refused(tmp_path, folders, message):
    for folder in folders:
        for label in ("cat", "dog"):
            save(tmp_path / folder / label / "0.png")
    with pytest.raises(InputError, match=f"--eval: expected {message}"):
        load(f"folder:{tmp_path}", "train", flag="--eval")


def test_a_class_may_be_called_train(tmp_path):
    for label in ("train", "bus"):
        for index in range(5):
            save(tmp_path / label / f"{index}.png")
    assert load(f"folder:{tmp_path}", "train").class_names == ("bus", "train")


def test_a_class_is_found_in_either_spelling_of_its_letters(tmp_path):
    for label in ("A\u0308pfel", "b"):
        for index in range(5):
            save(tmp_path / label / f"{index}.png")
    assert load(f"folder:{tmp_path}[b,\u00c4pfel]", "train").class_names == ("b", "A\u0308pfel")


def test_a_validation_split_beside_a_test_split_is_in_neither(tmp_path, capsys):
    for split, count in (("train", 2), ("val", 3), ("test", 1)):
        for label in ("cat", "dog"):
            for index in range(count):
                save(tmp_path / split / label / f"{index}.png")
    save(tmp_path / "stray.png")
    sizes = [len(load(f"folder:{tmp_path}", split)) for split in ("train", "test", "all")]
    assert sizes == [4, 2, 12]
    printed = capsys.readouterr().out
    assert "is its folder test; val is in neither" in printed
    assert "beside the splits" in printed and "'stray.png'" in printed
    # Of images alone, every one is taken.
    assert len(load(f"folder:{tmp_path}", "all", with_labels=False)) == 13


def test_the_only_split_is_divided_as_classes_are(tmp_path):
    for label in ("cat", "dog"):
        for index in range(5):
            save(tmp_path / "train" / label / f"{index}.png")
    train, test = (load(f"folder:{tmp_path}", split) for split in ("train", "test"))
    assert (len(train), len(test), test.class_names) == (8, 2, ("cat", "dog"))


def test_images_beside_the_classes_are_named_and_left_out(tmp_path, capsys):
    for label in ("cat", "dog"):
        for index in range(5):
            save(tmp_path / label / f"{index}.png")
    for index in range(5):
        save(tmp_path / f"stray{index}.png")
    image_set = load(f"folder:{tmp_path}", "all")
    assert image_set.class_names == ("cat", "dog") and len(image_set) == 10
    assert "'stray0.png', 'stray1.png', 'stray2.png' and 2 more" in capsys.readouterr().out
    assert len(load(f"folder:{tmp_path}", "all", with_labels=False)) == 15


def test_images_without_classes_are_all_for_training(tmp_path):
    save(tmp_path / "a.png")
    save(tmp_path / "a2.png")
    save(tmp_path / "a3.png")
    save(tmp_path / "x" / "b.png")
    save(tmp_path / "y" / "z" / "c.png")
    save(tmp_path / ".hidden" / "d.png")
    save(tmp_path / ".e.png")
    image_set = load(f"folder:{tmp_path}", "train")
    assert image_set.images.files == ["a.png", "a2.png", "a3.png", "x/b.png", "y/z/c.png"]
    assert image_set.labels is None and image_set.class_names == ()
    assert len(load(f"folder:{tmp_path}", "all")) == 5
    with pytest.raises(InputError, match="expected a test split"):
        load(f"folder:{tmp_path}", "test")
    with pytest.raises(InputError, match="have no labels"):
        load(f"folder:{tmp_path}[x]", "train")


def test_links_are_followed_once(tmp_path):
    save(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "in" / "self").symlink_to("self")
    (tmp_path / "elsewhere").mkdir()
    save(tmp_path / "elsewhere" / "b.png")
    (tmp_path / "in" / "more").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    image_set = load(f"folder:{tmp_path / 'in'}", "all")
    assert len({os.path.basename(file) for file in image_set.images.files}) == 2
    assert image_set.images[:].shape[0] == len(image_set)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: b"no image at all",
        lambda content: content[: len(content) // 2],
        lambda content: content[:20],
    ],
)
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_broken_image_is_named(tmp_path, damage, suffix):
    save(tmp_path / "good.png")
    broken = noise(tmp_path / f"broken.{suffix}")
    broken.write_bytes(damage(broken.read_bytes()))
    images = load(f"folder:{tmp_path}", "train")
    with pytest.raises(InputError) as caught:
        stored(images, tmp_path / "cache")
    assert str(caught.value).count(str(broken)) == 1
    assert str(caught.value).endswith(
        "; remove it, put a readable one in its place, or leave it out by --skip_unreadable"
    )
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "cache" / "pictures").glob("*/*"))


@pytest.mark.parametrize("count", [2, 5])
def test_all_broken_images_of_the_folder_are_counted_and_the_first_named(tmp_path, count):
    for index in range(40):
        save(tmp_path / "in" / f"{index:02}.png")
    broken = [tmp_path / "in" / f"{index:02}.png" for index in range(3, 40, 8)][:count]
    for path in broken[1:]:
        path.write_bytes(b"no image at all")
    broken[0].unlink()
    broken[0].symlink_to(tmp_path / "gone.png")
    image_set = load(f"folder:{tmp_path / 'in'}", "all")
    # Held-out images are read by themselves; those of the rest are told with theirs.
    part = dataclasses.replace(image_set, images=image_set.images.subset([3, 4, 5]))
    for read in (lambda: image_set.images[:], lambda: stored(part, tmp_path / "cache")):
        with pytest.raises(InputError) as caught:
            read()
        message = str(caught.value)
        assert f"Received: {count} of 40 in '{tmp_path / 'in'}' that are not: " in message
        assert [str(path) in message for path in broken] == [True] * min(count, 3) + [False] * (
            count - 3
        )
        assert (" and 2 more; remove them, put" in message) == (count == 5)
        assert "\n" not in message
    # When asked, they are left out, and named.
    kept = stored(image_set, tmp_path / "cache", skip_unreadable=True)
    assert (
        kept.unreadable == tuple(map(str, broken)) and len(kept) == len(kept.images) == 40 - count
    )
    # What was kept so is no answer for those who did not ask.
    with pytest.raises(InputError, match=f"{count} of 40"):
        stored(image_set, tmp_path / "cache")
    # One image by itself is not worth a look at all.
    with pytest.raises(InputError, match="expected a readable image. Received: .*03.png"):
        image_set.images[3]


def test_a_link_to_nowhere_is_a_broken_image(tmp_path):
    (tmp_path / "a.png").symlink_to(tmp_path / "gone.png")
    images = load(f"folder:{tmp_path}", "train").images
    with pytest.raises(InputError, match="a.png"):
        images[:]


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(InputError, match="--dataset: expected an existing folder"):
        load(f"folder:{tmp_path / 'missing'}", "train")
    (tmp_path / "sub").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match=r"expected a folder with images \(.png"):
        load(f"folder:{tmp_path}", "train")
    with pytest.raises(InputError, match="expected an existing folder"):
        load(f"folder:{tmp_path / 'notes.txt'}", "train")


def test_names_that_are_no_text(tmp_path):
    name = os.fsdecode(b"\xff\n.png")
    save(tmp_path / "a.png").rename(tmp_path / name)
    image_set = load(f"folder:{tmp_path}", "train", image_size=8)
    assert image_set.images[:].shape == (1, 8, 8, 3)
    assert image_set.fingerprint()
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError) as caught:
        image_set.images[:]
    assert str(caught.value).isascii() and "\n" not in str(caught.value)


def test_the_fingerprint_follows_the_files(tmp_path):
    save(tmp_path / "a.png")
    path = save(tmp_path / "b.png")
    before = load(f"folder:{tmp_path}", "train").fingerprint()
    assert before == load(f"folder:{tmp_path}", "train").fingerprint()
    os.utime(path, ns=(1, 1))
    tmp_path.rename(tmp_path.with_name("moved"))
    path = tmp_path.with_name("moved") / "b.png"
    assert load(f"folder:{path.parent}", "train").fingerprint() == before
    save(path, 101)
    changed = load(f"folder:{path.parent}", "train").fingerprint()
    assert changed != before
    path.rename(path.with_name("c.png"))
    assert load(f"folder:{path.parent}", "train").fingerprint() not in (changed, before)


def test_other_content_of_the_same_size_and_time_is_read_again(tmp_path):
    path = tmp_path / "in" / "a.bmp"  # as archives and build systems leave files
    for value in (10, 200):
        save(path, value)
        os.utime(path, ns=(0, 0))
        kept = stored(load(f"folder:{path.parent}", "train"), tmp_path / "cache")
        assert kept.images[0, 0, 0, 0] == value


@pytest.mark.parametrize("is_kept", [True, False])
def test_labels_stay_with_their_images_where_some_are_unreadable(is_kept, tmp_path, capsys):
    for label in ("cat", "dog"):
        for index in range(4):
            save(
                tmp_path / "in" / label / f"{index}.png",
                10 * index + (100 if label == "dog" else 0),
            )
    (tmp_path / "in" / "cat" / "3.png").write_bytes(b"")
    found = load(f"folder:{tmp_path / 'in'}", "all")
    if is_kept:
        kept = stored(found, tmp_path / "cache", skip_unreadable=True)
    else:
        kept = without_unreadable(found)
    np.testing.assert_array_equal(kept.labels, [0] * 3 + [1] * 4)
    np.testing.assert_array_equal(kept.images[:][:, 0, 0, 0] // 100, kept.labels)
    assert kept.unreadable == (str(tmp_path / "in" / "cat" / "3.png"),)
    assert "1 of 8 images of folder:" in capsys.readouterr().out
