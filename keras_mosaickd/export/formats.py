"""The formats by name: what each needs, how it is written and loaded, and where it lies."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_mosaickd.errors import InputError
from keras_mosaickd.export import keras_file, litert, onnx, saved_model
from keras_mosaickd.extras import is_installed, require


@dataclasses.dataclass(frozen=True)
class Request:
    """What is to be written, and with what it is compared.

    Attributes:
        targets: Path by format.
        images: float32 [n, h, w, c] in [0, 1], to compare on.
        calibration: Such images for quantization, or None.
        class_names: One per class.
        head: "classes" or "labels" (see `keras_mosaickd.networks.heads`).
        reference: The student's outputs for ``images`` on its own backend, where that is not
            this process's; or None.
    """

    targets: Mapping[str, Path]
    images: np.ndarray
    calibration: np.ndarray | None
    class_names: Sequence[str]
    head: str = "classes"
    reference: np.ndarray | None = None

    def but(self, **changes: Any) -> Request:
        """The request with some attributes changed."""
        return dataclasses.replace(self, **changes)


@dataclasses.dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        suffix: What the path's name ends in.
        runtime: Package that runs it.
        converter: Package that writes it, besides TensorFlow.
        write: Writes a student to a path as a `Request` asks.
        load: Gives, for a path, a function from images [n, h, w, c] in [0, 1] to logits.
    """

    suffix: str
    runtime: str
    converter: str
    write: Callable[[Any, Path, Request], None]
    load: Callable[[Path], Callable[[np.ndarray], np.ndarray]]

    @property
    def needs_tensorflow(self) -> bool:
        """Whether TensorFlow writes it, on whatever backend the student is."""
        return self.converter != "keras"


FORMATS = {
    "keras": Format(
        suffix=".keras",
        runtime="keras",
        converter="keras",
        write=lambda student, path, request: keras_file.write(student, path),
        load=keras_file.load,
    ),
    "saved_model": Format(
        suffix="",
        runtime="tensorflow",
        converter="tensorflow",
        write=lambda student, path, request: saved_model.write(
            student, path, request.class_names, request.head
        ),
        load=saved_model.load,
    ),
    "onnx": Format(
        suffix=".onnx",
        runtime="onnxruntime",
        converter="tf2onnx",
        write=lambda student, path, request: onnx.write(student, path),
        load=onnx.load,
    ),
    "litert": Format(
        suffix=".tflite",
        runtime="ai_edge_litert",
        converter="tensorflow",
        write=lambda student, path, request: litert.write(student, path),
        load=litert.load,
    ),
    "litert_int8": Format(
        suffix="_int8.tflite",
        runtime="ai_edge_litert",
        converter="tensorflow",
        write=lambda student, path, request: litert.write(student, path, request.calibration),
        load=litert.load,
    ),
}

# TensorFlow Lite is called LiteRT since 2024; its files still end in .tflite.
_FORMER_NAMES = {"tflite": "litert", "tflite_int8": "litert_int8"}


def parse(text: str, flag: str = "--export") -> tuple[str, ...]:
    """Splits ``saved_model,onnx`` into names of formats, each once, in the order of `FORMATS`.

    Raises:
        InputError: A name that is no format, or none at all.
    """
    given = [name.strip() for name in text.split(",")]
    unknown = [name for name in given if name not in FORMATS]
    if unknown:
        raise _unknown(unknown, text, flag)
    return tuple(name for name in FORMATS if name in given)


def of_a_run(names: Iterable[str]) -> tuple[str, ...]:
    """The formats that a run writes of those it was told to.

    Every run writes a SavedModel unless it is told otherwise; where TensorFlow, which writes it, is
    not installed it is left out.
    """
    possible = FORMATS if is_installed("tensorflow") else [*FORMATS.keys() - {"saved_model"}]
    return tuple(name for name in names if name in possible)


def check(names: Iterable[str], flag: str = "--export") -> None:
    """Raises unless all are formats and their packages are installed.

    Raises:
        InputError: A name that is no format; or a package is missing: the message names the extra
            that installs it.
    """
    names = tuple(names)
    unknown = [name for name in names if name not in FORMATS]
    if unknown:
        raise _unknown(unknown, ",".join(names), flag)
    for name in names:
        # First what an extra of its own installs, TensorFlow with it.
        needed = [FORMATS[name].runtime, FORMATS[name].converter]
        if FORMATS[name].needs_tensorflow:
            needed.append("tensorflow")
        require(f"{flag}={name}", *needed)


def target(base: Path, name: str) -> Path:
    """The path of a format beside others of the same base: ``student`` gives ``student.onnx``."""
    return base.with_name(base.name + FORMATS[name].suffix)


def _unknown(names: Sequence[str], received: str, flag: str) -> InputError:
    new = next((_FORMER_NAMES[name.lower()] for name in names if name.lower() in _FORMER_NAMES), "")
    hint = f"; did you mean {new}? TensorFlow Lite is called LiteRT now" if new else ""
    return InputError(
        f"{flag}: expected some of {', '.join(FORMATS)}, with commas. Received: {received!r}{hint}"
    )
