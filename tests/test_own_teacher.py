"""Models of the user's own as teacher or student: files, SavedModels, functions; their input."""

from __future__ import annotations

import math
import sys

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import layers
from keras.ops import convert_to_numpy as numpy

from keras_mosaickd import InputError, KnowledgeDistillation, load_teacher
from keras_mosaickd.config import is_given
from keras_mosaickd.methods.base import StudentTrainer
from keras_mosaickd.optimizers import student_recipe
from keras_mosaickd.teachers import load as given_models
from keras_mosaickd.teachers.foreign import SavedModelLayer, folder_hash, saved_model
from keras_mosaickd.teachers.scaling import (
    contradicting_answers,
    declared,
    normalization,
    too_certain,
)
from tests import game

SHAPE, CLASSES = (16, 16, 3), 4


def backbone(activation="softmax", shape=SHAPE):
    return keras.Sequential(
        [
            keras.Input(shape),
            layers.Conv2D(6, 3, strides=2, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(CLASSES, activation=activation, kernel_initializer="orthogonal"),
        ],
        name="backbone",
    )


def nested_teacher():
    """A backbone behind preprocessing of its own: pixels from 0 to 255 in, probabilities out."""
    inputs = keras.Input(SHAPE)
    return keras.Model(inputs, backbone()(inputs / 127.5 - 1.0), name="garments")


def images(count=5, shape=SHAPE):
    return np.random.default_rng(0).random((count, *shape), dtype="float32")


def softmax(logits):
    return numpy(keras.ops.softmax(logits, axis=-1))


@pytest.mark.parametrize(
    ("teacher_input", "scale", "offset"),
    [
        ("0-255", 255.0, 0.0),
        ("-1-1", 2.0, -1.0),
        ("0.5,0.25,0.125/0.5,0.25,2", [2.0, 4.0, 0.5], [-1.0, -1.0, -0.0625]),
        ("0.5/0.25", 4.0, -2.0),
    ],
)
def test_the_declared_input_is_what_the_model_gets(teacher_input, scale, offset):
    model = nested_teacher()
    teacher = load_teacher(model, teacher_input)
    expected = numpy(model(images() * np.float32(scale) + np.float32(offset)))
    np.testing.assert_allclose(softmax(teacher(images())), expected, atol=1e-6)


def test_a_softmax_at_the_end_of_a_nested_model_is_taken_off():
    logits = numpy(load_teacher(nested_teacher(), "0-255")(images()))
    assert not np.allclose(logits.sum(axis=-1), 1)
    last = load_teacher(backbone(activation=None))
    assert last.output_shape == (None, CLASSES)


def test_a_stock_application_with_preprocessing_is_a_teacher():
    inputs = keras.Input((32, 32, 3))
    scaled = keras.applications.mobilenet_v2.preprocess_input(inputs)
    stock = keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, weights=None, classes=3)
    model = keras.Model(inputs, stock(scaled))
    teacher = load_teacher(model, "0-255")
    x = images(2, (32, 32, 3))
    expected = numpy(model(x * 255, training=False))
    np.testing.assert_allclose(softmax(teacher(x)), expected, atol=1e-5)
    again = keras.Model.from_config(teacher.get_config())
    assert again.count_params() == teacher.count_params() == model.count_params()


def test_a_teacher_of_any_size_is_told_one():
    model = backbone(shape=(None, None, 3))
    with pytest.raises(InputError, match="--image_size must be given"):
        load_teacher(model)
    teacher = load_teacher(model, image_size=20)
    assert teacher.input_shape == (None, 20, 20, 3)
    with pytest.raises(InputError, match=r"--teacher must take images of \(20, 20, 3\)"):
        load_teacher(backbone(), image_size=20)


@pytest.mark.parametrize(
    ("shape", "message"), [((16, 12, 3), "square"), ((16, 16, 2), "grey images")]
)
def test_images_that_nobody_has_are_refused(shape, message):
    with pytest.raises(InputError, match=message):
        load_teacher(backbone(shape=shape))


@pytest.mark.parametrize(
    "text", ["0-2", "", "0.5", "a/b", "0.5/0", "0.5/-1", "0,0/1,1", "nan/1", "0.5/inf", "1/2/3"]
)
def test_a_wrong_input_is_named(text):
    with pytest.raises(InputError, match="--teacher_input must be 0-1, .*, or MEAN/STD"):
        declared(text, 3)


