"""Transfer sets of synthetic images: keras_mosaickd/export/transfer_set.py, bin/sample."""

import json
import os
import tracemalloc

import keras
import numpy as np
import pytest
from PIL import Image

from keras_mosaickd import MosaicKD, data
from keras_mosaickd.callbacks import checkpoint as checkpoints
from keras_mosaickd.cli import runner, sample
from keras_mosaickd.config import ExperimentConfig
from keras_mosaickd.export import transfer_set
from keras_mosaickd.methods import KnowledgeDistillation
from keras_mosaickd.runs import inputs, teacher
from tests import game

NAMES = ["zebra", "T-shirt/top", "a cat"]


def made(path, model, **metrics):
    """A run's directory with a checkpoint of the model and, where told, metrics."""
    path.mkdir()
    checkpoints.save_checkpoint(model, path / "checkpoints" / "last.keras")
    if metrics:
        (path / "metrics.json").write_text(json.dumps(metrics))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose teacher sees all three classes."""
    model = game.game(compiled=False)
    head = model.teacher.layers[-1]
    latents = np.random.default_rng(0).standard_normal((256, game.LATENT), "float32")
    logits = keras.ops.convert_to_numpy(model.teacher(model.generator(latents)))
    kernel, bias = head.get_weights()
    head.set_weights([kernel * 30, 30 * (bias - np.median(logits, axis=0))])
    return made(tmp_path_factory.mktemp("runs") / "run", model, class_names=NAMES)


def command(*arguments):
    return runner.run(sample.main, "sample", list(map(str, arguments)))


def soft_labels(directory):
    with np.load(directory / "soft_labels.npz", allow_pickle=False) as file:
        return dict(file)


def test_the_teacher_says_of_the_files_what_the_soft_labels_say(run, tmp_path):
    out = transfer_set.write(run, 200, tmp_path / "new" / "set", seed=1)
    found = soft_labels(out)
    assert found["class_names"].tolist() == NAMES and found["temperature"] == 1
    assert found["probabilities"].dtype == np.float32
    assert found["probabilities"].shape == (200, 3) and len(set(found["files"])) == 200
    images = []
    for name in found["files"]:
        with Image.open(out / str(name)) as image:
            images.append(np.asarray(image, np.float32)[..., None] / 255)
    teacher = keras.saving.load_model(run / "checkpoints" / "last.keras", compile=False).teacher
    expected = keras.ops.softmax(teacher(np.stack(images)))
    np.testing.assert_allclose(
        found["probabilities"], keras.ops.convert_to_numpy(expected), atol=1e-5
    )
    folders = ["0-zebra", "1-T-shirt_top", "2-a_cat"]
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == folders
    assert [str(name).split("/")[0] for name in found["files"]] == [
        folders[index] for index in found["probabilities"].argmax(axis=1)
    ]


def test_the_set_is_a_labelled_folder_in_the_teachers_order(run, tmp_path):
    out = transfer_set.write(run, 150, tmp_path / "set")
    found = soft_labels(out)
    predicted = found["probabilities"].argmax(axis=1)
    assert set(predicted) == {0, 1, 2}
    loaded = data.load(f"folder:{out}", "all", image_size=8, channels=1)
    assert len(loaded) == 150
    assert np.bincount(loaded.labels).tolist() == np.bincount(predicted).tolist()
    in_order = np.argsort(predicted, kind="stable")
    first = found["files"][in_order[0]]
    with Image.open(out / str(first)) as image:
        np.testing.assert_array_equal(loaded.images[0][..., 0], np.asarray(image))
    parts = [data.load(f"folder:{out}", part, image_size=8) for part in ("train", "test")]
    assert [len(part.class_names) for part in parts] == [3, 3]


def test_equal_seeds_are_equal_sets_and_a_smaller_one_begins_a_larger_one(run, tmp_path):
    for name, count, seed in (("a", 140, 3), ("b", 140, 3), ("small", 100, 3), ("other", 140, 4)):
        settings = [f"--count={count}", f"--seed={seed}", f"--out={tmp_path / name}"]
        assert command(f"--run_dir={run}", *settings) == 0

    def content(name):
        root = tmp_path / name
        return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}

    assert content("a") == content("b")
    assert content("a") != content("other")
    small, large = soft_labels(tmp_path / "small"), soft_labels(tmp_path / "a")
    np.testing.assert_allclose(small["probabilities"], large["probabilities"][:100], atol=1e-6)


def test_memory_does_not_grow_with_the_set(run, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer_set, "_BATCH", 16)
    peaks = []
    for count in (64, 64, 512):
        tracemalloc.start()
        transfer_set.write(run, count, tmp_path / f"{len(peaks)}")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # The first call loads modules. 448 more images alone are 115 kB as the network makes them.
    assert peaks[2] - peaks[1] < 448 * game.SHAPE[0] * game.SHAPE[1] * 4


@pytest.mark.parametrize(
    ("names", "folders"),
    [
        (["0", "1", "2"], ["0", "1", "2"]),
        (["2", "10"], ["0-2", "1-10"]),
        (["b", "a"], ["0-b", "1-a"]),
        (["a/b", "a:b"], ["0-a_b", "1-a_b"]),
        (["A", "a"], ["0-A", "1-a"]),
        (["test", "train"], ["0-test", "1-train"]),
        (["bus", "Testing"], ["0-bus", "1-Testing"]),
        (["", ".hidden", "../up"], ["0-", "1-_hidden", "2-_up"]),
        (["Zürich", "x" * 99], ["Zürich", "x" * 60]),
        ([str(index) for index in range(11)], [f"{index:02}-{index}" for index in range(11)]),
    ],
)
def test_folder_names_are_safe_and_sort_as_the_classes(names, folders):
    assert transfer_set.folder_names(names) == folders == sorted(folders)


def test_numbers_stand_for_the_classes_of_a_run_that_names_none(tmp_path):
    run = made(tmp_path / "run", game.game(compiled=False))
    found = soft_labels(transfer_set.write(run, 3, tmp_path / "set"))
    assert found["class_names"].tolist() == ["0", "1", "2"]
    assert found["files"][0].endswith("/0.png")


def test_classes_that_the_teacher_never_sees_keep_their_numbers(run, tmp_path):
    out = transfer_set.write(run, 60, tmp_path / "set")
    loaded = data.load(f"folder:{out}", "all", image_size=game.SHAPE[0], channels=game.SHAPE[2])
    assert loaded.class_names == tuple(NAMES)
    folders = transfer_set.folder_names(NAMES)
    for image in (out / folders[1]).iterdir():
        image.unlink()
    rest = data.load(f"folder:{out}", "all", image_size=game.SHAPE[0], channels=game.SHAPE[2])
    assert rest.class_names == tuple(NAMES)
    np.testing.assert_array_equal(rest.labels, loaded.labels[np.asarray(loaded.labels) != 1])
    # A list of classes that is about something else says nothing.
    (out / "classes.txt").write_text("one\ntwo\n")
    other = data.load(f"folder:{out}", "all", image_size=game.SHAPE[0], channels=game.SHAPE[2])
    assert other.class_names == (folders[0], folders[2])


def test_a_class_without_images_makes_another_teacher(run, tmp_path):
    out = transfer_set.write(run, 60, tmp_path / "set")
    for image in (out / transfer_set.folder_names(NAMES)[2]).iterdir():
        image.unlink()
    config = ExperimentConfig(
        dataset=f"folder:{out}", ood="digits", image_size=8, teacher_batch_size=1
    )
    found = []
    for _ in range(2):
        loaded = inputs.load(config, with_pool=False)
        found.append((teacher._description(loaded), loaded.hashes(), loaded.units))
        (out / "classes.txt").unlink(missing_ok=True)
    (three, three_hashes, _), (two, two_hashes, _) = found
    assert [units for _, _, units in found] == [3, 2]
    assert three != two and three_hashes != two_hashes


def test_predictions_per_pixel_have_label_maps_beside(tmp_path):
    inputs = keras.Input((8, 8, 3))
    teacher = keras.Model(inputs, keras.layers.Conv2D(2, 3, padding="same")(inputs))
    student = keras.models.clone_model(teacher)
    model = MosaicKD(
        teacher, student, game.generator((8, 8, 3)), None, latent_dim=game.LATENT, seed=0
    )
    run = made(tmp_path / "run", model, class_names=["sky", "sea"])
    out = transfer_set.write(run, 12, tmp_path / "set")
    found = soft_labels(out)
    assert found["probabilities"].shape == (12, 8, 8, 2)
    assert found["files"].tolist() == [f"train/images/{index:02}.png" for index in range(12)]
    loaded = data.load(f"segmentation:{out}", "train", image_size=8)
    assert loaded.class_names == ("sky", "sea")
    np.testing.assert_array_equal(loaded.labels, found["probabilities"].argmax(axis=-1))


def test_a_set_appears_whole_or_not_at_all(run, tmp_path, monkeypatch):
    encode, calls = transfer_set.image_grid.encode_png, []

    def full_disk(image):
        calls.append(image)
        if len(calls) == 20:
            raise OSError(28, "No space left on device")
        return encode(image)

    monkeypatch.setattr(transfer_set.image_grid, "encode_png", full_disk)
    with pytest.raises(OSError, match="No space"):
        transfer_set.write(run, 30, tmp_path / "set")
    assert os.listdir(tmp_path) == []
    (tmp_path / "set").mkdir()
    assert transfer_set.write(run, 30, tmp_path / "set") == tmp_path / "set"
    assert len(list((tmp_path / "set").glob("*/*.png"))) == 30


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out={full}"], "--out: expected a new or empty directory. Received: "),
        (["--out={file}"], "--out: expected a directory or a .png file. Received: "),
        (["--out={file}/set"], "--out: expected a directory that can be made. Received: "),
        (["--out=grid.png", "--count=4097"], "--count: expected at most 4096 for a grid"),
        (["--count=1000001"], "expected a whole number from 1 to 1000000"),
        (["--run_dir={full}", "--out={new}"], "--run_dir must hold a run with a checkpoint"),
    ],
)
def test_what_cannot_be_done_is_one_line(arguments, message, run, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    places = {name: tmp_path / name for name in ("full", "new")} | {
        "file": tmp_path / "full" / "file"
    }
    given = [argument.format(**places) for argument in arguments]
    assert command(f"--run_dir={run}", *given) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_a_run_without_a_generator_is_refused(tmp_path, capsys):
    model = KnowledgeDistillation(game.classifier(1), game.classifier(2))
    run = made(tmp_path / "run", model)
    assert command(f"--run_dir={run}", f"--out={tmp_path / 'set'}") == 2
    assert "run with a generator" in capsys.readouterr().err
