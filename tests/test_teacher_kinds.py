"""Whatever Keras users hold as a classifier is a teacher with the right values, or says why not."""

import json
import re
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers, ops
from keras.applications.imagenet_utils import preprocess_input

from keras_mosaickd import InputError, KnowledgeDistillation, load_teacher
from keras_mosaickd.cli import runner, train
from keras_mosaickd.config import is_given
from keras_mosaickd.networks import flops
from keras_mosaickd.networks.loading import load_model
from keras_mosaickd.optimizers import student_recipe
from keras_mosaickd.teachers.scaling import declared, normalization

SHAPE = (16, 16, 3)


def numpy(tensor):
    return ops.convert_to_numpy(ops.cast(tensor, "float32"))


def images(count=5, shape=SHAPE):
    return np.random.default_rng(0).random((count, *shape), dtype="float32")


def dense(*before, units=4, activation=None, shape=SHAPE, dtype="float32"):
    """A classifier of a few layers behind others."""
    x = inputs = keras.Input(shape, dtype=dtype)
    for layer in before:
        x = layer(x)
    x = layers.Conv2D(3, 3, strides=2)(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(units, activation=activation, name="answer")(x))


def same(teacher, expected, atol=1e-5):
    np.testing.assert_allclose(numpy(teacher(images(), training=False)), numpy(expected), atol=atol)


