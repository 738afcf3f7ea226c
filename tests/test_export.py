"""The student as SavedModel, ONNX and LiteRT, from every backend: keras_mosaickd/export."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import hypothesis
import keras
import numpy
import pytest
from hypothesis import strategies
from PIL import Image

from keras_mosaickd import export, networks
from keras_mosaickd.cli import export as command
from keras_mosaickd.cli import runner
from keras_mosaickd.data.sources import resizing
from keras_mosaickd.errors import InputError
from keras_mosaickd.export import comparison, litert, saved_model, writing

ROOT = Path(__file__).resolve().parents[1]
PORTABLE = ("onnx", "litert", "litert_int8")

# Loads a SavedModel with TensorFlow, where this package cannot be imported, and prints its logits.
PLAIN_TENSORFLOW = """
import json, sys
sys.modules["keras_mosaickd"] = sys.modules["keras"] = None
import numpy, tensorflow
model = tensorflow.saved_model.load(sys.argv[1])
images = numpy.load("images.npy")
batches = [tensorflow.constant(images[:count]) for count in (1, 2, 5)]
answer = {"logits": [model.serve(batch).numpy().tolist() for batch in batches]}
"""

# Likewise the names that a JPEG file gets, decoded by TensorFlow in its own size.
CLASSIFY_A_JPEG = """
text = lambda array: [name.decode() for name in array.numpy().reshape(-1)]
pixels = tensorflow.io.decode_jpeg(tensorflow.io.read_file("image.jpg"))
named = model.classify(pixels[None])
answer |= {
    "class_name": text(named["class_name"]),
    "class_names": text(named["class_names"]),
    "probabilities": named["probabilities"].numpy().tolist(),
    "pixels": pixels.numpy().tolist(),
    "signatures": sorted(model.signatures),
}
try:
    model.classify(tensorflow.zeros((1, 8, 8, 2), "uint8"))
except tensorflow.errors.InvalidArgumentError as error:
    answer["two_channels"] = str(error)
