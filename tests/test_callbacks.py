"""Sample grids and history.csv: keras_mosaickd/callbacks/traces.py."""

from __future__ import annotations

import csv
import os
import sys

import keras
import numpy
import pytest
from PIL import Image

from keras_mosaickd import callbacks
from keras_mosaickd.data import image_grid


class Trained(keras.Model):
    """The least that has a generator and a teacher and goes through fit."""

    def __init__(self):
        super().__init__()
        self.generator = keras.Sequential(
            [
                keras.Input((4,)),
                keras.layers.Dense(16),
                keras.layers.BatchNormalization(),
                keras.layers.Activation("sigmoid"),
                keras.layers.Reshape((4, 4, 1)),
            ]
        )
        self.generator.trainable = False  # fit trains the teacher alone
        self.teacher = keras.Sequential(
            [keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(3)]
        )

    def call(self, inputs):
        return self.teacher(inputs)


@pytest.fixture
def model():
    model = Trained()
    model.build((None, 4, 4, 1))
    model.compile("sgd", "mse", jit_compile=False)
    return model


LATENTS = numpy.random.default_rng(0).standard_normal((9, 4)).astype("float32")


def fit(model, *used, epochs=3, initial_epoch=0):
    model.fit(
        numpy.ones((4, 4, 4, 1)),
        numpy.zeros((4, 3)),
        epochs=epochs,
        initial_epoch=initial_epoch,
        verbose=0,
        callbacks=list(used),
    )


def test_images_are_sorted_by_the_teachers_class_and_nothing_moves(model):
    # A linear teacher that sees grey as the border between its classes.
    kernel = numpy.random.default_rng(1).standard_normal((16, 3))
    model.teacher.set_weights([kernel, -0.5 * kernel.sum(axis=0)])
    before = [numpy.array(value) for value in model.generator.get_weights()]
    sheet = callbacks.draw_samples(model.generator, model.teacher, LATENTS, columns=1)
    images = keras.ops.convert_to_numpy(model.generator(LATENTS, training=False))
    classes = keras.ops.convert_to_numpy(model.teacher(images)).argmax(-1)
    assert len(set(classes)) > 1
    order = sorted(range(9), key=lambda index: classes[index])
    numbers = [str(classes[index]) for index in order]
    assert (sheet == image_grid.grid(images[order], columns=1, captions=numbers)).all()
    # Names where Pillow's own font can write them.
    sheet = callbacks.draw_samples(
        model.generator, model.teacher, LATENTS, class_names=["coat", "包", "a\nb"]
    )
    names = [["coat", "1", "2"][classes[index]] for index in order]
    assert (sheet == image_grid.grid(images[order], captions=names)).all()
    for old, new in zip(before, model.generator.get_weights(), strict=True):
        assert (old == new).all()


def test_a_label_map_stands_beside_each_image_where_every_pixel_has_a_prediction():
    generator = keras.Sequential([keras.Input((4,)), keras.layers.Reshape((2, 2, 1))])
    teacher = keras.Sequential(
        [keras.Input((2, 2, 1)), keras.layers.Conv2D(2, 1, kernel_initializer="ones")]
    )
    grid = callbacks.draw_samples(generator, teacher, LATENTS, columns=1)
    # Enlarged 24 times, a line of one pixel between the rows.
    assert grid.shape == (len(LATENTS) * 49 - 1, 2 * 48, 3)
    # Equal logits are class 0 everywhere: one colour.
    assert len(numpy.unique(grid[:48, 48:].reshape(-1, 3), axis=0)) == 1


def reload(directory):
    from tensorboard.backend.event_processing import event_accumulator

    accumulator = event_accumulator.EventAccumulator(str(directory))
    accumulator.Reload()
    return accumulator


def events(directory):
    return reload(directory).Images("samples")


def test_grid_goes_to_png_and_tensorboard(model, tmp_path):
    png = tmp_path / "samples.png"
    fit(model, callbacks.SampleGrid(tmp_path / "logs", LATENTS, path=png))
    written = events(tmp_path / "logs" / "samples")
    assert [event.step for event in written] == [0, 1, 2]
    assert written[-1].encoded_image_string == png.read_bytes()
    with Image.open(png) as image:
        assert image.size == (written[-1].width, written[-1].height)


def test_every_and_the_last_epoch(model, tmp_path):
    fit(model, callbacks.SampleGrid(tmp_path, LATENTS, every=2), epochs=5)
    assert [event.step for event in events(tmp_path / "samples")] == [1, 3, 4]
    with pytest.raises(ValueError, match="every"):
        callbacks.SampleGrid(tmp_path, LATENTS, every=0)


def test_png_alone(model, tmp_path):
    names = ["coat", "bag", "shoe"]
    grid = callbacks.SampleGrid(None, LATENTS, path=tmp_path / "samples.png", class_names=names)
    fit(model, grid, epochs=1)
    assert os.listdir(tmp_path) == ["samples.png"]
    drawn = callbacks.draw_samples(model.generator, model.teacher, LATENTS, class_names=names)
    with Image.open(tmp_path / "samples.png") as image:
        assert (numpy.asarray(image) == drawn[..., 0]).all()


