"""What a student computes, and how far an export may be from it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from keras_mosaickd.backend.operations import without_gradient
from keras_mosaickd.errors import InputError

# Largest difference allowed between a student and its export, relative to max(1, largest logit), by
# the networks' arithmetic. In 16 bits eager and graph mode round intermediate results differently.
TOLERANCES = {"float64": 1e-5, "float32": 1e-5, "float16": 1e-2, "bfloat16": 5e-2}

# For another runtime, which fuses layers and sums in another order.
OTHER_RUNTIME_TOLERANCE = 1e-4

# Between two backends, which may compute on an accelerator with reduced precision: tells the
# student's weights from wrong ones, not one rounding from another.
CROSS_BACKEND_TOLERANCE = 5e-2

# Side length in pixels of random images where the student takes any.
_ANY_SIZE = 32
_BATCH = 64


class ExportError(RuntimeError):
    """An export could not be written, or does not compute what the student computes.

    Attributes:
        written: What was written beside it, as `keras_mosaickd.export.export_student` returns it.
    """

    def __init__(self, message: str, written: Iterable[dict[str, Any]] = ()):
        super().__init__(message)
        self.written = list(written)


def random_images(student: Any) -> np.ndarray:
    """Three random images, [3, h, w, c] float32 in [0, 1], that the student takes.

    Raises:
        InputError: The student has several inputs or outputs.
    """
    shape = student.input_shape
    if not isinstance(shape, tuple) or not isinstance(student.output_shape, tuple):
        raise InputError(
            f"expected a student with one input and one output. Received: inputs {shape}, outputs "
            f"{student.output_shape}"
        )
    sizes = [_ANY_SIZE if size is None else size for size in shape[1:]]
    return np.random.default_rng(0).random((3, *sizes), dtype=np.float32)


@without_gradient
def outputs(student: Any, images: np.ndarray) -> np.ndarray:
    """The student's logits in inference mode, float32 [n, ..., classes]."""
    return in_batches(
        lambda batch: keras.ops.convert_to_numpy(student(batch, training=False)), images, _BATCH
    )


def in_batches(predict: Any, images: np.ndarray, size: int) -> np.ndarray:
    """What a function from images to logits gives for ``size`` images at a time, as float32."""
    starts = range(0, len(images), size)
    parts = [np.asarray(predict(images[start : start + size]), "float32") for start in starts]
    return np.concatenate(parts)


def tolerance(student: Any) -> float:
    """The entry of `TOLERANCES` for the least precise layer."""
    layers, allowed = [student], 0.0
    while layers:
        layer = layers.pop()
        layers += getattr(layer, "layers", [])
        allowed = max(allowed, TOLERANCES.get(str(layer.compute_dtype), 1e-5))
    return allowed


def largest_difference(actual: np.ndarray, expected: np.ndarray) -> float:
    """The largest absolute difference; NaN where there is one."""
    return float(np.max(np.abs(actual - expected)))


def compare(actual: np.ndarray, expected: np.ndarray, allowed: float, what: str) -> None:
    """Raises where a difference exceeds ``allowed`` times max(1, largest expected).

    Args:
        actual: What the export gives.
        expected: What the student gives.
        allowed: Relative tolerance.
        what: What is compared with what, for the message.

    Raises:
        ExportError: It does, or something is not a number.
    """
    largest = largest_difference(actual, expected)
    limit = allowed * max(1.0, float(np.max(np.abs(expected))))
    if not largest <= limit:  # NaN included
        raise ExportError(
            f"expected {what} to agree within {limit:.1e}. Received: a difference of {largest:.1e}"
        )