"""
PRINTED = "print(json.dumps(answer))"


@pytest.fixture(scope="module")
def student():
    """A small network of the library with statistics and weights unlike the initial ones."""
    keras.utils.set_random_seed(20211)
    return shaken(
        networks.build("wrn10_1", (8, 8, 3), 4, mean=[0.4, 0.5, 0.6], std=[0.2, 0.25, 0.3])
    )


def shaken(student):
    generator = numpy.random.default_rng(3)
    for weight in student.weights:
        noise = generator.uniform(0.8, 1.2, weight.shape).astype("float32")
        weight.assign(keras.ops.convert_to_numpy(weight) * noise + 0.01)
    return student


def random_images(count, shape=(8, 8, 3), seed=0):
    return numpy.random.default_rng(seed).random((count, *shape), dtype="float32")


def logits_of(student, images):
    return keras.ops.convert_to_numpy(student(images, training=False))


def elsewhere(program, path, images, folder):
    """What a program in a process of its own prints, which cannot import this package."""
    numpy.save(folder / "images.npy", images)
    finished = subprocess.run(
        [sys.executable, "-c", program + PRINTED, str(path)],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


@pytest.mark.slow
def test_plain_tensorflow_gives_logits_for_any_batch_size_and_names_a_jpeg_of_another_size(
    student, tmp_path, capfd
):
    target, names = tmp_path / "deep" / "saved_model", ["cat", "dog", "hen", "cow"]
    capfd.readouterr()
    assert export.export_saved_model(student, target, class_names=names) == target
    assert capfd.readouterr().out == ""
    assert os.listdir(target.parent) == ["saved_model"]
    rows, columns = numpy.mgrid[0:37, 0:51]
    pixels = numpy.stack([5 * columns, 6 * rows, 255 - 5 * columns], -1).clip(0, 255)
    Image.fromarray(pixels.astype("uint8")).save(tmp_path / "image.jpg")
    images = random_images(5)
    answer = elsewhere(PLAIN_TENSORFLOW + CLASSIFY_A_JPEG, target, images, tmp_path)
    expected = logits_of(student, images)
    for logits in answer["logits"]:
        numpy.testing.assert_allclose(logits, expected[: len(logits)], atol=1e-5, rtol=1e-5)
    # The same pixels through this package's own resizing, softmax by hand.
    small = resizing.resized(numpy.array([answer["pixels"]], "uint8"), 8) / numpy.float32(255)
    logits = logits_of(student, small.astype("float32"))[0].astype("float64")
    probabilities = numpy.exp(logits) / numpy.exp(logits).sum()
    # Pillow rounds to bytes between rows and columns; nothing else may differ.
    numpy.testing.assert_allclose(answer["probabilities"][0], probabilities, atol=0.01)
    assert answer["class_name"] == [names[probabilities.argmax()]]
    assert answer["class_names"] == names
    assert {"serve", "classify"} <= set(answer["signatures"])
    assert "with c 1 or 3" in answer["two_channels"]


@pytest.mark.slow
@pytest.mark.backend("tensorflow")
@hypothesis.given(
    strategies.tuples(strategies.integers(1, 40), strategies.integers(1, 40)),
    strategies.sampled_from([(1, 1), (1, 3), (3, 1), (3, 3)]),
    strategies.integers(0, 9),
)
@hypothesis.settings(max_examples=40)
def test_images_are_prepared_as_a_folders_are(size, channels, seed):
    given, wanted = channels
    raw = numpy.random.default_rng(seed).integers(0, 256, (2, *size, given), "uint8")
    expected = resizing.resized(resizing.with_channels(raw, wanted), 8)
    prepared = saved_model._prepared(raw, (8, 8, wanted)).numpy()
    assert prepared.shape == (2, 8, 8, wanted)
    # Half a byte of Pillow's rounding between rows and columns can tip the last rounding over.
    assert numpy.abs(prepared * 255 - expected).max() <= 1.001


@pytest.mark.backend("tensorflow")
def test_a_image_of_the_right_size_is_only_scaled():
    raw = numpy.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), "uint8")
    numpy.testing.assert_allclose(saved_model._prepared(raw, (8, 8, 3)), raw / 255, atol=1e-6)


@pytest.mark.slow
def test_every_format_computes_what_the_student_computes(student, tmp_path):
    images, calibration = random_images(20), random_images(30, seed=1)
    targets = {name: export.target(tmp_path / "student", name) for name in export.FORMATS}
    results = export.export_student(student, targets, images, calibration)
    assert [result["format"] for result in results] == list(export.FORMATS)
    for result in results:
        path = targets[result["format"]]
        assert result["file"] == str(path)
        assert result["bytes"] == writing.size_on_disk(path) > 10_000
        assert result["latency_ms"] > 0
        exact = result["format"] != "litert_int8"
        assert (result["max_difference"] < 1e-4) == exact
        assert result["agreement"] == 1 if exact else result["agreement"] > 0.8
    assert set(os.listdir(tmp_path)) == {path.name for path in targets.values()}
    assert os.path.getsize(targets["litert_int8"]) < os.path.getsize(targets["litert"]) / 2

    # What a user of the files gets, by the plain runtimes.
    import onnxruntime
    from ai_edge_litert.interpreter import Interpreter

    expected = logits_of(student, images)
    session = onnxruntime.InferenceSession(targets["onnx"], providers=["CPUExecutionProvider"])
    assert [entry.name for entry in session.get_inputs()] == ["picture"]
    logits = session.run(["logits"], {"picture": images})[0]
    numpy.testing.assert_allclose(logits, expected, atol=1e-4)
    runner_ = Interpreter(model_path=str(targets["litert"])).get_signature_runner()
    logits = runner_(picture=images[:1])["logits"]
    numpy.testing.assert_allclose(logits, expected[:1], atol=1e-4)
    runner_ = Interpreter(model_path=str(targets["litert_int8"])).get_signature_runner()
    scale, zero = runner_.get_input_details()["picture"]["quantization"]
    assert (scale, zero) == (pytest.approx(1 / 255), 0)  # bytes as they are in an image
    assert runner_(picture=(images[:1] * 255).astype("uint8"))["logits"].dtype == numpy.uint8


@pytest.mark.backend("tensorflow")
def test_pixels_have_classes_too(tmp_path):
    inputs = keras.Input((8, 8, 1))
    outputs = keras.layers.Conv2D(3, 3, padding="same")(inputs)
    student = shaken(keras.Model(inputs, outputs))
    targets = {name: export.target(tmp_path / "s", name) for name in ("saved_model", *PORTABLE)}
    images = random_images(4, (8, 8, 1))
    results = export.export_student(student, targets, images, images)
    assert [result["agreement"] for result in results[:3]] == [1, 1, 1]
    assert results[3]["agreement"] > 0.9

    import tensorflow

    restored = tensorflow.saved_model.load(str(targets["saved_model"]))
    assert restored.serve(images).shape == (4, 8, 8, 3)
    assert not hasattr(restored, "classify")  # one class name for an image is not its answer


@pytest.mark.backend("tensorflow")
def test_quantized_values_by_hand():
    details = {"dtype": numpy.uint8, "quantization": (0.5, 10)}
    values = numpy.array([-5.0, 0.0, 0.7, 122.5, 200.0])
    assert litert._quantized(values, details).tolist() == [0, 10, 11, 255, 255]
    assert litert._real(numpy.array([0, 10, 12], "uint8"), details).tolist() == [-5, 0, 1]


def test_the_largest_difference_by_hand():
    actual = numpy.array([[1.0, 2.0], [3.0, 1.0], [0.0, 5.0]])
    expected = numpy.array([[1.0, 2.5], [3.0, 4.0], [0.0, 5.0]])
    assert comparison.largest_difference(actual, expected) == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("saved_model", ("saved_model",)),
        ("onnx, saved_model,onnx", ("saved_model", "onnx")),
        ("litert_int8,keras", ("keras", "litert_int8")),
    ],
)
def test_formats_are_named_with_commas(text, expected):
    assert export.parse(text) == expected


@pytest.mark.parametrize("text", ["", "tflite", "onnx,,litert"])
def test_what_is_no_format_is_named(text):
    with pytest.raises(InputError, match="--export: expected some of keras, saved_model, onnx"):
        export.parse(text)
    with pytest.raises(InputError, match="--export: expected some of keras, saved_model, onnx"):
        export.check(text.split(","))


@pytest.mark.parametrize(
    ("text", "meant"),
    [("tflite", "litert"), ("onnx,TFLite_int8", "litert_int8"), ("onnxruntime", None)],
)
def test_tensorflow_lite_is_found_under_its_new_name(text, meant):
    with pytest.raises(InputError) as caught:
        export.parse(text)
    hint = f"; did you mean {meant}? TensorFlow Lite is called LiteRT now" if meant else ""
    assert str(caught.value).endswith(f"Received: '{text}'{hint}")


def test_a_missing_package_is_named_with_the_file_that_installs_it(monkeypatch):
    hide(monkeypatch, "tf2onnx", "ai_edge_litert")
    export.check(["saved_model", "keras"])
    with pytest.raises(InputError, match="tf2onnx, which the extra onnx installs"):
        export.check(["saved_model", "onnx"])
    for name in ("litert", "litert_int8"):
        with pytest.raises(InputError, match=f"--export={name}: expected ai-edge-litert"):
            export.check([name])


def test_names_and_calibration_must_fit(student, tmp_path):
    with pytest.raises(InputError, match="expected 4 class names.* Received: 2"):
        export.export_saved_model(student, tmp_path / "out", class_names=["a", "b"])
    with pytest.raises(InputError, match="calibration images"):
        export.export_student(student, {"litert_int8": tmp_path / "out.tflite"})
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(InputError, match="a new file or an older one"):
        export.export_student(student, {"onnx": tmp_path / "folder.onnx"})
    assert os.listdir(tmp_path) == ["folder.onnx"]


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
@pytest.mark.long
def test_the_keras_file_of_the_run_is_used_where_it_is_given(student, tmp_path):
    student.save(tmp_path / "student.keras")
    export.export_saved_model(student, tmp_path / "out", keras_path=tmp_path / "student.keras")
    assert sorted(os.listdir(tmp_path)) == ["out", "student.keras"]


@pytest.mark.slow
def test_export_command_on_a_run_and_on_a_file(student, tmp_path, capsys):
    student.save(tmp_path / "student.keras")
    assert runner.run(command.main, "export", [f"--run_dir={tmp_path}"]) == 0
    assert (tmp_path / "saved_model" / "saved_model.pb").is_file()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["format", "file", "bytes"]
    assert lines[1].split()[:2] == ["saved_model", "saved_model"]
    arguments = [f"--student={tmp_path / 'student.keras'}", f"--out={tmp_path / 'other'}"]
    formats = "--export=saved_model,litert_int8"
    assert runner.run(command.main, "export", [*arguments, formats, "--ood=digits[5-9]"]) == 0
    assert (tmp_path / "other" / "saved_model.pb").is_file()
    assert (tmp_path / "other_int8.tflite").stat().st_size > 10_000
    capsys.readouterr()
    assert runner.run(command.main, "export", [*arguments, formats]) == 2
    assert runner.run(command.main, "export", [f"--run_dir={tmp_path}", formats]) == 2
    assert runner.run(command.main, "export", [f"--run_dir={tmp_path}", "--ood=digits"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert "with --student expected --ood" in errors[0]
    assert "calibration images" in errors[1]
    assert "--ood with --student only" in errors[2] and len(errors) == 3


def test_a_file_that_is_no_model_is_an_input_error(tmp_path, capsys):
    broken = tmp_path / "student.keras"
    broken.write_text("not a model")
    with pytest.raises(InputError, match="safe mode"):
        export.load_student(broken)
    assert runner.run(command.main, "export", [f"--run_dir={tmp_path}"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.long
@pytest.mark.backend("jax", "torch")
def test_a_file_that_is_no_model_is_named_by_the_tensorflow_process(student, tmp_path):
    (tmp_path / "student.keras").write_text("not a model")
    with pytest.raises(export.ExportError, match="safe mode"):
        export.export_saved_model(student, tmp_path / "out", tmp_path / "student.keras")
    assert os.listdir(tmp_path) == ["student.keras"]


@pytest.mark.long
@pytest.mark.backend("jax", "torch")
def test_another_students_file_is_noticed(student, tmp_path):
    other = networks.build("wrn10_1", (8, 8, 3), 4, mean=0.5, std=0.25)
    other.save(tmp_path / "other.keras")
    with pytest.raises(export.ExportError, match="the student on its own backend"):
        export.export_saved_model(student, tmp_path / "out", tmp_path / "other.keras")
    assert os.listdir(tmp_path) == ["other.keras"]


@pytest.mark.backend("tensorflow")
def test_code_in_a_file_is_not_run(tmp_path):
    layers = [keras.Input((4, 4, 1)), keras.layers.Lambda(lambda x: x), keras.layers.Flatten()]
    keras.Sequential(layers).save(tmp_path / "student.keras")
    with pytest.raises(InputError, match="safe mode"):
        export.load_student(tmp_path / "student.keras")


@pytest.mark.long_on("jax")
@pytest.mark.backend("jax", "torch")
def test_without_tensorflow_the_student_is_kept_and_the_later_command_named(
    student, tmp_path, monkeypatch
):
    hide(monkeypatch, "tensorflow")
    target = tmp_path / "saved_model"
    kept = tmp_path / "saved_model.keras"
    wanted = f"bin/export --student={kept} --out={target}"
    with pytest.raises(export.ExportError, match=wanted):
        export.export_saved_model(student, target)
    assert os.listdir(tmp_path) == ["saved_model.keras"]
    with pytest.raises(InputError, match="--export=saved_model: expected tensorflow"):
        export.check(["saved_model"])


def hide(monkeypatch, *packages):
    """Makes packages look as if they were not installed."""
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name in packages else find_spec(name, *rest),
    )


@pytest.mark.slow
@pytest.mark.backend("tensorflow")
def test_a_saved_model_that_differs_is_not_kept(student, tmp_path, monkeypatch):
    right = comparison.outputs
    monkeypatch.setattr(writing, "outputs", lambda *arguments: right(*arguments) + 0.5)
    for name in ("saved_model", "onnx", "litert"):
        with pytest.raises(export.ExportError, match="a difference of 5.0e-01"):
            export.export_student(student, {name: tmp_path / "out"})
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
@pytest.mark.backend("tensorflow")
def test_a_classify_that_differs_is_not_kept(student, tmp_path, monkeypatch):
    prepared = saved_model._prepared
    monkeypatch.setattr(saved_model, "_prepared", lambda *given: prepared(*given)[:, ::-1])
    with pytest.raises(export.ExportError, match="classify and the student"):
        export.export_saved_model(student, tmp_path / "out")
    assert os.listdir(tmp_path) == []


def test_not_a_number_is_a_difference(student, tmp_path):
    with pytest.raises(export.ExportError, match="nan"):
        comparison.compare(numpy.array([numpy.nan]), numpy.array([0.0]), 1e-5, "the student")


def test_several_inputs_are_refused(tmp_path):
    inputs = [keras.Input((4,)), keras.Input((4,))]
    model = keras.Model(inputs, keras.layers.Add()(inputs))
    with pytest.raises(InputError, match="one input"):
        export.export_saved_model(model, tmp_path / "out")


@pytest.mark.slow
def test_bfloat16_student(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        student = networks.build("wrn10_1", (8, 8, 3), 4, mean=0.5, std=0.25)
    finally:
        keras.config.set_dtype_policy("float32")
    assert comparison.tolerance(student) == comparison.TOLERANCES["bfloat16"]
    targets = {"saved_model": tmp_path / "out", "onnx": tmp_path / "out.onnx"}
    results = export.export_student(student, targets)
    assert sorted(os.listdir(tmp_path)) == ["out", "out.onnx"]
    # ONNX computes in float32: as the student does with its policy changed, to the last digits.
    assert 0 < results[1]["max_difference"] < 5e-2


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
import pathlib
target = pathlib.Path(sys.argv[1])
export.export_student(student, {"saved_model": target, "onnx": target.with_suffix(".onnx")})
"""


