"""Writes a student in every format that was asked for, runs what was written, and compares."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_mosaickd.errors import InputError
from keras_mosaickd.evaluation.image_quality import median_milliseconds
from keras_mosaickd.export import saved_model
from keras_mosaickd.export.comparison import (
    CROSS_BACKEND_TOLERANCE,
    OTHER_RUNTIME_TOLERANCE,
    ExportError,
    compare,
    in_batches,
    largest_difference,
    outputs,
    tolerance,
)
from keras_mosaickd.export.formats import FORMATS, Request
from keras_mosaickd.files import replacing
from keras_mosaickd.networks.heads import new_head

_BATCH = 64


def write(student: Any, request: Request) -> list[dict[str, Any]]:
    """Writes and checks every target; see `keras_mosaickd.export.export_student`."""
    if not request.targets:
        return []
    with saved_model.full_float32():
        expected = outputs(student, request.images)
    return all_written(
        partial(_written_one, student, name, request, expected) for name in request.targets
    )


def all_written(steps: Iterable[Callable[[], list[dict[str, Any]]]]) -> list[dict[str, Any]]:
    """Makes every step, also those after one that fails, and joins what they have written.

    Raises:
        ExportError: Of all that failed, with what was written.
    """
    written, failed = [], []
    for step in steps:
        try:
            written += step()
        except ExportError as error:
            written += error.written
            failed.append(error)
    if failed:
        raise ExportError("; ".join(map(str, failed)), written) from failed[0]
    return written


def _written_one(
    student: Any, name: str, request: Request, expected: np.ndarray
) -> list[dict[str, Any]]:
    try:
        return [_write_one(student, name, request, expected)]
    except (ExportError, InputError):
        raise
    except Exception as error:  # of whatever library writes the format
        first = (str(error).strip().splitlines() or [""])[0]
        raise ExportError(f"{name} cannot be made: {type(error).__name__}: {first}") from error


def _write_one(student: Any, name: str, request: Request, expected: np.ndarray) -> dict[str, Any]:
    path, images = request.targets[name], request.images
    head = new_head(request.head, student.output_shape[-1])
    original = expected if request.reference is None else request.reference
    with _replacing(path, FORMATS[name].suffix) as written:
        FORMATS[name].write(student, written, request)
        predict = FORMATS[name].load(written)
        with saved_model.full_float32():
            actual = in_batches(predict, images, _BATCH)
            if name != "litert_int8":
                allowed = _allowed(name, student)
                compare(actual, expected, allowed, f"{name} and the student")
                message = f"{name} and the student on its own backend"
                compare(actual, original, max(allowed, CROSS_BACKEND_TOLERANCE), message)
            if name == "saved_model":
                saved_model.check_classify(
                    student, written, images, request.head, tolerance(student)
                )
        return {
            "format": name,
            "file": str(path),
            "bytes": size_on_disk(written),
            "latency_ms": median_milliseconds(lambda: predict(images[:1])),
            "max_difference": largest_difference(actual, original),
            "agreement": float(keras.ops.mean(head.agreement(actual, original))),
        }


def _allowed(name: str, student: Any) -> float:
    """Largest relative difference between the student and an export in the same process."""
    if name in ("saved_model", "keras"):
        return tolerance(student)
    return max(tolerance(student), OTHER_RUNTIME_TOLERANCE)


def size_on_disk(path: Path) -> int:
    """Bytes of a file, or of all files in a directory."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def checked_target(name: str, path: Path) -> Path:
    """Returns the path, or raises InputError where something else than an older export is there."""
    if name == "saved_model":
        if "[" in str(path.absolute()):
            raise InputError(
                "expected a path without square brackets for a SavedModel, which TensorFlow takes "
                f"for a pattern when it loads one. Received: {path}"
            )
        is_ours = path.is_dir() and ((path / "saved_model.pb").is_file() or not any(path.iterdir()))
        wanted = "a new directory, an empty one or a SavedModel to write to"
    else:
        is_ours, wanted = path.is_file(), "a new file or an older one to write to"
    if os.path.lexists(path) and not is_ours:
        raise InputError(f"expected {wanted}. Received: {path}")
    return path


@contextlib.contextmanager
def _replacing(target: Path, suffix: str) -> Iterator[Path]:
    """A path to write to, which takes the target's place when all went well."""
    try:
        with replacing(target, suffix) as new:
            yield new
    except Exception as error:
        if reason := _why_not_written(error):
            raise ExportError(f"{target} cannot be written: {reason}") from error
        raise


def _why_not_written(error: Exception) -> str:
    """What the system said of a full disk and the like; empty for an error of another kind."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    # TensorFlow's errors are no OSError: "...; No space left on device [Op:SaveV2]".
    text = (str(error).strip().splitlines() or [""])[0].partition(" [Op:")[0].rpartition("; ")[2]
    return text if text in (os.strerror(errno.ENOSPC), os.strerror(errno.EFBIG)) else ""
