"""Packages that only some jobs need: a missing one is one line, their own talk is none."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import sys
import tempfile
from collections.abc import Iterator

from keras_mosaickd.errors import InputError

# Module -> its package and the extra of pyproject.toml that installs it.
_EXTRAS = {
    "tensorflow": ("tensorflow", "tensorflow"),
    "jax": ("jax", "jax"),
    "torch": ("torch", "torch"),
    "keras_tuner": ("keras-tuner", "tune"),
    "sklearn": ("scikit-learn", "datasets"),
    "tensorflow_datasets": ("tensorflow-datasets", "datasets"),
    "matplotlib": ("matplotlib", "report"),
    "onnxruntime": ("onnxruntime", "onnx"),
    "tf2onnx": ("tf2onnx", "onnx"),
    "ai_edge_litert": ("ai-edge-litert", "litert"),
    "safetensors": ("safetensors", "safetensors"),
    "huggingface_hub": ("huggingface_hub", "hub"),
}


def is_installed(module: str) -> bool:
    """Whether a module is there to be imported; it is not imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def require(what: str, *modules: str) -> None:
    """Asks for packages before the work that needs them; imports none.

    Args:
        what: What needs them, as a message begins: a flag with its value, or a command.
        *modules: Names of modules as they are imported.

    Raises:
        InputError: One is not installed. The message names its extra.
    """
    for module in modules:
        if not is_installed(module):
            package, extra = _EXTRAS[module]
            raise InputError(
                f"{what}: expected {package}, which the extra {extra} installs "
                f"(pip install '.[{extra}]' in the checkout). Received: it is not installed"
            )


# What C++ says before a log level can be set: TensorFlow while it is loaded (information, and error
# 303, which is how it learns that there is no GPU driver), and LiteRT whenever it works.
_NOISE = re.compile(
    r"I\d{4} |WARNING: All log messages before absl::|To enable the following instructions|"
    r".*failed call to cuInit.*\(303\)|INFO: Created TensorFlow Lite|fully_quantize: \d"
)


@contextlib.contextmanager
def without_noise() -> Iterator[None]:
    """Holds back stderr, C++'s included, and afterwards passes on the lines that are no noise."""
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)
            captured.seek(0)
            for line in captured.read().decode(errors="replace").splitlines():
                if not _NOISE.match(line):
                    print(line, file=sys.stderr)
