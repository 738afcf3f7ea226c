"""The ``.keras`` file, on any backend."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from keras_mosaickd.export.comparison import outputs
from keras_mosaickd.networks.loading import load_model


def write(student: Any, path: Path) -> None:
    """Writes the student with its architecture, without an optimizer."""
    student.save(path, include_optimizer=False)


def load(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Loads it in safe mode: a function from images to logits.

    One image goes through the compiled prediction, which is what latency is about; more of them
    do not, so that nothing is compiled for a batch that comes once.
    """
    model = load_model(path, "the exported student")

    def predict(images: np.ndarray) -> np.ndarray:
        return model.predict_on_batch(images) if len(images) == 1 else outputs(model, images)

    return predict
