"""What looks for a training that has gone wrong: weights that are no numbers, a collapse."""

import time
from pathlib import Path

import keras
import numpy as np

from keras_mosaickd.errors import DivergedError

_PHASES = ("discriminator", "generator", "student")


class StopWhenInvalid(keras.callbacks.Callback):
    """Leaves a training in which a loss or a weight is NaN or infinite.

    `keras.callbacks.TerminateOnNaN` waits for every step's loss, looks at the first one alone and
    ends the epoch in the usual way, which would replace a good checkpoint by the broken networks.
    Here the device itself notes the iteration in which a loss became no number
    (`methods.watched.FirstInvalid`), and is asked every few seconds whether the student's, which
    all others reach, still is one. The weights follow at the end of the epoch and whenever
    `save_checkpoint` would write them.

    Args:
        path: the checkpoint to name in the message.
        seconds: how long to leave the device alone.

    Raises:
        DivergedError: out of `fit`, naming the phase, the iteration and the last good checkpoint.
    """

    def __init__(self, path, seconds=5.0):
        super().__init__()
        self.path = Path(path)
        self.seconds = seconds
        self._asked_at = time.monotonic()

    def on_train_batch_end(self, batch, logs=None):
        """Looks at the mean loss so far, now and then."""
        if time.monotonic() - self._asked_at < self.seconds:
            return
        if not np.isfinite(float((logs or {}).get("loss", 0.0))):
            self._check_losses(logs)
        self._asked_at = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        """Looks at losses and weights, before anything of the epoch is written down."""
        self._check_losses(logs or {})
        check_weights(self.model, self.path)

    def _check_losses(self, logs):
        """Raises for the first loss of `logs` that is no number."""
        broken = {
            name: float(value)
            for name, value in logs.items()
            if name.endswith("loss") and not name.startswith("val_")
        }
        broken = {name: value for name, value in broken.items() if not np.isfinite(value)}
        if broken:
            raise _of_loss(self.model, self.path, broken)


def _of_loss(model, path, broken):
    """The error that names the first of several losses, in the order in which phases compute them.

    Args:
        model: the trainer.
        path: the checkpoint to name.
        broken: dict from the loss to what it became.
    """
    now = int(keras.ops.convert_to_numpy(model.optimizer.iterations))
    noted = _noted(model)
    iteration, phase, name = min(
        (noted.get(name) or now, _PHASES.index(_phase(name)), name) for name in broken
    )
    return _diverged(path, f"{_PHASES[phase]}: {name} became {broken[name]}", iteration)


def _noted(model):
    """What the device has noted: from the loss to the iteration, 0 where it is a number."""
    first = getattr(model, "first_invalid", None)  # A teacher in training has none.
    known = {} if first is None else first.iterations
    return {name: int(keras.ops.convert_to_numpy(value)) for name, value in known.items()}


def _phase(loss):
    """The phase that computes a loss of the logs; the baselines have the student's alone."""
    if loss in ("loss", "student_loss", "distillation_loss", "hint_loss", "feature_loss"):
        return "student"
    return "discriminator" if loss == "discriminator_loss" else "generator"


def check_weights(model, path):
    """Raises unless every weight of a trainer's networks and optimizers is a number.

    Args:
        model: the trainer.
        path: the checkpoint to name in the message.

    Raises:
        DivergedError: naming the phase that trains the weight.
    """
    optimizers = getattr(model, "phase_optimizers", {})  # None before compile().
    networks = getattr(model, "networks", None)  # of a trainer; a teacher in training is one
    groups = [
        *([("teacher", model)] if networks is None else ((n, getattr(model, n)) for n in networks)),
        *((key.removesuffix("_optimizer"), value) for key, value in optimizers.items()),
    ]
    for phase, holder in groups:
        for variable in [] if holder is None else holder.variables:
            if not np.isfinite(keras.ops.convert_to_numpy(variable)).all():
                # A loss that broke before says more: what it broke is everywhere by now.
                if broken := {name: "NaN or infinite" for name, at in _noted(model).items() if at}:
                    raise _of_loss(model, path, broken)
                what = f"{phase}: the weight {variable.path} is NaN or infinite"
                iteration = int(keras.ops.convert_to_numpy(model.optimizer.iterations))
                raise _diverged(path, what, iteration)


def _diverged(path, what, iteration):
    good = f"the last good checkpoint is {path}" if path.is_file() else "no checkpoint was saved"
    return DivergedError(
        f"{what} in iteration {iteration} ({good}); lower --student_learning_rate or "
        "--generator_learning_rate"
    )


class CollapseWarning(keras.callbacks.Callback):
    """Says so when the teacher sees nearly one class in all synthetic images.

    Args:
        most_entropy: that of equally frequent classes, in nats.
        least: share of the entropy of equally frequent classes below which it speaks.
    """

    def __init__(self, most_entropy, least=0.1):
        super().__init__()
        self.most_entropy = most_entropy
        self.least = least

    def on_epoch_end(self, epoch, logs=None):
        """Looks at the balance loss, which is the negative entropy of the classes in bits."""
        entropy = -float((logs or {}).get("balance_loss", -np.inf))
        most = self.most_entropy / np.log(2)
        if entropy < self.least * most:
            print(
                f"Warning: the generator collapses: class entropy {entropy:.3f} of {most:.3f} bits "
                f"in epoch {epoch + 1}; a higher --balance_weight may help"
            )
