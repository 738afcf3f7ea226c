"""Checkpoints that a training resumes from, the signals that stop it, the student's checkpoints."""

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_mosaickd.backend import processes
from keras_mosaickd.callbacks.divergence import check_weights
from keras_mosaickd.errors import STOPPING, StoppedError
from keras_mosaickd.files import file_sha256, replacing, write_file
from keras_mosaickd.run_directory import CHECKSUMS, known_checksums, previous

# [steps, seconds, means] of the newest checkpoint in the middle of an epoch: how many steps the run
# had made, how long that epoch took so far, and the means of its losses.
_SO_FAR = "epoch_seconds.json"


class EpochSoFar(NamedTuple):
    """What an earlier process did of the epoch in whose middle it was stopped.

    Attributes:
        steps: training steps of that epoch.
        seconds: how long they took.
        means: dict from the logs that are means over an epoch to those over these steps.
    """

    steps: int = 0
    seconds: float = 0.0
    means: dict[str, Any] = {}

    def joined(self, logs, steps):
        """Logs that are means over `steps` more steps, as means over all of them.

        Args:
            logs: dict from names to numbers.
            steps: how many there were.
        """
        share = self.steps / (self.steps + steps)
        return {
            name: share * self.means[name] + (1 - share) * value if name in self.means else value
            for name, value in logs.items()
        }


NOTHING = EpochSoFar()


class Checkpoint(keras.callbacks.Callback):
    """Saves the whole trainer after every epoch: networks, optimizers, seeds.

    The file is replaced whole or not at all, and the one before it stays beside it as `previous`,
    so that after the first epoch there is one to continue from at every moment, even where the
    newest was damaged later. See `keras_mosaickd.run_directory.newest_intact`.

    Args:
        path: `.keras` file.
        every_steps: save after every so many training steps too; 0 saves after epochs alone.
        best: `.keras` file for the student with the highest `monitor`, or None.
        best_so_far: the highest `monitor` of an earlier part of the run.
        stop: `StopSignals`: once one has come, the trainer is saved and the training left.
        monitor: name in the logs of what the best student has most of.
        seconds_between: how long to leave epochs unsaved that take less time than saving them.
        so_far: `EpochSoFar` of the first epoch; what a checkpoint in the middle of an epoch adds to
            it is kept beside the file (`epoch_so_far`).

    An epoch whose last step is made is evaluated before anything is saved or left: a checkpoint
    stands either in the middle of an epoch or behind everything that belongs to it.

    Raises:
        StoppedError: out of `fit`, after a signal.
    """

    def __init__(
        self,
        path,
        every_steps=0,
        best=None,
        best_so_far=-1.0,
        stop=None,
        monitor="val_agreement",
        seconds_between=0,
        so_far=NOTHING,
    ):
        super().__init__()
        self.monitor = monitor
        self.path = Path(path)
        self.every_steps = every_steps
        self.best = best
        self.best_so_far = best_so_far
        self.stop = stop
        self.seconds_between = seconds_between
        self._saved_at = time.monotonic()
        self._received = None
        self._so_far, self._start = so_far, time.perf_counter()
        self._is_first = True

    def on_epoch_begin(self, epoch, logs=None):
        """Starts the epoch's clock."""
        if not self._is_first:
            self._so_far = NOTHING
        self._is_first = False
        self._start = time.perf_counter() - self._so_far.seconds

    def on_train_batch_end(self, batch, logs=None):
        """Saves when its turn has come, or when the training is told to stop."""
        received = None if self.stop is None else processes.stop_now(self.stop.received)
        if batch + 1 == self.params.get("steps"):
            self._received = received
            return
        if received is not None or (self.every_steps and (batch + 1) % self.every_steps == 0):
            save_checkpoint(self.model, self.path)
            self._note(batch + 1, logs or {})
        if received is not None:
            raise StoppedError(received)

    def _note(self, steps, logs):
        names = [name for name in ("loss", *getattr(self.model, "loss_terms", ())) if name in logs]
        own = np.array([float(keras.ops.convert_to_numpy(logs[name])) for name in names])
        # Of as many rows in each of several processes.
        means = dict(zip(names, np.mean(processes.gather(own), axis=0).tolist(), strict=True))
        made = int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))
        noted = [made, time.perf_counter() - self._start, self._so_far.joined(means, steps)]
        if processes.is_chief():
            write_file(self.path.parent / _SO_FAR, json.dumps(noted))

    def on_epoch_end(self, epoch, logs=None):
        """Saves, and leaves after a signal."""
        value = (logs or {}).get(self.monitor, -1.0)
        if self.best is not None and value > self.best_so_far and processes.is_chief():
            self.best_so_far = value
            with replacing(self.best) as new:
                self.model.student.save(new)
        is_due = time.monotonic() - self._saved_at >= self.seconds_between
        if is_due or self._received is not None:
            save_checkpoint(self.model, self.path)
            self._saved_at = time.monotonic()
        if self._received is not None:
            raise StoppedError(self._received)


def epoch_so_far(path, made, steps):
    """What was done of an epoch before the checkpoint in its middle; nothing where none tells.

    Args:
        path: of `Checkpoint`.
        made: training steps of the run that the checkpoint has made.
        steps: how many of them are of that epoch.

    Returns:
        `EpochSoFar`.
    """
    try:
        known, *noted = json.loads((Path(path).parent / _SO_FAR).read_text())
        return EpochSoFar(steps, *noted) if known == made and steps else NOTHING
    except (OSError, ValueError, TypeError):
        return NOTHING


class WholeEpoch(keras.callbacks.Callback):
    """Makes the logs of an epoch that was stopped in its middle those of the whole of it.

    Args:
        so_far: `EpochSoFar` of the first epoch.
    """

    def __init__(self, so_far):
        super().__init__()
        self._so_far = so_far

    def on_epoch_end(self, epoch, logs=None):
        """Changes the logs, for the callbacks that come after it."""
        logs.update(self._so_far.joined(logs, self.params["steps"]))
        self._so_far = NOTHING


class StopSignals:
    """Notes `errors.STOPPING` instead of dying of them; the same signal again has its old effect.

    A context manager. Outside the main thread, where Python allows no handlers, it does nothing.

    Attributes:
        received: the first signal's number, or None.
    """

    def __init__(self):
        self.received = None
        self._before = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in STOPPING:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number, _):
        self.received = self.received or number
        signal.signal(number, self._before[number])


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


def save_checkpoint(model, path):
    """Saves a checkpoint and keeps the one before it.

    The checksum is on the disk before the file has its name, so that a crash at any moment leaves
    an intact checkpoint under one of the two names, if there was one. Of several processes, all of
    which hold the same, the chief saves.

    Raises:
        DivergedError: if a weight is no number; what was saved before is left as it is.
    """
    path = Path(path)
    if not processes.is_chief():
        return
    check_weights(model, path)
    with replacing(path) as new:
        model.save(new)
        known = known_checksums(path.parent)[-2:]
        write_file(path.parent / CHECKSUMS, json.dumps([*known, file_sha256(new)]))
        if path.is_file():
            os.replace(path, previous(path))
