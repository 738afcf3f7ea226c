"""What is seen of a run while it goes on: a line per epoch, and how long the rest will take."""

import time

import keras

_SCORES = {
    "val_accuracy": "test accuracy",
    "val_mean_iou": "test mean IoU",
    "val_agreement": "test agreement",
    "held_out_agreement": "held-out agreement",
    "synthetic_agreement": "synthetic agreement",
}
_MULTIPLIERS = ("lambda_local", "lambda_align")


class Bar(keras.callbacks.ProgbarLogger):
    """Keras's bar, which asks the device for numbers every few seconds only.

    Args:
        seconds: how long to leave the device alone.
    """

    def __init__(self, seconds=2.0):
        super().__init__()
        self.seconds = seconds
        self._asked_at = 0.0

    def on_train_batch_end(self, batch, logs=None):
        """Moves the bar on; between, with the numbers that it has."""
        is_due = time.monotonic() - self._asked_at >= self.seconds
        shown = self.shown(logs or {}) if is_due else {}
        super().on_train_batch_end(batch, {name: float(value) for name, value in shown.items()})
        if is_due:
            self._asked_at = time.monotonic()

    def shown(self, logs):
        """Those of a step's or an epoch's logs that the bar shows."""
        return logs


class Progress(Bar):
    """Prints one line after every epoch, with the time left; Keras's bar while an epoch lasts.

    Keras would print all thirty logs of an epoch; they stand in history.csv and TensorBoard. The
    bar is shown where `fit` is called with `verbose=1`. Put it last, so that the time has the
    other callbacks' in it.

    Args:
        steps: training steps from the beginning of this `fit` to the end of the whole run.
        seconds: as of `Bar`.
    """

    def __init__(self, steps, seconds=2.0):
        super().__init__(seconds)
        self.steps_left = steps
        self._start, self._compiled = 0.0, None

    def on_epoch_begin(self, epoch, logs=None):
        """Starts the clock."""
        self._start, self._compiled = time.perf_counter(), None
        super().on_epoch_begin(epoch, logs)

    def on_train_batch_end(self, batch, logs=None):
        """Notes when the first step, which may have been compiled, is done."""
        self._compiled = self._compiled or time.perf_counter()
        super().on_train_batch_end(batch, logs)

    def shown(self, logs):
        """The loss of what the run is about."""
        return _student_loss(logs)

    def on_epoch_end(self, epoch, logs=None):
        """Prints the line."""
        logs = logs or {}
        super().on_epoch_end(epoch, self.shown(logs))
        now = time.perf_counter()
        self.steps_left -= self.target
        times = duration(now - self._start)
        if self.steps_left > 0:
            steps, since = self.target, self._start
            if steps > 1 and self._compiled is not None:
                steps, since = steps - 1, self._compiled
            times += f", about {duration((now - since) / steps * self.steps_left)} left"
        words = [f"{name} {float(value):.4f}" for name, value in _student_loss(logs).items()]
        words += [f"{name} {float(logs[name]):.3g}" for name in _MULTIPLIERS if name in logs]
        words += [f"{title} {float(logs[name]):.4f}" for name, title in _scores(logs).items()]
        print(f"Epoch {epoch + 1}/{self.epochs}: {', '.join(words)} ({times})", flush=True)


def duration(seconds):
    """A time as text, as exact as one wants to know it: `3 h 20 min`, `5 min`, `12 s`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _student_loss(logs):
    """The loss of what the run is about; the baselines' logs have no other."""
    loss = logs.get("student_loss", logs.get("loss"))
    return {} if loss is None else {"student loss": loss}


def _scores(logs):
    """Those of `_SCORES` that there are, each once."""
    found = {name: title for name, title in _SCORES.items() if name in logs}
    if "val_accuracy" not in logs and "held_out_agreement" in logs:
        # Without a data set it is the agreement on held-out images, by another name.
        found.pop("val_agreement", None)
    return found
