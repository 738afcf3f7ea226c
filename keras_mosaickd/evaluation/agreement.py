"""How well a student imitates its teacher on images without labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_mosaickd.backend.operations import without_gradient
from keras_mosaickd.data.streams import given
from keras_mosaickd.networks.heads import head_of
from keras_mosaickd.networks.logits import as_logits, student_logits, with_shapes

# Images at a time through both networks.
_BATCH = 128
# A class that the teacher sees less often than this says nothing alone.
_FEW = 10


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Teacher and student on the same images (or pixels, where each has a prediction).

    Attributes:
        agreement: Share of predictions in which both choose the same class, 0 to 1; of labels the
            mean over them.
        kl: Mean KL(teacher || student), in nats.
        calibration_gap: The student's mean confidence minus its agreement: above 0 it claims more
            than it keeps, below 0 less.
        counts: How often the teacher predicts each class; of labels the number of predictions.
        agreeing: How often the student agrees with it, of each class or label.
        classes_seen: How many classes or labels the teacher predicts at least once.
    """

    agreement: float
    kl: float
    calibration_gap: float
    counts: tuple[int, ...]
    agreeing: tuple[int, ...]
    classes_seen: int

    @property
    def per_class(self) -> list[float | None]:
        """Agreement for each class that the teacher predicts; None where it never does."""
        pairs = zip(self.agreeing, self.counts, strict=True)
        return [agreeing / count if count else None for agreeing, count in pairs]

    @property
    def lowest(self) -> float:
        """The lowest agreement of a class that the teacher predicts ten times or more.

        NaN where there is no such class.
        """
        shares = [a / n for a, n in zip(self.agreeing, self.counts, strict=True) if n >= _FEW]
        return min(shares, default=float("nan"))

    def numbers(self) -> dict[str, float]:
        """What stands in every row of a history."""
        return {
            "agreement": self.agreement,
            "kl": self.kl,
            "calibration_gap": self.calibration_gap,
            "agreement_lowest": self.lowest,
        }

    def summary(self, class_names: Sequence[str]) -> dict[str, Any]:
        """Everything, for JSON: per class a dict from its name to the agreement (or None)."""
        numbers = {
            name: None if np.isnan(value) else value for name, value in self.numbers().items()
        }
        per_class = dict(zip(class_names, self.per_class, strict=True))
        return {
            **numbers,
            "agreement_per_class": per_class,
            "classes_seen": self.classes_seen,
        }


def measure_agreement(teacher: Any, student: Any, images: Any) -> Agreement:
    """Compares a student with its teacher on images; both in inference mode, no labels.

    Args:
        teacher: Keras model from images in [0, 1] to logits, `[batch, units]` or `[batch, h, w,
            units]`, or to probabilities, which are recognised (`as_logits`).
        student: Keras model of the same shapes, likewise.
        images: `[n, h, w, c]`, n at least 1: uint8, or floats in [0, 1].

    Returns:
        `Agreement`.

    Raises:
        InputError: if the images are in another range or of another size.
    """
    teacher, student = as_logits(teacher), with_shapes(student)
    given.check(images, teacher.input_shape[1:])
    student = student_logits(student, images.shape[1:], copies=True)
    return agreement_of_logits(teacher, student, images)


@without_gradient
def agreement_of_logits(teacher: Any, student: Any, images: Any) -> Agreement:
    """As `measure_agreement`, of networks that are known to give logits."""
    head = head_of(teacher)
    counts, agreeing, seen = (np.zeros(head.classes, np.int64) for _ in range(3))
    divergence = confidence = total = 0.0
    for start in range(0, len(images), _BATCH):
        batch = np.asarray(images[start : start + _BATCH])
        scale = np.float32(1 / 255 if batch.dtype == np.uint8 else 1)
        image_set = keras.ops.convert_to_tensor(batch.astype("float32") * scale)
        expected, received = (model(image_set, training=False) for model in (teacher, student))
        kl = keras.ops.convert_to_numpy(head.kl_divergence(expected, received))
        divergence += kl.sum(dtype=np.float64)
        total += kl.size
        sure = keras.ops.convert_to_numpy(head.confidence(received))
        confidence += sure.sum(dtype=np.float64)
        predicted, by_student = (
            keras.ops.convert_to_numpy(head.predictions(logits)) for logits in (expected, received)
        )
        seen += head.counts(predicted)
        if head.kind == "labels":
            same = (predicted == by_student).reshape(-1, head.classes)
            counts += len(same)
            agreeing += same.sum(axis=0)
        else:
            counts += head.counts(predicted)
            agreeing += head.counts(predicted[predicted == by_student])
    agreement = float(agreeing.sum() / counts.sum())
    return Agreement(
        agreement=agreement,
        kl=float(divergence / total),
        calibration_gap=float(confidence / total) - agreement,
        counts=tuple(counts.tolist()),
        agreeing=tuple(agreeing.tolist()),
        classes_seen=int((seen > 0).sum()),
    )
