"""Cache entries: written whole, checked when read, shared between processes."""

import json
import multiprocessing
import os
import time
import warnings

import numpy as np
import pytest
from PIL import Image

from keras_mosaickd.data import load, stored
from keras_mosaickd.data.cache import cached, read_array, write_array
from keras_mosaickd.errors import InputError


def build(directory):
    values = np.arange(10)
    write_array(directory / "values.npy", (10,), np.int64, [values[:4], values[4:]])
    return {"note": "ten", "mean": 4.5}


def forbidden(directory):
    raise AssertionError("the entry was there")


def test_an_entry_is_built_once(tmp_path):
    record, fresh = cached(tmp_path / "a" / "b", "record.json", build)
    assert fresh
    again, fresh = cached(tmp_path / "a" / "b", "record.json", forbidden)
    assert not fresh
    assert again == record
    assert (again["note"], again["mean"]) == ("ten", 4.5)
    array = read_array(tmp_path / "a" / "b" / "values.npy")
    np.testing.assert_array_equal(array, np.arange(10))
    assert isinstance(array, np.memmap) and not array.flags.writeable


@pytest.mark.parametrize("name", ["values.npy", "record.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "empty"])
def test_a_damaged_entry_is_built_again_with_a_warning(tmp_path, name, damage):
    folder = tmp_path / "entry"
    cached(folder, "record.json", build)
    path = folder / name
    content = bytearray(path.read_bytes())
    if damage == "flip":
        # In the record: a digit that still is a digit.
        position = content.index(b"4.5") if name == "record.json" else len(content) - 3
        content[position] ^= 1
        path.write_bytes(content)
    elif damage == "remove":
        path.unlink()
    else:
        path.write_bytes(content[: len(content) // 2 if damage == "cut" else 0])
    with pytest.warns(UserWarning, match="is damaged .* is built again"):
        _, fresh = cached(folder, "record.json", build)
    assert fresh
    assert not cached(folder, "record.json", forbidden)[1]


@pytest.mark.parametrize("record", ["[]", "{}", "null", '{"sha256": "x"}', "\xff"])
def test_a_record_of_another_kind_is_damage(tmp_path, record):
    folder = tmp_path / "entry"
    cached(folder, "record.json", build)
    (folder / "record.json").write_text(record, encoding="latin-1")
    with pytest.warns(UserWarning, match="is damaged"):
        cached(folder, "record.json", build)


def test_a_failed_build_leaves_nothing(tmp_path):
    def fail(directory):
        (directory / "half").write_text("x")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached(tmp_path / "entry", "record.json", fail)
    assert [path.name for path in tmp_path.iterdir()] == [".entry.lock"]


def test_what_killed_processes_left_is_removed_under_the_lock(tmp_path):
    old, new = tmp_path / ".entry.new-old", tmp_path / ".entry.new-young"
    for path in (old, new):
        path.mkdir()
    os.utime(old, (0, 0))
    cached(tmp_path / "entry", "record.json", build)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".entry.lock", "entry"]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cache that can be written. Received: .*file"):
        cached(tmp_path / "file" / "entry", "record.json", build)


def _slowly(folder, results):
    def slow(directory):
        time.sleep(0.3)
        return build(directory)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results.put(cached(folder, "record.json", slow)[1])


def test_of_several_processes_one_builds(tmp_path):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [
        context.Process(target=_slowly, args=(tmp_path / "entry", results)) for _ in range(3)
    ]
    for process in processes:
        process.start()
    built = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    assert sorted(built) == [False, False, True]


def test_a_folder_of_images_is_decoded_once(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (7, 8, 8), dtype=np.uint8)
    (tmp_path / "in").mkdir()
    for index, value in enumerate(values):
        Image.fromarray(value).save(tmp_path / "in" / f"{index}.png")
    image_set = load(f"folder:{tmp_path / 'in'}", "train", image_size=8, channels=1)
    kept = stored(image_set, tmp_path / "cache")
    np.testing.assert_array_equal(kept.images[..., 0], values)
    assert isinstance(kept.images, np.memmap)
    assert (kept.name, kept.labels, kept.split) == (image_set.name, None, "train")
    stored(image_set, tmp_path / "cache")
    entries = list((tmp_path / "cache" / "pictures").glob("[!.]*"))
    assert len(entries) == 1
    assert json.loads((entries[0] / "pictures.json").read_text())["split"] == "train"
    Image.fromarray(values[0]).save(tmp_path / "in" / "8.png")
    image_set = load(f"folder:{tmp_path / 'in'}", "train", image_size=8, channels=1)
    assert len(stored(image_set, tmp_path / "cache")) == 8


def test_images_in_memory_are_returned_as_they_are(tmp_path):
    images = load("digits", "test")
    assert stored(images, tmp_path) is images
    assert not list(tmp_path.iterdir())
