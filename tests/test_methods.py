"""Every method and both tasks through `bin/train`, at toy size, on this process's backend."""

import json

import keras
import numpy as np
import pytest
from PIL import Image

from keras_mosaickd import callbacks
from keras_mosaickd.cli import evaluate, runner, sample, train
from keras_mosaickd.config import METHODS, OUT_OF_DOMAIN

TINY = {
    "image_size": 16,
    "teacher": "wrn10_1",
    "student": "wrn10_1",
    "teacher_epochs": 1,
    "teacher_batch_size": 8,
    "batch_size": 4,
    "student_steps": 2,
    "student_updates": 4,
    "evaluations": 2,
    "export": "keras",
}
DIGITS = {
    "dataset": "digits[0-2]",
    "ood": "digits[5-9]",
    "ood_size": 200,
    # Enough for a teacher that sees more than one class in other digits.
    "teacher_epochs": 5,
    "teacher_batch_size": 64,
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """One cache for the module: its teachers are trained once."""
    return tmp_path_factory.mktemp("cache")


def command(module, name, **settings):
    """Runs a command in this process; returns its exit status."""
    return runner.run(module.main, name, [f"--{key}={value}" for key, value in settings.items()])


@pytest.mark.parametrize("method", [method for method in METHODS if method != "mosaickd"])
def test_each_method_leaves_the_same_kind_of_run(method, cache, tmp_path):
    settings = {**TINY, **DIGITS, "method": method, "run_dir": tmp_path / method}
    assert command(train, "train", **settings, cache_dir=cache) == 0
    metrics = json.loads((tmp_path / method / "metrics.json").read_text())
    assert metrics["method"] == method
    assert metrics["student_updates"] == 4
    assert metrics["ood"] == ("digits[5-9]" if method in OUT_OF_DOMAIN else None)
    assert 0 <= metrics["student_agreement"] <= 1
    student = keras.models.load_model(tmp_path / method / "student.keras")
    assert student.output_shape == (None, 3)
    assert student.count_params() == metrics["student_parameters"]
    # Only a generator has images to show.
    assert (tmp_path / method / "samples.png").is_file() == (method == "data_free")
    (*_, last) = callbacks.read_history(tmp_path / method / "history.csv")
    # Of its quality, what needs no out-of-domain images.
    expected = {"synthetic_class_entropy", "synthetic_class_entropy_share", "synthetic_confidence"}
    found = {name for name in last if name.startswith("synthetic_")}
    assert found == (expected if method == "data_free" else set())


def test_data_free_reads_no_pool(cache, tmp_path, capsys):
    settings = {**TINY, **DIGITS, "method": "data_free", "ood": "folder:/none", "ood_size": 0}
    settings |= {"run_dir": tmp_path / "run", "cache_dir": cache}
    assert command(train, "train", **settings, dry_run=True) == 0
    assert "out-of-domain" not in capsys.readouterr().out


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """A segmentation set of two classes (dark and bright halves, a void border) and a pool."""
    folder = tmp_path_factory.mktemp("scenes")
    generator = np.random.default_rng(0)
    for split, count in (("train", 24), ("test", 8)):
        for kind in ("images", "labels"):
            (folder / "domain" / split / kind).mkdir(parents=True)
        for number in range(count):
            label = np.zeros((16, 16), np.uint8)
            label[:, : generator.integers(4, 12)] = 1
            image = np.repeat(60 + 120 * label[..., None], 3, axis=2)
            label[0] = 255
            Image.fromarray(image).save(folder / "domain" / split / "images" / f"{number}.png")
            Image.fromarray(label).save(folder / "domain" / split / "labels" / f"{number}.png")
    (folder / "domain" / "classes.txt").write_text("dark\nbright\n")
    (folder / "pool").mkdir()
    for number in range(16):
        noise = generator.integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(noise).save(folder / "pool" / f"{number}.png")
    return {
        "task": "segmentation",
        "dataset": f"segmentation:{folder / 'domain'}",
        "ood": f"folder:{folder / 'pool'}",
    }


@pytest.mark.parametrize("method", METHODS)
def test_segmentation(method, scenes, cache, tmp_path, capsys):
    run = tmp_path / "run"
    settings = {**TINY, **scenes, "method": method, "run_dir": run, "cache_dir": cache}
    settings["export"] = "keras"  # as SavedModel: tests/test_export.py
    if method == "balanced":
        assert command(train, "train", **settings) == 2
        assert "--method=balanced" in capsys.readouterr().err
        return
    assert command(train, "train", **settings) == 0
    metrics = json.loads((run / "metrics.json").read_text())
    for name in ("teacher_mean_iou", "student_mean_iou", "student_accuracy", "student_agreement"):
        assert 0 <= metrics[name] <= 1
    student = keras.models.load_model(run / "student.keras")
    assert student.output_shape == (None, 16, 16, 2)
    if method != "mosaickd":
        return
    capsys.readouterr()
    assert command(evaluate, "evaluate", run_dir=run) == 0
    printed = capsys.readouterr().out
    assert f"{metrics['student_mean_iou']:.6g}" in printed
    assert command(sample, "sample", run_dir=run, count=4) == 0
    with Image.open(run / "samples.png") as image:
        # Each image of 16 x 16, enlarged, with its label map beside it.
        assert image.size == (2 * image.size[1] - 1, image.size[1])


def test_the_task_is_that_of_the_data(scenes, cache, tmp_path, capsys):
    settings = {**TINY, **scenes, "task": "classification", "run_dir": tmp_path / "run"}
    assert command(train, "train", **settings, cache_dir=cache) == 2
    assert "--task=classification must be the task of --dataset" in capsys.readouterr().err
