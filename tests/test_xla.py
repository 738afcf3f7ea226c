"""The training step as XLA's, and what it cannot compile."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_mosaickd import InputError, KnowledgeDistillation, mosaic_stream, networks
from keras_mosaickd.backend.training import unsupported_by_xla
from keras_mosaickd.cli import runner, train
from keras_mosaickd.config import recipe_defaults
from keras_mosaickd.optimizers import recipe, student_recipe
from tests.game import BATCH, SHAPE, STEPS, classifier, game, images, moved, values

RECIPES = {
    "paper": {},
    "official": {"local_reduction": "sum", "batch_norm_policy": "inference"},
    "practical": {
        name: value
        for name, value in recipe_defaults({"recipe": "practical"}).items()
        if name not in ("student_steps", "generator_multiple")
    },
}


def resizing(interpolation, shape=SHAPE):
    """A classifier that resizes its images first."""
    inputs = keras.Input(shape)
    x = layers.Resizing(12, 12, interpolation=interpolation, name="enlarge")(inputs)
    x = layers.BatchNormalization()(layers.Conv2D(4, 3, strides=2)(x))
    x = layers.Dense(3, name="logits")(layers.GlobalAveragePooling2D()(layers.ReLU()(x)))
    return keras.Model(inputs, x, name=f"{interpolation}_classifier")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.long] * (n != "practical")) for n in RECIPES]
)
def test_the_whole_step_of_the_game_compiles(name):
    model = game(compiled=False, **RECIPES[name])
    model.compile(**recipe(10, STEPS), jit_compile=True)
    before = values(model.student.variables)
    stream = mosaic_stream(images(), BATCH, student_steps=STEPS, steps_per_epoch=1)
    history = model.fit(stream, verbose=0).history
    assert model.jit_compile is True and moved(before, values(model.student.variables))
    assert all(np.isfinite(values).all() for values in history.values())


@pytest.mark.slow
def test_a_compiled_step_equals_the_plain_one():
    # Without latent vectors: XLA draws others from the same seed.
    stepped = []
    for jit_compile in (False, True):
        model = distillation(classifier(1), jit_compile=jit_compile)
        model.fit(images(), batch_size=BATCH, shuffle=False, verbose=0)
        stepped.append(values(model.student.variables))
    for plain, compiled in zip(*stepped, strict=True):
        np.testing.assert_allclose(compiled, plain, atol=1e-4)


@pytest.mark.parametrize("preset", ["paper", "official"])
def test_generator_and_discriminator_compile(preset):
    shape = (32, 32, 3)
    assert unsupported_by_xla(networks.generator(shape, preset=preset), (100,)) == []
    assert unsupported_by_xla(networks.discriminator(shape, preset=preset), shape) == []


@pytest.mark.long
def test_networks_of_pixels_compile():
    shape = (32, 32, 3)
    network = networks.build("deeplabv3_mobilenetv2", shape, 4, 0.5, 0.25, task="segmentation")
    assert unsupported_by_xla(network, shape) == []


def test_what_cannot_be_compiled_is_named_by_operation_and_layer():
    assert unsupported_by_xla(resizing("bilinear"), SHAPE) == []
    (found,) = unsupported_by_xla(resizing("bicubic"), SHAPE)
    assert found.startswith("ResizeBicubic (") and "/enlarge" in found


def distillation(teacher, **options):
    model = KnowledgeDistillation(teacher, classifier())
    model.compile(student_recipe(10), **options)
    return model


def test_the_step_falls_back_where_xla_is_keras_choice(monkeypatch, capsys):
    # Keras chooses XLA where there is a GPU.
    monkeypatch.setattr(keras.Model, "_resolve_auto_jit_compile", lambda self: True)
    model = distillation(resizing("bicubic"))
    assert model.jit_compile is False
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "XLA" in line]
    assert "the teacher bicubic_classifier with ResizeBicubic (" in line
    model.fit(images(), batch_size=BATCH, verbose=0)
    assert distillation(resizing("bilinear")).jit_compile is True


def test_the_step_is_refused_where_xla_is_asked_for():
    with pytest.raises(InputError, match="Received: True, and the teacher .* with ResizeBicubic"):
        distillation(resizing("bicubic"), jit_compile=True)
    distillation(resizing("bicubic"), jit_compile=False)


def test_the_command_refuses_before_any_work(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    resizing("bicubic", (16, 16, 1)).save("t.keras")
    arguments = ["--method=kd", "--teacher=t.keras", "--ood=digits[5-9]", "--ood_size=8"]
    arguments += ["--student=wrn10_1", "--student_updates=1", "--batch_size=4", "--run_dir=run"]
    arguments += ["--jit_compile=on"]
    assert runner.run(train.main, "train", arguments) == 2
    line = capfd.readouterr().err.strip().splitlines()[-1]
    assert "--jit_compile must be auto or off with --teacher=t.keras" in line
    assert "ResizeBicubic (" in line and not (tmp_path / "run").exists()
