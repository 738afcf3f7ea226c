"""Packages that only some jobs need: asked for here, so that a missing one is one line."""

from __future__ import annotations

import importlib.util

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
