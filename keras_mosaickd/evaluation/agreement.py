"""How well a student imitates its teacher on images without labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

# Images at a time through both networks.
_BATCH = 128
# A class that the teacher sees less often than this says nothing alone.
_FEW = 10


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Teacher and student on the same images (or pixels, where each has a prediction).

    Attributes:
        agreement: Share of predictions in which both choose the same class, 0 to 1.
        kl: Mean KL(teacher || student), in nats.
        calibration_gap: The student's mean confidence minus its agreement: above 0 it claims more
            than it keeps, below 0 less.
        counts: How often the teacher predicts each class.
        agreeing: How often the student agrees with it, of each class.
    """

    agreement: float
    kl: float
    calibration_gap: float
    counts: tuple[int, ...]
    agreeing: tuple[int, ...]

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
        seen = sum(count > 0 for count in self.counts)
        return {**numbers, "agreement_per_class": per_class, "classes_seen": seen}


def measure_agreement(teacher: Any, student: Any, images: Any) -> Agreement:
    """Compares a student with its teacher on images; both in inference mode, no labels.

    Args:
        teacher: Keras model from images in [0, 1] to logits, `[batch, classes]` or `[batch, h, w,
            classes]` (`load_teacher` makes it of any classifier).
        student: Keras model of the same shapes, logits out.
        images: `[n, h, w, c]`, n at least 1: uint8, or floats in [0, 1].

    Returns:
        `Agreement`.
    """
    classes = teacher.output_shape[-1]
    counts, agreeing = np.zeros(classes, np.int64), np.zeros(classes, np.int64)
    divergence = confidence = 0.0
    for start in range(0, len(images), _BATCH):
        batch = np.asarray(images[start : start + _BATCH])
        scale = np.float32(1 / 255 if batch.dtype == np.uint8 else 1)
        image_set = keras.ops.convert_to_tensor(batch.astype("float32") * scale)
        expected, received = (_log_softmax(model, image_set) for model in (teacher, student))
        divergence += float((np.exp(expected) * (expected - received)).sum())
        confidence += float(np.exp(received.max(axis=-1)).sum())
        seen = expected.argmax(axis=-1)
        counts += np.bincount(seen, minlength=classes)
        agreeing += np.bincount(seen[seen == received.argmax(axis=-1)], minlength=classes)
    total = int(counts.sum())
    agreement = float(agreeing.sum() / total)
    return Agreement(
        agreement=agreement,
        kl=divergence / total,
        calibration_gap=confidence / total - agreement,
        counts=tuple(counts.tolist()),
        agreeing=tuple(agreeing.tolist()),
    )


def _log_softmax(model: Any, images: Any) -> np.ndarray:
    """float64 log probabilities [predictions, classes]."""
    logits = keras.ops.convert_to_numpy(keras.ops.cast(model(images, training=False), "float32"))
    logits = logits.astype(np.float64).reshape(-1, logits.shape[-1])
    logits -= logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
