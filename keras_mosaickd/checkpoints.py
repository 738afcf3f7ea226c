"""Files that a training can go on from, and the student's own checkpoints."""

import os
from pathlib import Path

import keras


class Checkpoint(keras.callbacks.Callback):
    """Saves the whole trainer after every epoch: networks, optimizers, seeds.

    The file is replaced whole or not at all, so that one that can be continued from is there at
    every moment after the first epoch.

    Args:
        path: `.keras` file.
    """

    def __init__(self, path):
        super().__init__()
        self.path = Path(path)

    def on_epoch_end(self, epoch, logs=None):
        """Saves."""
        save_atomically(self.model, self.path)


class StudentCheckpoint(keras.callbacks.ModelCheckpoint):
    """`keras.callbacks.ModelCheckpoint` of the student alone.

    ```python
    StudentCheckpoint("best.keras", monitor="val_agreement", mode="max", save_best_only=True)
    ```
    """

    @property
    def model(self):
        """The student of the trainer that is being fitted."""
        trainer = super().model
        return getattr(trainer, "student", trainer)


def save_atomically(model, path):
    """Saves a `.keras` file: written beside its place, forced to disk, then renamed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Keras wants the ending; the dot keeps an orphan of a crash out of sight.
    temporary = path.with_name(f".{path.stem}-{os.getpid()}.keras")
    try:
        model.save(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
