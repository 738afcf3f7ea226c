"""LiteRT, by TensorFlow's converter (TensorFlow backend only), run by ai-edge-litert on the CPU."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from keras_mosaickd.export.graph import graph
from keras_mosaickd.extras import without_noise


def write(student: Any, path: Path, calibration: np.ndarray | None = None) -> None:
    """Writes a model with one signature, from ``picture`` [1, h, w, c] to ``logits``.

    Args:
        student: Built Keras model.
        path: File to write.
        calibration: Where given, everything is quantized to 8-bit integers with activations in the
            ranges seen on these images, [n, h, w, c] float32 in [0, 1]; the model then takes
            bytes, as they are in an image, and gives bytes.
    """
    import tensorflow

    function, owner = graph(student, batch_size=1)
    converter = tensorflow.lite.TFLiteConverter.from_concrete_functions([function], owner)
    if calibration is not None:
        converter.optimizations = [tensorflow.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: _with_full_range(calibration)
        converter.target_spec.supported_ops = [tensorflow.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tensorflow.uint8
    with warnings.catch_warnings(), without_noise():
        # About another way of quantizing, which needs no calibration.
        warnings.filterwarnings("ignore", message="Statistics for quantized inputs were expected")
        path.write_bytes(converter.convert())


def load(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """A function from images to logits, which are quantized where the file is."""
    from ai_edge_litert.interpreter import Interpreter

    with without_noise():
        student = Interpreter(model_path=str(path)).get_signature_runner()
    image_details = student.get_input_details()["picture"]
    logits_details = student.get_output_details()["logits"]

    def predict(images: np.ndarray) -> np.ndarray:
        rows = [student(picture=_quantized(one[None], image_details)) for one in images]
        return np.concatenate([_real(row["logits"], logits_details) for row in rows])

    return predict


def _with_full_range(images: np.ndarray) -> Iterator[list[np.ndarray]]:
    """The images one by one, each with a black and a white value in its corner.

    So the input's range is all of [0, 1] whatever the images are, and its bytes are those of a
    image: n stands for n / 255.
    """
    for image in images:
        image = np.array(image, "float32")
        image[0, 0], image[-1, -1] = 0.0, 1.0
        yield [image[None]]


def _quantized(values: np.ndarray, details: dict[str, Any]) -> np.ndarray:
    if details["dtype"] == np.float32:
        return values
    scale, zero = details["quantization"]
    limits = np.iinfo(details["dtype"])
    return np.rint(values / scale + zero).clip(limits.min, limits.max).astype(details["dtype"])


def _real(values: np.ndarray, details: dict[str, Any]) -> np.ndarray:
    if details["dtype"] == np.float32:
        return values
    scale, zero = details["quantization"]
    return (values.astype("float32") - zero) * np.float32(scale)