@pytest.mark.backend("tensorflow")
@pytest.mark.long
def test_student_of_a_mirrored_run(tmp_path):
    finished = subprocess.run(
        [sys.executable, "-c", MIRRORED, str(tmp_path / "out")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    images = numpy.zeros((5, 8, 8, 3), "float32")
    answer = elsewhere(PLAIN_TENSORFLOW, tmp_path / "out", images, tmp_path)
    assert numpy.shape(answer["logits"][0]) == (1, 4)


def of_flips():
    """A student that flips its images where it is not told that nothing is trained."""
    keras.utils.set_random_seed(4)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.RandomFlip("horizontal"),
            Scale(3.0),
            layers.Flatten(),
            layers.Dense(4),
        ]
    )


@keras.saving.register_keras_serializable(package="test_export")
class Scale(keras.layers.Layer):
    """A layer of one's own that knows nothing of dtypes."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def call(self, inputs):
        return inputs * self.factor

    def get_config(self):
        return {"factor": self.factor}


@pytest.mark.backend("tensorflow")
def test_a_student_is_exported_as_it_predicts(tmp_path):
    student = of_flips()
    targets = {name: tmp_path / name for name in ("keras", "saved_model", "onnx", "litert")}
    for export_ in export.export_student(student, targets, random_images(8)):
        assert export_["agreement"] == 1 and export_["max_difference"] < 1e-5


class Stubborn(Scale):
    """One that cannot be made again."""

    def get_config(self):
        return {"factors": self.factor}


@pytest.mark.backend("tensorflow")
def test_a_format_that_cannot_be_made_leaves_the_others(tmp_path):
    student = keras.Sequential(
        [keras.Input((8, 8, 3)), Stubborn(2.0), keras.layers.Flatten(), keras.layers.Dense(4)]
    )
    targets = {name: tmp_path / name for name in ("onnx", "saved_model", "litert")}
    with pytest.raises(export.ExportError, match="Received: 'stubborn'.*; .*'stubborn'") as caught:
        export.export_student(student, targets)
    assert [written["format"] for written in caught.value.written] == ["saved_model"]
    assert os.listdir(tmp_path) == ["saved_model"]


def test_a_student_that_is_not_square_is_not_compared_on_squares(tmp_path, capsys):
    layers = keras.layers
    keras.Sequential([keras.Input((8, 12, 3)), layers.Flatten(), layers.Dense(2)]).save(
        tmp_path / "wide.keras"
    )
    Image.new("RGB", (20, 20)).save(tmp_path / "image.png")
    arguments = [
        f"--student={tmp_path / 'wide.keras'}",
        f"--out={tmp_path / 'out'}",
        f"--ood=folder:{tmp_path}",
        "--export=keras",
    ]
    assert runner.run(command.main, "export", arguments) == 2
    assert "--ood expected a student of square images. Received: one of 8x12" in (
        capsys.readouterr().err
    )
