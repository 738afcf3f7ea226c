"""Figures from Python: keras_mosaickd/report/plots.py."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

import keras_mosaickd as km
from keras_mosaickd.data.image_grid import grid
from keras_mosaickd.errors import InputError
from tests import game

LOGS = {
    "loss": [3.0, 2.0, 1.0],
    "val_agreement": [0.2, 0.5, 0.75],
    "discriminator_loss": [0.7, 0.6, 0.65],
    "val_loss": [2.0, 1.5, 1.0],
}


def titles(figure):
    return [axis.get_ylabel() for axis in figure.axes]


def drawn(figure):
    return {
        line.get_label(): [float(y) for y in line.get_ydata()]
        for axis in figure.axes
        for line in axis.get_lines()
    }


def test_a_history_has_a_panel_for_each_kind_of_log():
    figure = km.plot_history(SimpleNamespace(history=LOGS))
    assert isinstance(figure, Figure)
    assert titles(figure) == ["share", "loss of the student", "losses of patches"]
    assert drawn(figure) == LOGS
    only = km.plot_history({"val_accuracy": [0.5]})
    assert titles(only) == ["share"] and drawn(only) == {"val_accuracy": [0.5]}


def test_runs_are_drawn_over_each_other(tmp_path):
    for name, values in (("kd", ["0.5", ""]), ("mosaickd", ["0.6", "0.9"])):
        rows = [f"{epoch},{value}" for epoch, value in enumerate(values)]
        (tmp_path / name).mkdir()
        (tmp_path / name / "history.csv").write_text("\n".join(["epoch,val_agreement", *rows, ""]))
    lines = drawn(km.plot_history(tmp_path / "kd", str(tmp_path / "mosaickd")))
    assert lines["val_agreement, mosaickd"] == [0.6, 0.9]
    assert lines["val_agreement, kd"][0] == 0.5 and np.isnan(lines["val_agreement, kd"][1])
    assert set(drawn(km.plot_history(LOGS, LOGS, labels=["a", "b"]))) == {
        f"{name}, {label}" for name in LOGS for label in "ab"
    }


def test_samples_of_a_game_are_sorted_and_repeatable():
    model = game.game(compiled=False)
    first, again, other = (km.plot_samples(model, count=9, seed=seed) for seed in (0, 0, 1))
    images = [figure.axes[0].get_images()[0].get_array() for figure in (first, again, other)]
    assert np.array_equal(images[0], images[1]) and not np.array_equal(images[0], images[2])


def test_images_are_drawn_as_they_are_and_shown_by_a_notebook():
    images = game.images(8)
    figure = km.plot_samples({"out of domain": images, "again": images[:4]}, columns=4)
    assert [axis.get_title() for axis in figure.axes] == ["out of domain", "again"]
    for axis, shown in zip(figure.axes, (images, images[:4]), strict=True):
        assert np.array_equal(axis.get_images()[0].get_array(), grid(shown, 4)[..., 0])
    png = Image.open(io.BytesIO(figure._repr_png_()))
    assert png.size == (1200, 648)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: km.plot_history({"seconds": [1.0]}), "Received: none of them"),
        (lambda: km.plot_history(), "Received: none of them"),
        (lambda: km.plot_history(3), "Received: int"),
        (lambda: km.plot_history(LOGS, labels=["a", "b"]), "expected 1 labels. Received: 2"),
        (lambda: km.plot_samples(np.zeros((0, 8, 8, 1))), "n at least 1"),
        (lambda: km.plot_samples(np.zeros((2, 8, 8))), "c 1 or 3"),
        (lambda: km.plot_samples(3), "plot_samples: "),
        (lambda: km.plot_samples({}), "expected images"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(call, message):
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_matplotlib_is_an_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for plot in (km.plot_history, km.plot_samples):
        with pytest.raises(InputError, match="which the extra report installs"):
            plot({})