def distils(teacher, units=4):
    """A trainer after two updates of its student."""
    model = KnowledgeDistillation(teacher, dense(units=units))
    model.compile(student_recipe(2, learning_rate=0.01))
    history = model.fit(images(8), batch_size=4, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    return model


# ---- what the teacher takes ------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["caffe", "tf", "torch"])
def test_the_modes_of_keras_applications(mode, capsys):
    model = dense()
    teacher = load_teacher(model, mode)
    assert "Warning" not in capsys.readouterr().out
    expected = preprocess_input(images() * 255, data_format="channels_last", mode=mode)
    np.testing.assert_allclose(numpy(declared(mode, 3)(images())), expected, atol=1e-4)
    same(teacher, model(expected), 1e-5 * np.abs(expected).max())
    again = keras.Model.from_config(teacher.get_config())
    again.set_weights(teacher.get_weights())
    same(again, model(expected), 1e-5 * np.abs(expected).max())


def test_a_mode_of_colours_is_not_for_grey_images():
    with pytest.raises(InputError, match="--teacher_input=caffe is for RGB images"):
        load_teacher(dense(shape=(16, 16, 1)), "caffe")


def adapted():
    layer = layers.Normalization()
    layer.adapt(255 * images(50))
    return layer


@pytest.mark.parametrize(
    ("before", "wrong", "right"),
    [
        ([lambda: layers.Rescaling(1 / 255)], "0-1", "0-255"),
        ([lambda: layers.Rescaling(1 / 127.5, -1)], "-1-1", "0-255"),
        ([adapted], "0-1", "0-255"),
        ([lambda: layers.Rescaling(1 / 255), lambda: layers.Normalization(mean=0.5, variance=0.04)],
         "0-1", "0-255"),
        ([lambda: layers.Rescaling(2, -1)], "0-255", "0-1"),
        ([], "123.7,116.3,103.5/58.4,57.1,57.4", "0.4851,0.4561,0.4059/0.229,0.2239,0.2251"),
    ],
)  # fmt: skip
def test_a_range_that_contradicts_the_model_is_said_with_the_flag(before, wrong, right, capsys):
    model = dense(*[make() for make in before])
    load_teacher(model, wrong)
    assert f"give --teacher_input={right}" in capsys.readouterr().out
    load_teacher(model, right)
    assert "Warning" not in capsys.readouterr().out


def test_user_code_is_told_of_the_range_too(capsys):
    model = dense(layers.Rescaling(1 / 255), activation="softmax")
    KnowledgeDistillation(model, dense())
    assert "give --teacher_input=0-255" in capsys.readouterr().out
    KnowledgeDistillation(load_teacher(model, "0-255"), dense())
    assert "Warning" not in capsys.readouterr().out


def test_preprocessing_inside_an_application_is_seen(capsys):
    stock = keras.applications.EfficientNetB0(
        weights=None, input_shape=(32, 32, 3), classes=3, include_top=True
    )
    load_teacher(stock)
    assert "give --teacher_input=0-255" in capsys.readouterr().out
    inputs = keras.Input((32, 32, 3))
    small = dense(shape=(32, 32, 3))
    load_teacher(keras.Model(inputs, small(preprocess_input(inputs, mode="caffe"))))
    assert "give --teacher_input=0-255" in capsys.readouterr().out


@pytest.mark.parametrize("mode", ["tf", "torch"])
def test_the_student_gets_what_is_seen_inside(mode):
    inputs = keras.Input(SHAPE)
    model = keras.Model(inputs, dense()(preprocess_input(inputs, mode=mode)))
    mean, std = normalization(load_teacher(model, "0-255"))
    expected = preprocess_input(np.zeros((1, 1, 3)), mode=mode, data_format="channels_last")
    np.testing.assert_allclose(-np.array(mean) / std, expected[0, 0], atol=1e-5)


def test_a_teacher_of_whole_numbers_gets_floats(capsys):
    model = dense(layers.Rescaling(1 / 255), dtype="uint8")
    teacher = load_teacher(model, "0-255")
    assert teacher.inputs[0].dtype == "float32"
    same(teacher, dense_like(model)(images() * 255))


def dense_like(model):
    """The same layers on floats, which Keras would cut off to whole numbers."""
    x = inputs = keras.Input(SHAPE)
    for layer in model.layers[1:]:
        x = layer(x)
    return keras.Model(inputs, x)


# ---- which models ------------------------------------------------------------------------------


def test_an_h5_file_by_its_bare_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = dense(activation="softmax")
    model.save("t.h5")
    assert is_given("t.h5")
    teacher = load_teacher("t.h5")
    np.testing.assert_allclose(
        numpy(ops.softmax(teacher(images()))), numpy(model(images())), atol=1e-6
    )


class Subclassed(keras.Model):
    """Layers in a class, without shapes."""

    def __init__(self, several=False):
        super().__init__()
        self.flatten, self.answer, self.several = layers.Flatten(), layers.Dense(4), several

    def call(self, inputs, training=False):
        logits = self.answer(self.flatten(inputs))
        return {"logits": logits, "features": inputs} if self.several else logits


def test_a_subclassed_model_after_one_call():
    model = Subclassed()
    with pytest.raises(InputError, match="call it on a batch first"):
        load_teacher(model)
    model(images(2))
    same(load_teacher(model), model(images()))
    distils(model)


def several():
    inputs = keras.Input(SHAPE)
    x = layers.Flatten()(inputs)
    return keras.Model(
        inputs, [layers.Dense(3, name="kind")(x), layers.Dense(5, "sigmoid", name="marks")(x)]
    )


def test_one_of_several_outputs():
    model = several()
    with pytest.raises(InputError, match=r"outputs of functional\w*: kind, marks. Received: none"):
        load_teacher(model)
    with pytest.raises(InputError, match="kind, marks. Received: other"):
        load_teacher(model, teacher_output="other")
    same(load_teacher(model, teacher_output="kind"), model(images())[0])
    assert load_teacher(model, teacher_output="marks").output_shape == (None, 5)
    subclassed = Subclassed(several=True)
    subclassed(images(2))
    same(load_teacher(subclassed, teacher_output="logits"), subclassed(images())["logits"])
    with pytest.raises(InputError, match="features, logits"):
        load_teacher(subclassed)
    with pytest.raises(InputError, match="it has one, without a name"):
        plain = Subclassed()
        plain(images(1))
        load_teacher(plain, teacher_output="logits")


@pytest.mark.backend("tensorflow")
def test_one_of_several_outputs_of_a_saved_model(tmp_path):
    model = several()
    model.export(tmp_path / "sm", verbose=False)
    with pytest.raises(
        InputError, match="--teacher_output must be one of the outputs of .*output_0"
    ):
        load_teacher(str(tmp_path / "sm"))
    same(load_teacher(str(tmp_path / "sm"), teacher_output="output_0"), model(images())[0])


def test_a_model_of_any_size_is_counted():
    model = dense(shape=(None, None, 3))
    teacher = load_teacher(model, image_size=16)
    assert flops(teacher) == flops(dense())
    same(teacher, model(images()))
    inputs = keras.Input((None, None, 3))
    nested = keras.Model(inputs, model(layers.Rescaling(2)(inputs)))
    assert flops(load_teacher(nested, image_size=16)) == flops(dense())


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = dense(activation="softmax")
    finally:
        keras.config.set_dtype_policy(before)
    teacher = load_teacher(model)
    actual = numpy(ops.softmax(ops.cast(teacher(images()), "float32")))
    np.testing.assert_allclose(actual, numpy(model(images())), atol=1e-2)
    distils(teacher)


def test_augmentation_inside_is_switched_off():
    augment = [layers.RandomFlip(), layers.RandomRotation(0.5), layers.GaussianNoise(1.0)]
    model = dense(*augment, layers.Rescaling(1 / 255), layers.Dropout(0.5))
    teacher = load_teacher(model, "0-255")
    same(teacher, model(images() * 255, training=False))
    trainer = distils(teacher)
    same(trainer.run_teacher, model(images() * 255, training=False))


@keras.saving.register_keras_serializable(package="someone_else")
class Doubled(layers.Layer):
    """A layer of the user's own."""

    def call(self, inputs):
        return inputs * 2


MODULE = """
import keras
@keras.saving.register_keras_serializable(package="another")
class Tripled(keras.layers.Layer):
    def call(self, inputs):
        return inputs * 3
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with images, a module and a model of its layer, saved."""
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    (tmp_path / "layers_of_mine.py").write_text(MODULE)
    (tmp_path / "pool").mkdir()
    for index, image in enumerate(np.random.default_rng(1).integers(0, 255, (24, 16, 16, 3))):
        Image.fromarray(image.astype("uint8")).save(tmp_path / "pool" / f"{index}.png")
    monkeypatch.syspath_prepend(str(tmp_path))
    import layers_of_mine

    dense(layers_of_mine.Tripled()).save(tmp_path / "own.keras")
    keras.saving.get_custom_objects().pop("another>Tripled")
    sys.modules.pop("layers_of_mine")
    yield tmp_path
    sys.modules.pop("layers_of_mine", None)
    keras.saving.get_custom_objects().pop("another>Tripled", None)


def trains(*options):
    common = "--ood=folder:pool --batch_size=4 --method=kd --student=wrn10_1 --student_updates=2"
    common += " --evaluations=1 --export=keras --cache_dir=cache"
    return runner.run(train.main, "train", [*common.split(), *options])


@pytest.mark.slow
@pytest.mark.long_on("tensorflow")
def test_layers_of_ones_own_come_by_import(folder, capsys):
    assert trains("--teacher=own.keras", "--run_dir=r") == 2
    assert "--import=MODULE" in capsys.readouterr().err
    assert trains("--teacher=own.keras", "--run_dir=r", "--import=nothing_of_mine") == 2
    assert "--import must name modules" in capsys.readouterr().err
    assert trains("--teacher=own.keras", "--run_dir=r", "--import=layers_of_mine") == 0
    assert "--import=layers_of_mine\n" in (folder / "r" / "flags.txt").read_text()


@pytest.mark.slow
@pytest.mark.long_on("tensorflow")
def test_lambda_layers_are_run_only_when_that_is_asked_for(folder, capsys, monkeypatch):
    model = dense(layers.Lambda(lambda x: x * 2, output_shape=SHAPE))
    model.save("lambda.keras")
    assert trains("--teacher=lambda.keras", "--run_dir=r") == 2
    assert "--unsafe_load" in capsys.readouterr().err
    assert trains("--teacher=lambda.keras", "--run_dir=r", "--unsafe_load") == 0
    assert "Warning: --unsafe_load runs the code" in capsys.readouterr().out
    assert json.loads((folder / "r" / "environment.json").read_text())["unsafe_load"] is True
    (folder / "r" / "metrics.json").unlink()
    assert trains("--teacher=lambda.keras", "--run_dir=r", "--unsafe_load") == 0  # resumes
    monkeypatch.setattr("keras_mosaickd.networks.loading._DOWNLOADS", (str(folder),))
    with pytest.raises(InputError, match="--unsafe_load is for files that you made yourself"):
        load_model("lambda.keras", "--teacher", unsafe=True)


# ---- PyTorch modules ---------------------------------------------------------------------------


TORCH = """
import torch
from torch import nn

def small():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, bias=False), nn.BatchNorm2d(4), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))

class Fields(dict):
    __getattr__ = dict.__getitem__

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = small()
    def forward(self, x):
        return Fields(logits=self.inner(x), hidden=x)

class Pixels(nn.Module):
    pretrained_cfg = {"input_size": (3, 16, 16)}
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(3, 2, 3, padding=1)
    def forward(self, x):
        return {"out": self.convolution(x)}
"""


@pytest.fixture
def torch_functions(folder):
    (folder / "modules_of_mine.py").write_text(TORCH)
    yield "modules_of_mine"
    sys.modules.pop("modules_of_mine", None)


@pytest.mark.backend("torch")
def test_a_torch_module_is_a_teacher(torch_functions, tmp_path, monkeypatch):
    import torch

    with pytest.raises(InputError, match="--image_size must be given"):
        load_teacher(f"{torch_functions}:small")
    teacher = load_teacher(f"{torch_functions}:small", image_size=16)
    import modules_of_mine

    module = modules_of_mine.small().eval()
    with torch.no_grad():
        expected = module(torch.from_numpy(images()).permute(0, 3, 1, 2))
    same(teacher, expected)
    assert teacher.output_shape == (None, 3) and not teacher.weights
    x = torch.from_numpy(images(2)).requires_grad_()
    (slope,) = torch.autograd.grad(teacher(x)[:, 0].sum(), x)
    assert slope.abs().max() > 0
    trainer = distils(teacher, 3)
    trainer.save(tmp_path / "run.keras")
    again = load_model(tmp_path / "run.keras", "the checkpoint")
    same(again.teacher, expected)
    with pytest.raises(InputError, match="--teacher=modules_of_mine:small"):
        monkeypatch.setattr("keras_mosaickd.teachers.foreign._told", {})
        load_model(tmp_path / "run.keras", "the checkpoint")


@pytest.mark.backend("torch")
def test_fields_of_a_torch_modules_answer_and_maps_of_pixels(torch_functions):
    import torch

    teacher = load_teacher(f"{torch_functions}:Model", image_size=16)
    import modules_of_mine

    same(teacher, modules_of_mine.Model().eval().inner(_channels_first(images())).detach())
    hidden = load_teacher(f"{torch_functions}:Model", image_size=16, teacher_output="hidden")
    np.testing.assert_array_equal(numpy(hidden(images())), images())
    with pytest.raises(InputError, match="hidden, logits. Received: other"):
        load_teacher(f"{torch_functions}:Model", image_size=16, teacher_output="other")
    pixels = load_teacher(f"{torch_functions}:Pixels")
    assert pixels.output_shape == (None, 16, 16, 2)
    with torch.no_grad():
        expected = modules_of_mine.Pixels()(_channels_first(images()))["out"].permute(0, 2, 3, 1)
    same(pixels, expected)


def _channels_first(x):
    import torch

    return torch.from_numpy(x).permute(0, 3, 1, 2)


@pytest.mark.backend("torch")
def test_a_run_with_a_torch_module_goes_on_and_keeps_no_weights(torch_functions, folder):
    options = (f"--teacher={torch_functions}:small", "--image_size=16", "--run_dir=r")
    assert trains(*options, "--dry_run") == 0
    assert trains(*options) == 0
    metrics = json.loads((folder / "r" / "metrics.json").read_text())
    # 3 * 4 * 9, gamma and beta, and 4 * 3 + 3.
    assert metrics["teacher_parameters"] == 108 + 8 + 15
    assert len(metrics["teacher_sha256"]) == 64
    (folder / "r" / "metrics.json").unlink()
    assert trains(*options) == 0
    again = json.loads((folder / "r" / "metrics.json").read_text())
    assert again["teacher_sha256"] == metrics["teacher_sha256"]


@pytest.mark.backend("tensorflow", "jax")
def test_a_torch_module_needs_the_pytorch_backend():
    module = type("Module", (), {"__module__": "torch.nn.modules.module"})
    with pytest.raises(InputError, match="needs KERAS_BACKEND=torch"):
        load_teacher(type("Mine", (module,), {})())


# ---- the table of the guide ----------------------------------------------------------------------

GUIDE = (Path(__file__).resolve().parent.parent / "docs" / "own_teacher.md").read_text()
ROWS = {
    cells[0]: cells[1:]
    for line in re.findall(r"^\| (.+) \|$", GUIDE, re.MULTILINE)
    if len(cells := line.split(" | ")) == 3 and cells[0] != "teacher"
}


def application(name, module):
    def kind(folder):
        make = getattr(keras.applications, name)
        model = make(weights=None, input_shape=(32, 32, 3), classes=5)
        prepare = getattr(keras.applications, module).preprocess_input
        return model, {}, lambda x: model(prepare(x * 255), training=False)

    return kind


def plain(model, **options):
    return model, options, lambda x: model(x, training=False)


def sequential(folder):
    flat = [keras.Input(SHAPE), layers.Flatten(), layers.Dense(5, activation="softmax")]
    return plain(keras.Sequential(flat))


def nested(folder):
    inputs = keras.Input(SHAPE)
    inner = dense(units=5, activation="softmax")
    model = keras.Model(inputs, inner(layers.RandomFlip()(inputs) / 127.5 - 1))
    return model, {}, lambda x: model(x * 255, training=False)


def subclassed(folder):
    model = Subclassed()
    model(images(2))
    return plain(model)


def h5(folder):
    model = dense(units=5, activation="softmax")
    model.save(folder / "t.h5")
    return str(folder / "t.h5"), {}, model


def saved_model(folder):
    model = dense(units=5, activation="softmax")
    model.export(folder / "saved", verbose=False)
    return str(folder / "saved"), {}, model


def torch_module(folder):
    import torch
    from torch import nn

    parts = nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    module = nn.Sequential(*parts, nn.Linear(4, 5)).eval()
    return (
        module,
        {"image_size": 16},
        lambda x: module(torch.from_numpy(x).permute(0, 3, 1, 2)).detach(),
    )


def mixed(folder):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        return plain(dense(units=5, activation="softmax"))
    finally:
        keras.config.set_dtype_policy(before)


def with_lambda(folder):
    model = dense(layers.Lambda(lambda x: x * 2, output_shape=SHAPE), units=5)
    model.save(folder / "lambda.keras")
    return str(folder / "lambda.keras"), {"unsafe": True}, model


KINDS = {
    "`ResNet50`, `101`, `152`": application("ResNet50", "resnet50"),
    "`ResNet50V2`, `101V2`, `152V2`": application("ResNet50V2", "resnet_v2"),
    "`VGG16`, `VGG19`": application("VGG16", "vgg16"),
    "`MobileNet`": application("MobileNet", "mobilenet"),
    "`MobileNetV2`": application("MobileNetV2", "mobilenet_v2"),
    "`MobileNetV3Small`, `Large`": application("MobileNetV3Small", "mobilenet_v3"),
    "`EfficientNetB0` to `B7`": application("EfficientNetB0", "efficientnet"),
    "`EfficientNetV2B0` to `L`": application("EfficientNetV2B0", "efficientnet_v2"),
    "`DenseNet121`, `169`, `201`": application("DenseNet121", "densenet"),
    "`ConvNeXtTiny` to `XLarge`": application("ConvNeXtTiny", "convnext"),
    "`NASNetMobile`, `Large` (not on PyTorch)": application("NASNetMobile", "nasnet"),
    "`Sequential`": sequential,
    "functional": lambda folder: plain(dense(units=5, activation="softmax")),
    "a model inside a model, preprocessing and augmentation inside": nested,
    "subclassed, called once": subclassed,
    "`.h5` file": h5,
    "SavedModel (TensorFlow)": saved_model,
    "`torch.nn.Module` (PyTorch)": torch_module,
    "mixed precision": mixed,
    "binary, one sigmoid": lambda folder: plain(dense(units=1, activation="sigmoid")),
    "multi-label, several sigmoids": lambda folder: plain(dense(units=5, activation="sigmoid")),
    "multi-label, logits, `--head=labels`": lambda folder: plain(dense(units=5), head="labels"),
    "several outputs, `--teacher_output=kind`": lambda folder: (
        model := several(), {"teacher_output": "kind"}, lambda x: model(x)[0]
    ),
    "any size, `--image_size=16`": lambda folder: plain(
        dense(units=5, shape=(None, None, 3)), image_size=16
    ),
    "whole numbers in": lambda folder: (
        model := dense(layers.Rescaling(1 / 255), dtype="uint8"), {},
        lambda x: dense_like(model)(x * 255),
    ),
    "Lambda layers, `--unsafe_load`": with_lambda,
}  # fmt: skip
ON_TENSORFLOW = ("SavedModel (TensorFlow)", "`NASNetMobile`, `Large` (not on PyTorch)")
FUNCTIONS = {"softmax": ops.softmax, "sigmoid": ops.sigmoid, "logits": lambda x: x}


def on(kind):
    marks = [pytest.mark.backend("tensorflow" if kind in ON_TENSORFLOW else "torch")]
    return [*marks, pytest.mark.long] if "NASNet" in kind else marks


@pytest.mark.slow
@pytest.mark.parametrize("kind", [pytest.param(kind, marks=on(kind)) for kind in KINDS])
def test_a_row_of_the_guide(kind, tmp_path, capsys):
    """The guide says what is recognised; the numbers are the model's own."""
    given, recognised = (cell.strip("`") for cell in ROWS[kind])
    source, options, expected = KINDS[kind](tmp_path)
    teacher = load_teacher(source, given, **options)
    printed = capsys.readouterr().out
    assert f"given to it as {given}; {recognised};" in printed
    assert "Warning" not in printed.replace("--unsafe_load runs", "") or "unsafe" in kind
    x = images(3, tuple(teacher.input_shape[1:]))
    function = FUNCTIONS[re.search(r"(\w+)\)$", recognised)[1]]
    actual = numpy(function(ops.cast(teacher(x, training=False), "float32")))
    np.testing.assert_allclose(
        actual, numpy(expected(x)), atol=1e-2 if kind == "mixed precision" else 1e-4
    )
    shape, units = teacher.input_shape[1:], teacher.output_shape[-1]
    model = KnowledgeDistillation(teacher, dense(units=units, shape=shape))
    model.compile(student_recipe(2, learning_rate=0.01))
    assert np.isfinite(model.fit(x[:2], batch_size=2, verbose=0).history["loss"]).all()
    plain, fused = (numpy(run(x, training=False)) for run in (model.teacher, model.run_teacher))
    np.testing.assert_allclose(fused, plain, atol=1e-2 * max(1, np.abs(plain).max()))


def test_every_row_of_the_guide_is_made():
    assert list(ROWS) == list(KINDS)
