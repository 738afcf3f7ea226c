"""A student judged without labels: on held-out out-of-domain and on fresh synthetic images."""

import keras
import numpy as np

from keras_mosaickd.evaluation.agreement import agreement_of_logits
from keras_mosaickd.teachers.features import generate

# The score by which `--select=agreement` chooses, in the logs of every epoch.
SCORE = "label_free_agreement"
_SYNTHETIC = 1000
# Synthetic images are held in memory as float32.
_MOST_BYTES = 2**28


class LabelFreeJudge:
    """Holds what a student is judged on.

    Args:
        held_out: images `[n, h, w, c]`, uint8, that take no part in training; or None.
        latent_dim: size of the generator's input; None for a method without one.
        image_shape: `(h, w, c)`.
        seed: seed of the latent vectors, which training never draws.
    """

    def __init__(self, held_out, latent_dim, image_shape, seed):
        self.held_out = held_out
        self.latents = None
        if latent_dim is not None:
            count = max(2, min(_SYNTHETIC, _MOST_BYTES // (4 * int(np.prod(image_shape)))))
            generator = np.random.default_rng([seed, count, latent_dim])
            self.latents = generator.standard_normal((count, latent_dim), dtype="float32")

    def judge(self, trainer, student=None):
        """Compares the trainer's student, or another one, with the trainer's teacher.

        Returns:
            Dict from "held_out" and "synthetic" (those that there are) to `Agreement`.
        """
        student = trainer.student if student is None else student
        judged = {}
        if self.held_out is not None:
            judged["held_out"] = agreement_of_logits(trainer.teacher, student, self.held_out)
        if self.latents is not None:
            images = generate(trainer.generator, self.latents)
            judged["synthetic"] = agreement_of_logits(trainer.teacher, student, images)
        return judged


class LabelFreeAgreement(keras.callbacks.Callback):
    """Adds to the logs of every epoch how well the student agrees with the teacher, unlabelled.

    `held_out_...` and `synthetic_...`: agreement, kl, calibration_gap and agreement_lowest (see
    `Agreement`), and `label_free_agreement`, the mean of the agreements. Put it before the
    callbacks that write the logs.

    Args:
        judge: `LabelFreeJudge`.
        is_validation: whether these are the only images to validate on; the logs then have
            `val_agreement` and `val_loss` of the first kind of images too.
    """

    def __init__(self, judge, is_validation):
        super().__init__()
        self.judge = judge
        self.is_validation = is_validation

    def on_epoch_end(self, epoch, logs=None):
        """Judges, and adds to `logs`."""
        if logs is None:
            return
        judged = self.judge.judge(self.model)
        for kind, agreement in judged.items():
            numbers = agreement.numbers()
            logs.update({f"{kind}_{k}": v for k, v in numbers.items() if not np.isnan(v)})
        logs[SCORE] = score(judged)
        if self.is_validation:
            first = next(iter(judged.values()))
            logs.update({"val_loss": first.kl, "val_agreement": first.agreement})


def score(judged):
    """Mean of the agreements of `LabelFreeJudge.judge`, 0 to 1."""
    return float(np.mean([agreement.agreement for agreement in judged.values()]))
