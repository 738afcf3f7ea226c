"""What looks for a training that has gone wrong: weights that are no numbers, a collapse."""

from pathlib import Path

import keras
import numpy as np

from keras_mosaickd.errors import DivergedError

_PHASES = ("discriminator", "generator", "student")


class StopWhenInvalid(keras.callbacks.Callback):
    """Leaves a training in which a loss or a weight is NaN or infinite.

    `keras.callbacks.TerminateOnNaN` looks at the first loss alone and ends the epoch in the usual
    way, which would replace a good checkpoint by the broken networks. The losses are looked at
    after every step. The weights follow at the end of the epoch and whenever `save_checkpoint`
    would write them: what breaks them between shows in the next step's losses.

    Args:
        path: the checkpoint to name in the message.

    Raises:
        DivergedError: out of `fit`, naming the phase, the iteration and the last good checkpoint.
    """

    def __init__(self, path):
        super().__init__()
        self.path = Path(path)

    def on_train_batch_end(self, batch, logs=None):
        """Looks at the losses, in the order in which the phases compute them."""
        losses = {name: value for name, value in (logs or {}).items() if name.endswith("loss")}
        for name in sorted(losses, key=lambda name: _PHASES.index(_phase(name))):
            value = float(losses[name])
            if not np.isfinite(value):
                raise _diverged(self.model, self.path, f"{_phase(name)}: {name} became {value}")

    def on_epoch_end(self, epoch, logs=None):
        """Looks at the weights, before anything of the epoch is written down."""
        check_weights(self.model, self.path)


def _phase(loss):
    """The phase that computes a loss of the logs; the baselines have the student's alone."""
    if loss in ("loss", "student_loss", "distillation_loss", "hint_loss"):
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
                what = f"the weight {variable.path} is NaN or infinite"
                raise _diverged(model, path, f"{phase}: {what}")


def _diverged(model, path, what):
    iteration = int(keras.ops.convert_to_numpy(model.optimizer.iterations))
    good = f"the last good checkpoint is {path}" if path.is_file() else "no checkpoint was saved"
    return DivergedError(
        f"{what} in iteration {iteration} ({good}); lower --student_learning_rate or "
        "--generator_learning_rate"
    )


class CollapseWarning(keras.callbacks.Callback):
    """Says so when the teacher sees nearly one class in all synthetic images.

    Args:
        classes: number of classes; of independent labels 2 to the power of their number.
        least: share of the entropy of equally frequent classes below which it speaks.
    """

    def __init__(self, classes, least=0.1):
        super().__init__()
        self.classes = classes
        self.least = least

    def on_epoch_end(self, epoch, logs=None):
        """Looks at the balance loss, which is the negative entropy of the classes in bits."""
        entropy = -float((logs or {}).get("balance_loss", -np.inf))
        most = np.log2(self.classes)
        if entropy < self.least * most:
            print(
                f"Warning: the generator collapses: class entropy {entropy:.3f} of {most:.3f} bits "
                f"in epoch {epoch + 1}; a higher --balance_weight may help"
            )
