"""A student as a TensorFlow SavedModel, from any backend.

On TensorFlow the model is exported where it is. On JAX and PyTorch it is saved as ``.keras`` and
exported by a fresh process on the TensorFlow backend, so that all three end in the same SavedModel.
What was written is loaded by plain TensorFlow and compared with the student before it takes its
place.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keras_mosaickd.errors import InputError

# Largest difference allowed between student and SavedModel, relative to max(1, largest logit), by
# the networks' arithmetic. In 16 bits eager and graph mode round intermediate results differently.
TOLERANCES = {"float64": 1e-5, "float32": 1e-5, "float16": 1e-2, "bfloat16": 5e-2}

# Between two backends, which may compute on an accelerator with reduced precision: tells the
# student's weights from wrong ones, not one rounding from another.
CROSS_BACKEND_TOLERANCE = 5e-2

# Side length in pixels of the comparison's pictures where the student takes any.
_ANY_SIZE = 32


class ExportError(RuntimeError):
    """A SavedModel could not be written, or does not compute what the student computes."""


def export_saved_model(
    student: Any, path: str | os.PathLike[str], keras_path: str | os.PathLike[str] | None = None
) -> Path:
    """Writes ``student`` as a SavedModel whose batch size is free.

    Args:
        student: Built Keras model with one input, [n, h, w, c] float32 in [0, 1], and logits out.
        path: Directory of the SavedModel. An older SavedModel there is replaced; the new one
            appears whole or not at all.
        keras_path: The student's ``.keras`` file where there is one already (JAX and PyTorch
            export from it).

    Returns:
        ``path``.

    Raises:
        InputError: ``path`` holds something else than a SavedModel, or the student has several
            inputs or outputs.
        ExportError: TensorFlow is not installed (the ``.keras`` file is then kept and named), or
            the SavedModel differs from the student by more than `TOLERANCES`.
    """
    import keras

    target = _checked_target(path)
    pictures = _random_pictures(student)
    if keras.backend.backend() == "tensorflow":
        _write(student, target, pictures)
        return target
    if importlib.util.find_spec("tensorflow") is None:
        kept = Path(keras_path) if keras_path is not None else _sibling_keras(target)
        if keras_path is None:
            student.save(kept)
        raise _tensorflow_missing(kept, target)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(keras_path) if keras_path is not None else Path(folder) / "student.keras"
        if keras_path is None:
            student.save(source)
        _export_in_tensorflow_process(source, target, _outputs(student, pictures))
    return target


def export_file(keras_path: str | os.PathLike[str], path: str | os.PathLike[str]) -> Path:
    """Writes the model of a ``.keras`` file as a SavedModel; see `export_saved_model`.

    Raises:
        InputError: The file cannot be loaded in Keras's safe mode, besides the above.
    """
    import keras

    target = _checked_target(path)
    if keras.backend.backend() == "tensorflow":
        return export_saved_model(load_student(keras_path), target)
    if importlib.util.find_spec("tensorflow") is None:
        raise _tensorflow_missing(Path(keras_path), target)
    _export_in_tensorflow_process(Path(keras_path), target, None)
    return target


def load_student(keras_path: str | os.PathLike[str]) -> Any:
    """Loads a ``.keras`` file, in safe mode: no code from the file is run.

    Raises:
        InputError: The file cannot be read as a Keras model.
    """
    # Registers the layers of this package's own networks.
    import keras_mosaickd.networks  # noqa: F401
    from keras_mosaickd.loading import load_model

    return load_model(keras_path, "the student")


def _random_pictures(student: Any) -> Any:
    """Returns three random pictures, [3, h, w, c] float32 in [0, 1], that the student takes."""
    import numpy

    shape = student.input_shape
    if not isinstance(shape, tuple) or not isinstance(student.output_shape, tuple):
        raise InputError(
            f"expected a student with one input and one output. Received: inputs {shape}, outputs "
            f"{student.output_shape}"
        )
    sizes = [_ANY_SIZE if size is None else size for size in shape[1:]]
    return numpy.random.default_rng(0).random((3, *sizes), dtype=numpy.float32)


def _outputs(student: Any, pictures: Any) -> Any:
    import keras

    outputs = keras.ops.convert_to_numpy(student(pictures, training=False))
    return outputs.astype("float32")


def _tolerance(student: Any) -> float:
    layers, tolerance = [student], 0.0
    while layers:
        layer = layers.pop()
        layers += getattr(layer, "layers", [])
        tolerance = max(tolerance, TOLERANCES.get(str(layer.compute_dtype), 1e-5))
    return tolerance


def _write(student: Any, target: Path, pictures: Any, reference: Any = None) -> None:
    """Exports on the TensorFlow backend, compares, and moves the result into its place."""
    import keras
    import tensorflow

    signature = [keras.InputSpec(shape=(None, *student.input_shape[1:]), dtype="float32")]
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        written = temporary / "new"
        with contextlib.redirect_stdout(io.StringIO()):
            student.export(
                written, format="tf_saved_model", verbose=False, input_signature=signature
            )
        with _full_float32(tensorflow):
            restored = tensorflow.saved_model.load(str(written))  # owns the variables
            for count in (1, 3):
                batch = pictures[:count]
                actual = restored.serve(tensorflow.constant(batch)).numpy()
                expected = _outputs(student, batch)
                _compare(actual, expected, _tolerance(student), "the student")
                if reference is not None:
                    message = "the student on its own backend"
                    _compare(actual, reference[:count], CROSS_BACKEND_TOLERANCE, message)
        if target.exists():
            os.rename(target, temporary / "old")
        os.rename(written, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def _full_float32(tensorflow: Any) -> Iterator[None]:
    """Switches off TF32, with which a GPU's float32 convolutions keep ten bits only."""
    execution = tensorflow.config.experimental
    before = execution.tensor_float_32_execution_enabled()
    execution.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        execution.enable_tensor_float_32_execution(before)


