"""Names of data sets and choice of classes."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_mosaickd.data.sources.classes import class_indices
from keras_mosaickd.data.sources.request import SPECS, parse
from keras_mosaickd.errors import InputError


@pytest.mark.parametrize(
    ("text", "canonical", "indices"),
    [
        ("digits", "digits", None),
        (" digits[0-4] ", "digits[0-4]", (0, 1, 2, 3, 4)),
        ("digits[4,3]", "digits[4,3]", (4, 3)),
        ("digits[ 1 - 2 , 9 ]", "digits[1,2,9]", (1, 2, 9)),
        ("fashion_mnist[0,2,3,4,6]", "fashion_mnist[0,2-4,6]", (0, 2, 3, 4, 6)),
        ("fashion_mnist[Sandal,Bag]", "fashion_mnist[5,8]", (5, 8)),
        ("fashion_mnist[T-shirt/top, ankle boot, 1]", "fashion_mnist[0,9,1]", (0, 9, 1)),
        ("cifar100[worm,apple]", "cifar100[99,0]", (99, 0)),
        ("svhn", "svhn", None),
        ("svhn_cropped[3-5]", "svhn[3-5]", (3, 4, 5)),
        ("imagenet32[0-99]", "imagenet32[0-99]", tuple(range(100))),
        ("places365[364,1]", "places365[364,1]", (364, 1)),
        ("segmentation:/some/path", "segmentation:/some/path", None),
    ],
)
def test_names_and_classes(text, canonical, indices):
    request = parse(text)
    assert request.class_indices() == indices
    assert request.canonical() == canonical
    assert parse(canonical).class_indices() == indices


@pytest.mark.parametrize(
    ("text", "received"),
    [
        ("mnist", "one of digits, fashion_mnist, cifar10, cifar100, svhn, cub200, "),
        ("mnist", "places365, nyuv2, folder:PATH, segmentation:PATH. Received: 'mnist'"),
        ("", "one of digits"),
        ("folder:", "with a path"),
        ("folder", "with a path"),
        ("segmentation", "segmentation:PATH with a path"),
        ("digits[0-10]", "classes out of '0', '1'"),
        ("digits[4-2]", "not '4-2'"),
        ("digits[0-99999999999999999999]", "not '0-9999"),
        ("digits[-1]", "not '-1'"),
        ("digits[]", "not ''"),
        ("digits[1,]", "not ''"),
        ("fashion_mnist[10]", "labels in 0-9 or class names out of 'T-shirt/top'"),
        ("fashion_mnist[Shoe]", "not 'Shoe'"),
        ("cifar100[100]", "(100 in all)"),
        ("digits[1,0-2]", "not '1' twice"),
    ],
)
def test_what_does_not_exist_is_refused_in_one_line(text, received):
    with pytest.raises(InputError) as caught:
        parse(text, flag="--ood")
    message = str(caught.value)
    assert message.startswith("--ood: expected ")
    assert received in message
    assert "Received: " in message
    assert "\n" not in message


def test_class_names_may_hold_commas():
    names = ["tench, Tinca tinca", "goldfish", "tench", "Tinca tinca, goldfish"]
    assert class_indices("tench, Tinca tinca", names, "x") == (0,)
    assert class_indices("tench,Tinca tinca,goldfish", names, "x") == (0, 1)
    assert class_indices("goldfish, tench", names, "x") == (1, 2)


def test_numbers_are_names_where_all_names_are_numbers():
    names = ["1", "10", "2", "3"]
    assert class_indices("1-3", names, "x") == (0, 2, 3)
    assert class_indices("10", names, "x") == (1,)
    with pytest.raises(InputError, match="not '0'"):
        class_indices("0", names, "x")
    with pytest.raises(InputError, match="not '3-10'"):
        class_indices("3-10", names, "x")


def test_images_without_labels_have_no_classes():
    with pytest.raises(InputError, match="have no labels"):
        class_indices("0", (), "x")


def test_a_folder_name_may_end_in_brackets(tmp_path):
    (tmp_path / "a[0]").mkdir()
    assert parse(f"folder:{tmp_path}/a[0]").classes is None
    request = parse(f"folder:{tmp_path}/a[0][1]")
    assert (request.path, request.classes) == (f"{tmp_path}/a[0]", "1")
    assert parse(f"folder:{tmp_path}/b[0]").classes == "0"


@given(st.lists(st.integers(0, 99), min_size=1, unique=True))
def test_the_canonical_name_reads_back_as_the_same_classes(indices):
    request = parse(f"cifar100[{','.join(map(str, indices))}]")
    assert request.class_indices() == tuple(indices)
    assert parse(request.canonical()).class_indices() == tuple(indices)


def test_the_table_is_whole():
    assert {name: len(spec.class_names) for name, spec in SPECS.items()} == {
        "digits": 10,
        "fashion_mnist": 10,
        "cifar10": 10,
        "cifar100": 100,
        "svhn": 10,
        "cub200": 200,
        "stanford_dogs": 120,
        "imagenet32": 1000,
        "imagenet64": 1000,
        "imagenet2012": 1000,
        "places365": 365,
        "nyuv2": 13,
        "folder": 0,
        "segmentation": 0,
    }
    for name, spec in SPECS.items():
        assert spec.name == name
        assert len(set(spec.class_names)) == len(spec.class_names)
        assert spec.licence and spec.source and spec.title


def test_the_table_is_read_without_keras():
    code = "import sys; from keras_mosaickd.data import parse; parse('digits'); "
    code += "assert not {'keras', 'tensorflow'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_a_folder_without_its_kind_is_recognised(tmp_path):
    with pytest.raises(InputError) as caught:
        parse(str(tmp_path), "--ood")
    assert str(caught.value).endswith(f"; did you mean folder:{tmp_path}?")
    with pytest.raises(InputError) as caught:
        parse(f"{tmp_path}/none", "--ood")
    assert "did you mean" not in str(caught.value)
