"""Figures for notebooks and papers: what a training logged, and images beside each other."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_mosaickd.callbacks.traces import read_history
from keras_mosaickd.data import image_grid
from keras_mosaickd.errors import InputError
from keras_mosaickd.evaluation.drawing import draw_samples
from keras_mosaickd.evaluation.of_run import load_game
from keras_mosaickd.extras import require
from keras_mosaickd.report import figures
from keras_mosaickd.run_directory import METRICS, RunDirectory

# The panels of `plot_history`, as far as there are such logs: the axis' title and what is in it.
_PANELS = {
    "share": (
        "val_accuracy",
        "val_agreement",
        "held_out_agreement",
        "synthetic_agreement",
        "val_mean_iou",
    ),
    "loss of the student": ("loss", "val_loss", "feature_loss", "hint_loss"),
    # Apart: 64 times a mean, and terms of the size of an entropy.
    "losses of patches": ("discriminator_loss", "local_loss"),
    "other terms of the generator": (
        "align_loss",
        "balance_loss",
        "adversarial_loss",
        "batch_norm_loss",
    ),
}


def plot_samples(
    samples: Any,
    count: int = 36,
    columns: int | None = None,
    class_names: Sequence[str] | None = None,
    seed: int = 0,
) -> Any:
    """Draws synthetic images, or images of any kind, as one figure.

    Args:
        samples: A `MosaicKD`, whose generator draws images that are sorted by the class that its
            teacher sees in them, written below each; the directory of a run with a generator;
            images `[n, h, w, c]`, uint8 or floats in [0, 1]; or a dict of title -> one of these,
            for grids side by side.
        count: Images in each grid, at most.
        columns: Images per row; by default each grid is square.
        class_names: Names of the teacher's classes; by default those of the run, else numbers.
        seed: Seed of the latent vectors.

    Returns:
        `matplotlib.figure.Figure`; a notebook shows it where it is a cell's last value.

    Raises:
        InputError: There are no images, or matplotlib is not installed (extra `report`).
    """
    require("plot_samples", "matplotlib")
    given = samples if isinstance(samples, Mapping) else {"": samples}
    if not given or count < 1:
        raise InputError(f"expected images and a count of at least 1. Received: count={count}")
    return figures.grids(
        {title: _grid(images, count, columns, class_names, seed) for title, images in given.items()}
    )


def _grid(
    samples: Any, count: int, columns: int | None, class_names: Sequence[str] | None, seed: int
) -> np.ndarray:
    if isinstance(samples, str | os.PathLike):
        run, samples = RunDirectory(samples), load_game(samples)
        if class_names is None and run.is_finished:
            class_names = run.read_json(METRICS).get("class_names")
    if hasattr(samples, "generator") and hasattr(samples, "teacher"):
        random = np.random.default_rng(seed)
        latents = random.standard_normal((count, samples.latent_dim), "float32")
        return draw_samples(samples.generator, samples.teacher, latents, columns, class_names)
    try:
        return image_grid.grid(samples[:count], columns)
    except (TypeError, ValueError) as error:
        raise InputError(f"plot_samples: {error}") from error


def plot_history(*histories: Any, labels: Sequence[str] | None = None) -> Any:
    """Draws what a training logged after each epoch: agreement and accuracy, and the losses.

    Args:
        *histories: What `fit` returns, its `history`, or the directory of a run (its
            `history.csv`); several are drawn over each other.
        labels: What each is called; by default its directory's name or its number.

    Returns:
        `matplotlib.figure.Figure` with a panel for the shares, the student's losses, those of
        patches and the generator's other terms, as far as they were logged.

    Raises:
        InputError: Nothing was logged, there are more or fewer labels than histories, or
            matplotlib is not installed (extra `report`).
    """
    require("plot_history", "matplotlib")
    if labels is not None and len(labels) != len(histories):
        raise InputError(f"expected {len(histories)} labels. Received: {len(labels)}")
    logs = [_logs(history) for history in histories]
    names = labels or [_label(history, number) for number, history in enumerate(histories, 1)]
    panels = {
        title: shown
        for title, known in _PANELS.items()
        if (shown := [name for name in known if any(name in log for log in logs)])
    }
    if not panels:
        known_names = ", ".join(name for known in _PANELS.values() for name in known)
        raise InputError(f"expected a history with some of {known_names}. Received: none of them")
    lines = {
        title: {
            f"{name}, {label}" if len(logs) > 1 else name: log[name]
            for name in shown
            for label, log in zip(names, logs, strict=True)
            if name in log
        }
        for title, shown in panels.items()
    }
    return figures.lines_by_epoch(lines)


def _logs(history: Any) -> dict[str, list[float]]:
    """Value by epoch of each log; NaN where an epoch has none."""
    if isinstance(history, str | os.PathLike):
        rows = read_history(os.path.join(history, "history.csv"))
        names = dict.fromkeys(name for row in rows for name in row)
        return {name: [float(row.get(name, "nan")) for row in rows] for name in names}
    logs = getattr(history, "history", history)
    if not isinstance(logs, Mapping):
        raise InputError(
            "plot_history: expected what fit returns, or the directory of a run. "
            f"Received: {type(history).__name__}"
        )
    return {name: [float(value) for value in values] for name, values in logs.items()}


def _label(history: Any, number: int) -> str:
    if isinstance(history, str | os.PathLike):
        return os.path.basename(os.path.normpath(history))
    return str(number)
