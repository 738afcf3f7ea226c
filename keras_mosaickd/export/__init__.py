"""A student in the formats that it is shipped in, each run after writing and compared with it.

Formats other than ``.keras`` are written by TensorFlow. On that backend the student is exported
where it is; on JAX and PyTorch it is saved as ``.keras`` and exported by a fresh process on the
TensorFlow backend, so that all three end in the same files. What was written is run by the plain
runtime that will serve it and compared with the student before it takes its place.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_mosaickd.errors import InputError, program
from keras_mosaickd.export.comparison import ExportError, outputs, random_images
from keras_mosaickd.export.formats import FORMATS, Request, check, of_a_run, parse, target
from keras_mosaickd.export.process import in_tensorflow_process
from keras_mosaickd.export.writing import all_written, checked_target, write
from keras_mosaickd.extras import is_installed
from keras_mosaickd.networks.heads import new_head
from keras_mosaickd.networks.loading import load_model
from keras_mosaickd.networks.logits import student_head, student_logits, with_shapes

__all__ = [
    "FORMATS",
    "ExportError",
    "check",
    "export_saved_model",
    "export_student",
    "load_student",
    "of_a_run",
    "parse",
    "target",
]


def export_saved_model(
    student: Any,
    path: str | os.PathLike[str],
    keras_path: str | os.PathLike[str] | None = None,
    class_names: Sequence[str] | None = None,
    head: str = "auto",
) -> Path:
    """Writes ``student`` as a SavedModel whose batch size is free.

    Its endpoint ``serve`` takes images [n, h, w, c] float32 in [0, 1] and gives logits. That of a
    classifier has a second one, ``classify``: uint8 images of any size in, names and
    probabilities out.

    Args:
        student: Built Keras model with one input, [n, h, w, c] float32 in [0, 1], and logits out;
            of one that ends in a softmax or sigmoid the logits before it are exported.
        path: Directory of the SavedModel. An older SavedModel there is replaced; the new one
            appears whole or not at all.
        keras_path: The student's ``.keras`` file where there is one already (JAX and PyTorch
            export from it).
        class_names: One name per class; "0", "1" and so on by default.
        head: "classes", or "labels" where the logits are those of independent labels; "auto" goes
            by the softmax or sigmoid that the student ends in, and takes logits for classes.

    Returns:
        ``path``.

    Raises:
        InputError: ``path`` holds something else than a SavedModel, or the student has several
            inputs or outputs, another number of classes than names, or an end that contradicts
            ``head``.
        ExportError: TensorFlow is not installed (the ``.keras`` file is then kept and named), or
            the SavedModel does not compute what the student computes.
    """
    saved_model = checked_target("saved_model", Path(path))
    student, keras_path, head = _of_logits(student, keras_path, head)
    if not is_installed("tensorflow"):
        random_images(student)  # complains about a student that no later command could export
        kept = Path(keras_path) if keras_path is not None else _sibling_keras(saved_model)
        if keras_path is None:
            student.save(kept)
        raise ExportError(
            f"a SavedModel needs TensorFlow, which is not installed. The student is kept in {kept};"
            f" after installing TensorFlow: {program('export')} --student={kept} "
            f"--out={saved_model}"
        )
    targets = {"saved_model": saved_model}
    export_student(student, targets, class_names=class_names, keras_path=keras_path, head=head)
    return saved_model


def export_student(
    student: Any,
    targets: Mapping[str, str | os.PathLike[str]],
    images: Any = None,
    calibration: Any = None,
    class_names: Sequence[str] | None = None,
    keras_path: str | os.PathLike[str] | None = None,
    head: str = "auto",
) -> list[dict[str, Any]]:
    """Writes ``student`` in several formats, runs each and compares it with the student.

    Args:
        student: As for `export_saved_model`.
        targets: Path to write, by format (a key of `FORMATS`). What is there of the same format is
            replaced; the new one appears whole or not at all.
        images: [n, h, w, c] float32 in [0, 1] to compare on; by default three random ones.
        calibration: Such images, from which ``litert_int8`` takes the ranges of its activations.
        class_names: As for `export_saved_model`.
        keras_path: As for `export_saved_model`.
        head: As for `export_saved_model`.

    Returns:
        For each format, in the order of `FORMATS`, a dict of ``format``, ``file`` (its path),
        ``bytes`` (on disk), ``latency_ms`` (median of one prediction of one image), and, against
        the student, ``max_difference`` (largest difference of a logit) and ``agreement`` (share of
        images, or of pixels, with the same most probable class).

    Raises:
        InputError: A target that holds something else, a package that is missing, no calibration
            images for ``litert_int8``, or a student that cannot be exported.
        ExportError: An export cannot be written, or does not compute what the student computes;
            the other formats are written all the same, and are its ``written``. ``litert_int8``,
            whose loss is what ``agreement`` tells, is held to no limit.
    """
    check(targets)
    checked = {
        name: checked_target(name, Path(targets[name])) for name in FORMATS if name in targets
    }
    if "litert_int8" in checked and (calibration is None or not len(calibration)):
        raise InputError("litert_int8 needs calibration images. Received: none")
    student, keras_path, head = _of_logits(student, keras_path, head)
    random = random_images(student)
    request = Request(
        targets=checked,
        images=random if images is None else np.asarray(images, "float32"),
        calibration=calibration,
        class_names=_checked_names(class_names, student, head),
        head=head,
    )
    if keras.backend.backend() == "tensorflow":
        return write(student, request)
    elsewhere = {name: path for name, path in checked.items() if FORMATS[name].needs_tensorflow}
    here = {name: path for name, path in checked.items() if name not in elsewhere}

    def written_elsewhere() -> list[dict[str, Any]]:
        if not elsewhere:
            return []
        asked = request.but(targets=elsewhere, reference=outputs(student, request.images))
        with tempfile.TemporaryDirectory() as folder:
            source = keras_path or here.get("keras")
            if source is None:
                source = Path(folder) / "student.keras"
                student.save(source)
            return in_tensorflow_process(Path(source), asked, Path(folder))

    results = all_written([lambda: write(student, request.but(targets=here)), written_elsewhere])
    return sorted(results, key=lambda result: list(FORMATS).index(result["format"]))


def load_student(keras_path: str | os.PathLike[str]) -> Any:
    """Loads a ``.keras`` file, in safe mode: no code from the file is run.

    Raises:
        InputError: The file cannot be read as a Keras model.
    """
    return load_model(keras_path, "the student")


def _of_logits(student: Any, keras_path: Any, head: str) -> tuple[Any, Any, str]:
    """The student up to its logits, which every format gives; its own file, if any; its head."""
    if hasattr(student, "student"):
        raise InputError(
            f"expected the student by itself, model.student. Received: {type(student).__name__}"
        )
    shown = with_shapes(student)
    logits = student_logits(shown, random_images(shown).shape[1:], copies=True)
    head = student_head(shown, head)
    return logits, (keras_path if logits is student else None), head


def _checked_names(class_names: Sequence[str] | None, student: Any, head: str) -> list[str]:
    classes = new_head(head, student.output_shape[-1]).classes
    names = [str(index) for index in range(classes)] if class_names is None else list(class_names)
    if len(names) != classes:
        raise InputError(
            f"expected {classes} class names, one for each class of the student. "
            f"Received: {len(names)}"
        )
    return names


def _sibling_keras(saved_model: Path) -> Path:
    saved_model.parent.mkdir(parents=True, exist_ok=True)
    return saved_model.with_name(f"{saved_model.name}.keras")
