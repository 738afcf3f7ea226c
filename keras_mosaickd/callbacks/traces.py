"""Callbacks that leave a trace of a run: a grid of synthetic images, a table of its epochs."""

from __future__ import annotations

import csv
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy

from keras_mosaickd.callbacks.event_files import EventFile
from keras_mosaickd.data import image_grid
from keras_mosaickd.evaluation.drawing import draw_samples
from keras_mosaickd.files import replacing

# What csv.DictWriter calls a field that a row does not have.
_MISSING = ""


class SampleGrid(keras.callbacks.Callback):
    """Draws the same latent vectors after every epoch, to TensorBoard and to ``samples.png``.

    The model must have the attributes ``generator`` and ``teacher``. The TensorBoard event needs
    the package tensorboard, not TensorFlow; without it the PNG alone is written.

    Args:
        log_dir: TensorBoard's directory; the images go to its sub-directory ``samples``. None
            writes no events.
        latents: [n, latent_dim] float32, drawn once by the caller, so that images of different
            epochs can be compared.
        every: Draw after every this many epochs; the last epoch is always drawn.
        path: PNG file, overwritten each time. None writes none.
        columns: Images per row; by default the grid is square.
        class_names: As of `keras_mosaickd.evaluation.drawing.draw_samples`.
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str] | None,
        latents: Any,
        every: int = 1,
        path: str | os.PathLike[str] | None = None,
        columns: int | None = None,
        class_names: Sequence[str] | None = None,
    ):
        super().__init__()
        if every < 1:
            raise ValueError(f"expected every of at least 1. Received: {every}")
        self._log = None if log_dir is None else EventFile(Path(log_dir) / "samples")
        self.latents = numpy.asarray(latents, dtype="float32")
        self.every = every
        self.path = path
        self.columns = columns
        self.class_names = class_names

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Draws the grid when its turn has come."""
        is_last = epoch + 1 == self.params.get("epochs")
        if (epoch + 1) % self.every and not is_last:
            return
        image = draw_samples(
            self.model.generator, self.model.teacher, self.latents, self.columns, self.class_names
        )
        if self.path is not None:
            image_grid.write_png(self.path, image)
        if self._log is not None:
            self._log.image(epoch, "samples", image)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Closes the event file."""
        if self._log is not None:
            self._log.close()


class HistoryCsv(keras.callbacks.Callback):
    """Writes one row per epoch: the epoch's number from 0, its seconds, and every log.

    It differs from `keras.callbacks.CSVLogger` in what a resumed run needs: rows of epochs that are
    run again are dropped first, a log that appears late gets its own column, every row is on the
    disk before the next epoch starts, and the epoch's wall time stands in it.

    Args:
        path: CSV file. If there is one, its rows up to the first epoch run are kept.
        seconds_before: How long an earlier process trained in the first epoch.
    """

    def __init__(self, path: str | os.PathLike[str], seconds_before: float = 0.0):
        super().__init__()
        self._before = seconds_before
        self.path = Path(path)
        self._columns: list[str] = []
        self._rows: list[dict[str, str]] = []
        self._is_started = False
        self._start = math.nan

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Forgets an earlier ``fit``; what that one wrote is read again from the file."""
        self._is_started = False

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Starts the clock; before the first epoch, drops the rows that it will replace."""
        if not self._is_started:
            self._take_over(epoch)
            self._is_started = True
        self._start = time.perf_counter() - self._before
        self._before = 0.0

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Appends the epoch's row and waits until the disk has it."""
        row = {"epoch": str(epoch), "seconds": f"{time.perf_counter() - self._start:.3f}"}
        row |= {name: repr(float(value)) for name, value in (logs or {}).items()}
        self._rows.append(row)
        new_columns = [name for name in row if name not in self._columns]
        if new_columns:
            self._columns += new_columns
            self._rewrite()
            return
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self._columns, restval=_MISSING).writerow(row)
            file.flush()
            os.fsync(file.fileno())

    def _take_over(self, first_epoch: int) -> None:
        self._columns, rows = _read(self.path)
        self._rows = [row for row in rows if int(row["epoch"]) < first_epoch]
        self._rewrite()

    def _rewrite(self) -> None:
        with replacing(self.path) as new, new.open("w", newline="", encoding="utf-8") as file:
            if self._columns:
                writer = csv.DictWriter(file, self._columns, restval=_MISSING)
                writer.writeheader()
                writer.writerows(self._rows)


def read_history(path: str | os.PathLike[str]) -> list[dict[str, float]]:
    """Reads a `HistoryCsv` file: one dict of numbers per epoch, without empty fields.

    A row that a crash cut short is left out, and a missing file has no rows.
    """
    _, rows = _read(Path(path))
    return [
        {name: float(value) for name, value in row.items() if value != _MISSING} for row in rows
    ]


def _read(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Returns columns and whole rows of a history file; nothing where it is no history file."""
    if not path.is_file():
        return [], []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        columns = list(reader.fieldnames or [])
        # DictReader gives None to the fields that a row lacks, and as the name of those too many.
        rows = [row for row in reader if None not in row and None not in row.values()]
    if "epoch" not in columns:
        return [], []
    return columns, [row for row in rows if row["epoch"].isdecimal()]


# Logs that belong together: by the first word of their names, and terms of a phase's loss.
_PHASES = ("discriminator", "generator", "student", "synthetic")
_TERMS = {
    **dict.fromkeys(("adversarial_loss", "align_loss", "balance_loss", "local_loss"), "generator"),
    **dict.fromkeys(("lambda_local", "lambda_align", "r_local", "r_align"), "generator"),
    "batch_norm_loss": "generator",
    **dict.fromkeys(("distillation_loss", "hint_loss", "feature_loss"), "student"),
}


def _tag(name: str) -> str:
    """A log's name in TensorBoard, which makes a group of what stands before a slash."""
    if name in _TERMS:
        return f"{_TERMS[name]}/{name}"
    phase, _, rest = name.partition("_")
    return f"{phase}/{rest}" if phase in _PHASES and rest else f"epoch_{name}"


class TensorBoardScalars(keras.callbacks.Callback):
    """Writes every epoch's logs to TensorBoard, grouped by the phase of training.

    What belongs to a phase is called ``PHASE/NAME``, as ``generator/align_loss``, so that
    TensorBoard shows the phases apart: ``discriminator``, ``generator``, ``student``, and
    ``synthetic`` for the quality of the images. The rest is in the folders and under the names of
    Keras's own callback: ``epoch_loss``, ``epoch_accuracy``.

    `keras.callbacks.TensorBoard` starts TensorFlow, which on JAX and PyTorch need not be installed
    and would take the accelerator's memory. Where the package tensorboard is not installed, nothing
    is written.

    Args:
        log_dir: TensorBoard's directory; its sub-directories are ``train`` and ``validation``.
    """

    def __init__(self, log_dir: str | os.PathLike[str]):
        super().__init__()
        self._train = EventFile(Path(log_dir) / "train")
        self._validation = EventFile(Path(log_dir) / "validation")

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes the epoch's logs."""
        parts: tuple[dict[str, float], dict[str, float]] = {}, {}
        for name, value in (logs or {}).items():
            is_validation = name.startswith("val_")
            parts[is_validation][_tag(name.removeprefix("val_"))] = float(value)
        for file, values in zip((self._train, self._validation), parts, strict=True):
            if values:
                file.scalars(epoch, values)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Closes the event files."""
        self._train.close()
        self._validation.close()