def test_scalars_have_the_tags_of_keras_and_a_resumed_run_replaces_its_own(model, tmp_path):
    data = (numpy.ones((4, 4, 4, 1)), numpy.zeros((4, 3)))
    for epochs, initial_epoch in ((3, 0), (4, 2)):
        model.fit(
            *data,
            validation_data=data,
            epochs=epochs,
            initial_epoch=initial_epoch,
            verbose=0,
            callbacks=[callbacks.TensorBoardScalars(tmp_path)],
        )
    for part, key in (("train", "loss"), ("validation", "val_loss")):
        written = reload(tmp_path / part).Scalars("epoch_loss")
        assert [event.step for event in written] == [0, 1, 2, 3]
        last = [event.value for event in written[2:]]
        assert last == pytest.approx(model.history.history[key])


def test_scalars_are_grouped_by_phase(tmp_path):
    scalars = callbacks.TensorBoardScalars(tmp_path)
    names = {
        "loss": "epoch_loss",
        "discriminator_loss": "discriminator/loss",
        "generator_learning_rate": "generator/learning_rate",
        "local_loss": "generator/local_loss",
        "student_loss": "student/loss",
        "synthetic_class_entropy": "synthetic/class_entropy",
        "hint_loss": "student/hint_loss",
        "lambda_local": "generator/lambda_local",
        "r_align": "generator/r_align",
    }
    scalars.on_epoch_end(0, dict.fromkeys(names, 1.0) | {"val_agreement": 0.5})
    scalars.on_train_end()
    assert set(reload(tmp_path / "train").Tags()["scalars"]) == set(names.values())
    assert reload(tmp_path / "validation").Tags()["scalars"] == ["epoch_agreement"]


def test_without_tensorboard_nothing_is_written(model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard.summary.writer.event_file_writer", None)
    png = tmp_path / "samples.png"
    logs = tmp_path / "logs"
    used = callbacks.SampleGrid(logs, LATENTS, path=png), callbacks.TensorBoardScalars(logs)
    fit(model, *used, epochs=1)
    assert os.listdir(tmp_path) == ["samples.png"]


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_history_has_a_row_per_epoch_with_exact_logs(model, tmp_path):
    path = tmp_path / "new" / "history.csv"
    history = callbacks.HistoryCsv(path)
    fit(model, history, keras.callbacks.History())
    written = rows(path)
    assert [row["epoch"] for row in written] == ["0", "1", "2"]
    assert all(float(row["seconds"]) >= 0 for row in written)
    losses = model.history.history["loss"]
    assert [float(row["loss"]) for row in written] == losses
    read = callbacks.read_history(path)
    assert [(row["epoch"], row["loss"]) for row in read] == list(enumerate(losses))
    assert os.listdir(path.parent) == ["history.csv"]


def test_a_resumed_run_replaces_the_epochs_that_it_runs_again(model, tmp_path):
    path = tmp_path / "history.csv"
    fit(model, callbacks.HistoryCsv(path), epochs=4)
    first = rows(path)
    with path.open("a") as file:
        file.write("4,0.1")  # a crash in the middle of a line
    assert len(callbacks.read_history(path)) == 4
    fit(model, callbacks.HistoryCsv(path), epochs=5, initial_epoch=2)
    written = rows(path)
    assert [row["epoch"] for row in written] == ["0", "1", "2", "3", "4"]
    assert written[:2] == first[:2] and written[2] != first[2]
    fit(model, callbacks.HistoryCsv(path), epochs=1)
    assert len(rows(path)) == 1


def test_a_log_that_comes_late_gets_its_column(tmp_path):
    path = tmp_path / "history.csv"
    history = callbacks.HistoryCsv(path)
    history.on_train_begin()
    for epoch, logs in enumerate(
        [{"loss": 1.0}, {"loss": 0.1 + 0.2, "val_accuracy": numpy.float32(0.5)}, {"loss": 2}]
    ):
        history.on_epoch_begin(epoch)
        history.on_epoch_end(epoch, logs)
        assert len(rows(path)) == epoch + 1
    written = rows(path)
    assert [row["val_accuracy"] for row in written] == ["", "0.5", ""]
    assert float(written[1]["loss"]) == 0.1 + 0.2
    read = callbacks.read_history(path)
    assert "val_accuracy" not in read[0] and read[1]["val_accuracy"] == 0.5


def test_a_file_of_something_else_is_not_kept(tmp_path):
    path = tmp_path / "history.csv"
    path.write_text("name,age\nx,1\n")
    assert callbacks.read_history(path) == []
    history = callbacks.HistoryCsv(path)
    history.on_epoch_begin(0)
    history.on_epoch_end(0, {"loss": 1.0})
    assert list(rows(path)[0]) == ["epoch", "seconds", "loss"]


def test_no_history_yet(tmp_path):
    assert callbacks.read_history(tmp_path / "history.csv") == []