def _compare(actual: Any, expected: Any, tolerance: float, name: str) -> None:
    import numpy

    largest = float(numpy.max(numpy.abs(actual - expected)))
    allowed = tolerance * max(1.0, float(numpy.max(numpy.abs(expected))))
    if not largest <= allowed:  # NaN included
        raise ExportError(
            f"expected the SavedModel to give the outputs of {name} within {allowed:.1e}. "
            f"Received: a difference of {largest:.1e}"
        )


def _export_in_tensorflow_process(source: Path, target: Path, reference: Any) -> None:
    import numpy

    package_parent = str(Path(__file__).resolve().parent.parent)
    environment = dict(os.environ, KERAS_BACKEND="tensorflow", TF_CPP_MIN_LOG_LEVEL="2")
    # The export is a matter of seconds on the CPU, and the accelerator's memory may be taken by
    # the process that waits for it.
    environment["CUDA_VISIBLE_DEVICES"] = "-1"
    paths = [package_parent, environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "keras_mosaickd.export", str(source), str(target)]
        if reference is not None:
            outputs = Path(folder) / "outputs.npy"
            numpy.save(outputs, reference)
            command.append(str(outputs))
        finished = subprocess.run(command, env=environment, capture_output=True, text=True)
    if finished.returncode != 0:
        lines = finished.stderr.strip().splitlines() or [f"exit status {finished.returncode}"]
        raise ExportError(f"the export by TensorFlow of {source} failed: {lines[-1]}")


def _tensorflow_missing(kept: Path, target: Path) -> ExportError:
    return ExportError(
        f"a SavedModel needs TensorFlow, which is not installed. The student is kept in {kept}; "
        f"after installing TensorFlow: bin/export --student={kept} --out={target}"
    )


def _sibling_keras(target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    return target.with_name(f"{target.name}.keras")


def _checked_target(path: str | os.PathLike[str]) -> Path:
    target = Path(path)
    is_ours = target.is_dir() and (
        (target / "saved_model.pb").is_file() or not any(target.iterdir())
    )
    if os.path.lexists(target) and not is_ours:
        raise InputError(
            f"expected a new directory, an empty one or a SavedModel to write to. Received: {path}"
        )
    return target


def main(arguments: list[str]) -> int:
    """Exports in this process: ``IN.keras OUT [OUTPUTS.npy]``, outputs for the random pictures."""
    import numpy

    source, target = arguments[0], _checked_target(arguments[1])
    try:
        student = load_student(source)
        reference = numpy.load(arguments[2]) if len(arguments) > 2 else None
        _write(student, target, _random_pictures(student), reference)
    except (InputError, ExportError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
