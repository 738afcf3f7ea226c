"""ONNX, by tf2onnx (TensorFlow backend only), run by ONNX Runtime on the CPU."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from keras_mosaickd.export.graph import graph


def write(student: Any, path: Path) -> None:
    """Writes a graph from ``picture`` [n, h, w, c] float32 in [0, 1] to ``logits``.

    Keras's own ONNX export makes the constants of a Normalization layer further inputs of the
    graph (3.15), so the graph is frozen first.
    """
    import tf2onnx
    from tensorflow.python.framework import convert_to_constants

    with_variables, _owner = graph(student, batch_size=None)
    function = convert_to_constants.convert_variables_to_constants_v2(with_variables)
    image, logits = function.inputs[0].name, function.outputs[0].name
    # tf2onnx goes through functions of TensorFlow that log their own deprecation.
    logger = logging.getLogger("tensorflow")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        tf2onnx.convert.from_graph_def(
            function.graph.as_graph_def(),
            name="student",
            input_names=[image],
            output_names=[logits],
            tensors_to_rename={image: "picture", logits: "logits"},
            output_path=str(path),
        )
    finally:
        logger.setLevel(level)


def load(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """A function from images to logits."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: session.run(["logits"], {"picture": images})[0]
