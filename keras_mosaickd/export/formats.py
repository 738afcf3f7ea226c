"""The formats by name: what each needs, and where it lies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from keras_mosaickd.errors import InputError
from keras_mosaickd.extras import require


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        suffix: What the path's name ends in.
        runtime: Package that runs it.
        converter: Package that writes it, besides TensorFlow.
    """

    suffix: str
    runtime: str
    converter: str

    @property
    def needs_tensorflow(self) -> bool:
        """Whether TensorFlow writes it, on whatever backend the student is."""
        return self.converter != "keras"


FORMATS = {
    "keras": Format(".keras", "keras", "keras"),
    "saved_model": Format("", "tensorflow", "tensorflow"),
    "onnx": Format(".onnx", "onnxruntime", "tf2onnx"),
    "litert": Format(".tflite", "ai_edge_litert", "tensorflow"),
    "litert_int8": Format("_int8.tflite", "ai_edge_litert", "tensorflow"),
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


def check(names: Iterable[str], flag: str = "--export") -> None:
    """Raises unless all are formats and their packages are installed.

    A SavedModel, which every run writes by default, is not asked for: where TensorFlow is missing
    the run keeps its ``.keras`` file and says so.

    Raises:
        InputError: A name that is no format; or a package is missing: the message names the extra
            that installs it.
    """
    names = tuple(names)
    unknown = [name for name in names if name not in FORMATS]
    if unknown:
        raise _unknown(unknown, ",".join(names), flag)
    for name in names:
        needed = [FORMATS[name].converter, FORMATS[name].runtime]
        if FORMATS[name].needs_tensorflow:
            needed = ["tensorflow", *needed]
        if name not in ("keras", "saved_model"):
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
