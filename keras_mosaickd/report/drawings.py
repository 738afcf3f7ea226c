"""What a report draws from the checkpoints of its runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_mosaickd.config import GAMES
from keras_mosaickd.data.image_set import spread
from keras_mosaickd.evaluation import of_run as evaluation
from keras_mosaickd.report.runs import Run
from keras_mosaickd.teachers.features import Features, generate

# Synthetic images on which the class balance is counted.
COUNT = 512
REGULARIZERS = ("none", "image", "patch")


@dataclasses.dataclass(frozen=True)
class Drawn:
    """Synthetic images of one run.

    Attributes:
        images: float32 [COUNT, h, w, c], of the same z for every run with the same latent_dim.
        classes: int64 [COUNT], the class that the teacher sees in each; of predictions per pixel
            that of the highest mean probability.
        counts: Number of images, or of pixels, by class.
    """

    images: np.ndarray
    classes: np.ndarray
    counts: list[int]

    def sorted(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The first ``count`` images and their classes, in the order of the classes."""
        order = np.argsort(self.classes[:count], kind="stable")
        return self.images[order], self.classes[order]


def is_game(run: Run) -> bool:
    """Whether the run has a generator."""
    return run.metrics["method"] in GAMES


def draw(run: Run, seed: int = 0) -> Drawn:
    """Draws a run's synthetic images from its last checkpoint.

    Raises:
        InputError: If there is no checkpoint, or none that can be loaded.
    """
    trainer = evaluation.load_run(run.path)
    shape = (COUNT, trainer.latent_dim)
    latents = np.random.default_rng(seed).standard_normal(shape, "float32")
    images = generate(trainer.generator, latents)
    features = Features(trainer.teacher)
    _, logits = features.see(images)
    classes, predictions = (
        keras.ops.convert_to_numpy(seen(logits))
        for seen in (features.head.leading, features.head.predictions)
    )
    return Drawn(images, classes, features.head.counts(predictions).tolist())


def regularizer_runs(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs that differ in the regularizer only, in lists of three in the order `REGULARIZERS`."""
    parts: dict[Any, dict[str, Run]] = {}
    for run in runs:
        name = run.settings.get("regularizer")
        if run.metrics["method"] == "mosaickd" and name in REGULARIZERS:
            others = {k: v for k, v in run.experiment.items() if k != "regularizer"}
            key = (run.seed, tuple(sorted(others.items())))
            parts.setdefault(key, {}).setdefault(str(name), run)
    return [
        [found[name] for name in REGULARIZERS]
        for found in parts.values()
        if len(found) == len(REGULARIZERS)
    ]


def out_of_domain_images(run: Run, count: int) -> np.ndarray | None:
    """Some of the selected images, evenly spaced, from the .npy file that selection.json names.

    Returns:
        uint8 [n, h, w, c], n at most ``count``; None where there is no such file any more.
    """
    name = (run.selection or {}).get("images")
    if not isinstance(name, str):
        return None
    path = Path(name) if Path(name).is_absolute() else run.path / name
    if not path.is_file():
        return None
    try:
        images = np.load(path, mmap_mode="r")
    except (OSError, ValueError):
        return None
    if images.ndim != 4 or not len(images):
        return None
    return spread(images, min(count, len(images)))
