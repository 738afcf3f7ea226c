"""Data sets of tensorflow-datasets, with its own stand-in data."""

import numpy as np
import pytest

from keras_mosaickd.data import load
from keras_mosaickd.data.specs import SPECS

tfds = pytest.importorskip("tensorflow_datasets")
pytestmark = pytest.mark.filterwarnings("default")


@pytest.mark.parametrize(
    ("name", "classes"), [("cifar10", 5), ("cifar100", 50), ("svhn_cropped", 5)]
)
def test_pictures_and_labels(name, classes):
    with tfds.testing.mock_data(num_examples=30):
        pictures = load(name, "test")
        small = load(f"{name}[0-{classes - 1}]", "train", image_size=16, channels=1)
        both = load(name, "all")
    assert pictures.images.shape == (30, 32, 32, 3)
    assert pictures.images.dtype == np.uint8
    assert pictures.labels.shape == (30,)
    assert pictures.labels.max() < len(pictures.class_names)
    assert pictures.flip == (name != "svhn_cropped")
    assert small.images.shape[1:] == (16, 16, 1)
    assert small.labels.max() < classes
    assert len(both) == 60


@pytest.mark.parametrize("name", ["fashion_mnist", "cifar10", "cifar100", "svhn_cropped"])
def test_the_table_agrees_with_the_source(name):
    spec = SPECS[name]
    info = tfds.builder(spec.tfds_name).info
    assert info.features["image"].shape == (spec.image_size, spec.image_size, spec.channels)
    assert info.features["label"].num_classes == len(spec.class_names)


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