@given(
    mean=st.lists(st.floats(-2, 2), min_size=3, max_size=3),
    std=st.lists(st.floats(0.01, 2), min_size=3, max_size=3),
)
def test_any_mean_and_deviation_is_read_back(mean, std):
    text = f"{','.join(map(repr, mean))}/{','.join(map(repr, std))}"
    assert declared(text, 3) == (mean, std, False)


@pytest.mark.parametrize(("entropy", "warns"), [(0.001, True), (0.26, False), (math.nan, False)])
def test_a_teacher_that_is_certain_of_everything_is_warned_of(entropy, warns):
    line = too_certain(entropy, math.log(10), "0-255")
    assert ("Is --teacher_input=0-255 what it takes?" in line) == warns


def of_raw_pixels(activation):
    """A teacher that scales nothing and whose BatchNorm knows pixels up to 255."""
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(16),
            keras.layers.BatchNormalization(momentum=0.0),
            keras.layers.ReLU(),
            keras.layers.Dense(1 if activation == "sigmoid" else 4, activation=activation),
        ]
    )
    model(255 * images(50, (8, 8, 1)), training=True)
    return model


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_answers_that_hardly_differ_name_another_range(activation):
    pool = (255 * images(60, (8, 8, 1))).astype("uint8")
    teachers = {name: load_teacher(of_raw_pixels(activation), name) for name in ("0-1", "0-255")}
    line = contradicting_answers(teachers["0-1"], "0-1", pool)
    assert "with --teacher_input=0-1 the teacher answers nearly the same to all images" in line
    assert "with --teacher_input=0-255, by 0." in line
    assert contradicting_answers(teachers["0-255"], "0-255", pool) == ""


