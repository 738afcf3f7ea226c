"""The student as a SavedModel, from every backend: keras_mosaickd/export.py."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy
import pytest

from keras_mosaickd import export, networks
from keras_mosaickd.cli import export as command
from keras_mosaickd.cli import runner
from keras_mosaickd.errors import InputError

ROOT = Path(__file__).resolve().parents[1]

# Loads a SavedModel with TensorFlow, where this package cannot be imported, and prints its logits.
PLAIN_TENSORFLOW = """
import json, sys
sys.modules["keras_mosaickd"] = None
import numpy, tensorflow
model = tensorflow.saved_model.load(sys.argv[1])
pictures = numpy.load(sys.argv[2])
batches = [tensorflow.constant(pictures[:count]) for count in (1, 2, 5)]
print(json.dumps([model.serve(batch).numpy().tolist() for batch in batches]))
"""


@pytest.fixture
def student():
    """A small network of the library with statistics and weights unlike the initial ones."""
    student = networks.build("wrn10_1", (8, 8, 3), 4, mean=[0.4, 0.5, 0.6], std=[0.2, 0.25, 0.3])
    generator = numpy.random.default_rng(3)
    for weight in student.weights:
        noise = generator.uniform(0.8, 1.2, weight.shape).astype("float32")
        weight.assign(keras.ops.convert_to_numpy(weight) * noise + 0.01)
    return student


def logits_of(student, pictures):
    return keras.ops.convert_to_numpy(student(pictures, training=False))


def served_elsewhere(saved_model, pictures, folder):
    numpy.save(folder / "pictures.npy", pictures)
    finished = subprocess.run(
        [sys.executable, "-c", PLAIN_TENSORFLOW, str(saved_model), str(folder / "pictures.npy")],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    return [numpy.array(logits) for logits in json.loads(finished.stdout)]


def test_plain_tensorflow_gives_the_students_logits_for_any_batch_size(student, tmp_path, capfd):
    target = tmp_path / "deep" / "saved_model"
    capfd.readouterr()
    assert export.export_saved_model(student, target) == target
    assert capfd.readouterr().out == ""
    assert os.listdir(target.parent) == ["saved_model"]
    pictures = numpy.random.default_rng(0).random((5, 8, 8, 3), dtype="float32")
    expected = logits_of(student, pictures)
    for logits in served_elsewhere(target, pictures, tmp_path):
        numpy.testing.assert_allclose(logits, expected[: len(logits)], atol=1e-5, rtol=1e-5)


@pytest.mark.backend("tensorflow")
def test_an_older_saved_model_is_replaced_and_nothing_else_ever_is(student, tmp_path):
    target = tmp_path / "saved_model"
    target.mkdir()
    (target / "saved_model.pb").write_text("an older one")
    export.export_saved_model(student, target)
    assert (target / "saved_model.pb").stat().st_size > 1000
    assert os.listdir(tmp_path) == ["saved_model"]
    thesis = tmp_path / "documents"
    thesis.mkdir()
    (thesis / "thesis.tex").write_text("years of work")
    for path in (thesis, thesis / "thesis.tex"):
        with pytest.raises(InputError, match="SavedModel to write to"):
            export.export_saved_model(student, path)
    assert (thesis / "thesis.tex").read_text() == "years of work"


@pytest.mark.backend("jax", "torch")
def test_the_keras_file_of_the_run_is_used_where_it_is_given(student, tmp_path):
    student.save(tmp_path / "student.keras")
    export.export_saved_model(student, tmp_path / "out", keras_path=tmp_path / "student.keras")
    assert sorted(os.listdir(tmp_path)) == ["out", "student.keras"]


def test_export_command_on_a_run_and_on_a_file(student, tmp_path, capsys):
    student.save(tmp_path / "student.keras")
    assert runner.run(command.main, "export", [f"--run_dir={tmp_path}"]) == 0
    assert (tmp_path / "saved_model" / "saved_model.pb").is_file()
    assert capsys.readouterr().out == f"{tmp_path / 'saved_model'}\n"
    arguments = [f"--student={tmp_path / 'student.keras'}", f"--out={tmp_path / 'other'}"]
    assert runner.run(command.main, "export", arguments) == 0
    assert (tmp_path / "other" / "saved_model.pb").is_file()


@pytest.mark.backend("tensorflow")
def test_a_file_that_is_no_model_is_an_input_error(tmp_path, capsys):
    broken = tmp_path / "student.keras"
    broken.write_text("not a model")
    with pytest.raises(InputError, match="safe mode"):
        export.load_student(broken)
    assert runner.run(command.main, "export", [f"--run_dir={tmp_path}"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.backend("jax", "torch")
def test_a_file_that_is_no_model_is_named_by_the_tensorflow_process(tmp_path):
    (tmp_path / "student.keras").write_text("not a model")
    with pytest.raises(export.ExportError, match="safe mode"):
        export.export_file(tmp_path / "student.keras", tmp_path / "out")
    assert os.listdir(tmp_path) == ["student.keras"]


@pytest.mark.backend("tensorflow")
def test_code_in_a_file_is_not_run(tmp_path):
    layers = [keras.Input((4, 4, 1)), keras.layers.Lambda(lambda x: x), keras.layers.Flatten()]
    keras.Sequential(layers).save(tmp_path / "student.keras")
    with pytest.raises(InputError, match="safe mode"):
        export.load_student(tmp_path / "student.keras")


@pytest.mark.backend("jax", "torch")
def test_without_tensorflow_the_student_is_kept_and_the_later_command_named(
    student, tmp_path, monkeypatch
):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "tensorflow" else find_spec(name, *rest),
    )
    target = tmp_path / "saved_model"
    kept = tmp_path / "saved_model.keras"
    wanted = f"bin/export --student={kept} --out={target}"
    with pytest.raises(export.ExportError, match=wanted):
        export.export_saved_model(student, target)
    assert os.listdir(tmp_path) == ["saved_model.keras"]
    with pytest.raises(export.ExportError, match=wanted):
        export.export_file(kept, target)


@pytest.mark.backend("tensorflow")
def test_a_saved_model_that_differs_is_not_kept(student, tmp_path, monkeypatch):
    right = export._outputs
    monkeypatch.setattr(export, "_outputs", lambda *arguments: right(*arguments) + 1e-3)
    with pytest.raises(export.ExportError, match="a difference of 1.0e-03"):
        export.export_saved_model(student, tmp_path / "out")
    assert os.listdir(tmp_path) == []


def test_not_a_number_is_a_difference(student, tmp_path):
    with pytest.raises(export.ExportError, match="nan"):
        export._compare(numpy.array([numpy.nan]), numpy.array([0.0]), 1e-5, "the student")


def test_several_inputs_are_refused(tmp_path):
    inputs = [keras.Input((4,)), keras.Input((4,))]
    model = keras.Model(inputs, keras.layers.Add()(inputs))
    with pytest.raises(InputError, match="one input"):
        export.export_saved_model(model, tmp_path / "out")


def test_bfloat16_student(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        student = networks.build("wrn10_1", (8, 8, 3), 4, mean=0.5, std=0.25)
    finally:
        keras.config.set_dtype_policy("float32")
    assert export._tolerance(student) == export.TOLERANCES["bfloat16"]
    export.export_saved_model(student, tmp_path / "out")
    assert os.listdir(tmp_path) == ["out"]


MIRRORED = """
import sys
import numpy, tensorflow
devices = tensorflow.config.list_physical_devices("CPU")
half = tensorflow.config.LogicalDeviceConfiguration()
tensorflow.config.set_logical_device_configuration(devices[0], [half, half])
import keras
from keras_mosaickd import export, networks
with tensorflow.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    student = networks.build("wrn10_1", (8, 8, 3), 4, mean=0.5, std=0.25)
export.export_saved_model(student, sys.argv[1])
"""


@pytest.mark.backend("tensorflow")
def test_student_of_a_mirrored_run(tmp_path):
    finished = subprocess.run(
        [sys.executable, "-c", MIRRORED, str(tmp_path / "out")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    pictures = numpy.zeros((5, 8, 8, 3), "float32")
    assert served_elsewhere(tmp_path / "out", pictures, tmp_path)[0].shape == (1, 4)