def test_the_student_gets_the_teachers_normalisation():
    assert normalization(load_teacher(backbone(), "-1-1")) == ([0.5] * 3, [0.5] * 3)
    # 255 x and then x / 127.5 - 1, in layers: 2 x - 1 in all.
    inputs = keras.Input(SHAPE)
    inside = keras.Model(inputs, backbone()(layers.Rescaling(1 / 127.5, -1.0)(inputs)))
    mean, std = normalization(load_teacher(inside, "0-255"))
    np.testing.assert_allclose([mean, std], [[0.5] * 3, [0.5] * 3], atol=1e-7)
    # The same in operations that are no layers.
    mean, std = normalization(load_teacher(nested_teacher(), "0-255"))
    np.testing.assert_allclose([mean, std], [[0.5] * 3, [0.5] * 3], atol=1e-6)
    # Pixels up to 255 are no use for a student.
    assert normalization(load_teacher(backbone(), "0-255")) == ([0.5], [0.5])
    assert normalization(backbone()) == (None, None)
    adapted = layers.Normalization(axis=-1)
    adapted.adapt(images(50))
    mean, std = normalization(keras.Sequential([keras.Input(SHAPE), adapted, backbone()]))
    np.testing.assert_allclose(mean, images(50).mean(axis=(0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(std, images(50).std(axis=(0, 1, 2)), atol=1e-5)


# ---- files and functions -----------------------------------------------------------------


def test_what_a_flag_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sm").mkdir()
    (tmp_path / "sm" / "saved_model.pb").write_bytes(b"")
    (tmp_path / "wrn16_1").mkdir()
    for text in ("t.keras", "a/b", "models:teacher", "my.models:teacher_2", "sm"):
        assert is_given(text), text
    for text in ("wrn16_1", "resnet18", "deeplabv3_mobilenetv2", "a:b:c", "1a:b"):
        assert not is_given(text), text


FUNCTIONS = """
import keras
from keras import layers
from keras.ops import convert_to_numpy as numpy

def student(input_shape, classes):
    inputs = keras.Input(input_shape)
    return keras.Model(inputs, layers.Dense(classes)(layers.Flatten()(inputs)))

def fixed():
    return student((4, 4, 1), 2)

def with_lambda(classes):
    inputs = keras.Input((4, 4, 1))
    x = layers.Lambda(lambda value: value * 2)(inputs)
    return keras.Model(inputs, layers.Dense(classes)(layers.Flatten()(x)))

def number():
    return 3

def broken():
    raise KeyError("weights")

def vectors():
    return keras.Sequential([keras.Input((3,)), layers.Dense(2)])

def two():
    inputs = keras.Input((4, 4, 1))
    return keras.Model(inputs, [layers.Flatten()(inputs), inputs])
"""


@pytest.fixture
def functions(tmp_path, monkeypatch):
    """The name of a module in the working directory."""
    (tmp_path / "functions_of_mine.py").write_text(FUNCTIONS)
    monkeypatch.chdir(tmp_path)
    yield "functions_of_mine"
    sys.modules.pop("functions_of_mine", None)


def test_a_function_is_given_what_it_takes(functions):
    options = {"input_shape": (8, 8, 3), "classes": 5}
    model = given_models.load(f"{functions}:student", "--student", **options)
    assert (model.input_shape, model.output_shape) == ((None, 8, 8, 3), (None, 5))
    assert given_models.load(f"{functions}:fixed", "--student", **options).output_shape[-1] == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none", "AttributeError"),
        ("broken", "KeyError: 'weights'"),
        ("number", "must be a Keras model. Received: functions_of_mine:number, int"),
        ("with_lambda", "safe mode"),
        ("vectors", "must take images"),
        ("two", "--teacher_output must be one of the outputs of .*: flatten, input_layer"),
    ],
)
def test_a_function_that_cannot_be_used(functions, name, message):
    with pytest.raises(InputError, match=message):
        given_models.load(f"{functions}:{name}", "--teacher", classes=2)


def test_a_module_that_is_not_there(functions):
    with pytest.raises(InputError, match="--teacher must be module:function.*ModuleNotFoundError"):
        given_models.load("no_module_of_mine:teacher", "--teacher")


def test_code_in_a_keras_file_is_not_run(tmp_path):
    inputs = keras.Input(SHAPE)
    x = layers.Lambda(lambda value: value * 2)(inputs)
    keras.Model(inputs, backbone()(x)).save(tmp_path / "t.keras")
    with pytest.raises(InputError, match="in its safe mode"):
        load_teacher(str(tmp_path / "t.keras"))


# ---- SavedModels -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A SavedModel, and what it was made of."""
    path = tmp_path_factory.mktemp("teacher") / "saved"
    model = nested_teacher()
    model.export(path, verbose=False)
    return path, model


@pytest.mark.backend("tensorflow")
def test_a_saved_model_is_a_teacher_with_gradients(exported):
    path, model = exported
    teacher = load_teacher(str(path), "0-255")
    assert teacher.input_shape == (None, *SHAPE) and teacher.output_shape == (None, CLASSES)
    np.testing.assert_allclose(softmax(teacher(images())), model(images() * 255), atol=1e-5)
    assert teacher.count_params() == model.count_params() and not teacher.trainable_variables
    import tensorflow

    x = tensorflow.constant(images(2))
    with tensorflow.GradientTape() as tape:
        tape.watch(x)
        loss = tensorflow.reduce_sum(teacher(x, training=False)[:, 0])
    assert np.abs(tape.gradient(loss, x)).max() > 0


@pytest.mark.backend("tensorflow")
def test_a_trainer_keeps_a_saved_models_path_and_hash(exported, tmp_path, monkeypatch):
    path, _ = exported
    teacher = load_teacher(str(path), "0-255")
    trainer = KnowledgeDistillation(teacher, backbone(activation=None))
    trainer.compile(student_recipe(4))
    trainer.save(tmp_path / "run.keras")
    again = keras.saving.load_model(tmp_path / "run.keras", safe_mode=True)
    assert isinstance(again, StudentTrainer)
    np.testing.assert_array_equal(again.teacher(images()), teacher(images()))
    # A process that was not told to run it does not, whatever a file says.
    monkeypatch.setattr("keras_mosaickd.teachers.foreign._told", {})
    with pytest.raises(InputError, match="it must be named"):
        keras.saving.load_model(tmp_path / "run.keras", safe_mode=True)


@pytest.mark.backend("tensorflow")
def test_a_changed_saved_model_is_another_one(exported, tmp_path):
    path, _ = exported
    before = folder_hash(path)
    (tmp_path / "saved").symlink_to(path)
    assert folder_hash(tmp_path / "saved") == before
    extra = path / "extra.txt"
    extra.write_text("x")
    try:
        assert folder_hash(path) != before
        with pytest.raises(InputError, match="as it was"):
            SavedModelLayer(path, before)
    finally:
        extra.unlink()


@pytest.mark.backend("tensorflow")
def test_no_saved_model(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"nothing")
    with pytest.raises(InputError, match="serving_default"):
        saved_model(tmp_path)


@pytest.mark.backend("jax", "torch")
def test_a_saved_model_needs_tensorflow(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(InputError, match="needs KERAS_BACKEND=tensorflow"):
        load_teacher(str(tmp_path))


def test_game_classifiers_are_teachers_as_they_are():
    model = game.classifier()
    assert load_teacher(model) is model
